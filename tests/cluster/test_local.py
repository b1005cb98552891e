"""Starting, joining, refusing and leaving."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import ray
from cluster_support import Cluster, python_path, write_config

from cluster import local, processes, serving, slots
from cluster.road import RayRoad
from dubbing.config import Settings
from dubbing.errors import ClusterError, ProgramMissingError, SettingsError


def in_a_new_process(code: str, plugin: Path, **env: str) -> dict[str, Any]:
    """What `code` prints as its last line, JSON."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": python_path(plugin), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


def test_an_engine_that_cannot_be_loaded_fails_with_its_own_error(cluster: Cluster, tmp_path: Path) -> None:
    config = serving.load_config(write_config(tmp_path / "c.yaml", {"speak": {"programless-speak": {}}}, app="broken"))
    with pytest.raises(ProgramMissingError) as caught:
        serving.wait_until_healthy(serving.deploy(config, {}), ours=True)
    assert caught.value.message == "The program espeak-ng is not installed"
    assert caught.value.advice == "apt-get install espeak-ng"


def test_engine_args_replace_the_engines_of_the_config(cluster: Cluster, tmp_path: Path) -> None:
    config = serving.load_config(
        write_config(tmp_path / "c.yaml", {"translate": {"fake-translate": {}}}, app="replaced")
    )
    with pytest.raises(ProgramMissingError):
        serving.wait_until_healthy(serving.deploy(config, {"speak": {"programless-speak": {}}}), ours=True)


@pytest.mark.parametrize(
    ("engines", "problem"),
    [({}, "at least 1"), ({"sing": {"choir": {}}}, "sing"), ({"speak": "fake-speak"}, "engines.speak")],
)
def test_engines_that_make_no_sense_are_refused(cluster: Cluster, tmp_path: Path, engines: Any, problem: str) -> None:
    config = serving.load_config(write_config(tmp_path / "c.yaml", engines, app="senseless"))
    with pytest.raises(SettingsError, match=problem):
        serving.deploy(config, {})


@pytest.mark.parametrize("text", ["applications: 7", "a: [", "applications: [{name: engines}]"])
def test_a_file_that_is_no_serve_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SettingsError, match="must be a Serve config"):
        serving.load_config(tmp_path / "c.yaml")


def test_a_serve_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        serving.load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:1", "nothing answers at 127.0.0.1:1"),
        ("ray://127.0.0.1:10001", "not an address"),
        ("head", "not an address"),
    ],
)
def test_an_address_where_no_ray_answers_is_an_error_at_once(plugin: Path, address: str, problem: str) -> None:
    told = in_a_new_process(
        f"""
        import json
        from cluster.local import RaySession
        from dubbing.config import Settings
        from dubbing.errors import ClusterError
        session = RaySession(Settings(ray_address={address!r}))
        try:
            session.start({{}})
        except ClusterError as error:
            print(json.dumps([error.message, error.advice]))
        session.stop()
        """,
        plugin,
    )
    assert problem in told[0]  # type: ignore[index]
    assert "--in-process" in told[1]  # type: ignore[index]


def test_a_ray_of_another_version_is_an_error_that_says_so(cluster: Cluster, plugin: Path) -> None:
    told = in_a_new_process(
        f"""
        import json, ray
        from cluster.local import RaySession
        from dubbing.config import Settings
        from dubbing.errors import ClusterError
        ray.__version__ = "2.0.0"
        session = RaySession(Settings(ray_address={cluster.address!r}))
        try:
            session.start({{}})
        except ClusterError as error:
            print(json.dumps(error.message))
        session.stop()
        """,
        plugin,
    )
    assert "ersion mismatch" in told
    assert "2.0.0" in told


@pytest.mark.parametrize("most", [None, {"CPU": 64, "job_slot": 8}], ids=["not known", "known"])
def test_a_ray_whose_nodes_with_job_slots_are_still_to_come_is_told_of(most: dict[str, float] | None) -> None:
    assert slots.verdict("head:6379", {"CPU": 2}, most).startswith("No node of the Ray at head:6379 offers")
    assert slots.verdict("head:6379", {"CPU": 2, "job_slot": 4}, most) == ""


def test_a_ray_that_can_never_have_a_job_slot_is_refused() -> None:
    with pytest.raises(ClusterError, match=r"no type of node that the Ray at head:6379 can have offers .* job_slot"):
        slots.verdict("head:6379", {"CPU": 2}, {"CPU": 64, "GPU": 8})


def test_another_process_joins_and_reuses_the_engines(cluster: Cluster, plugin: Path) -> None:
    assert cluster.session.folder is not None
    before = {process.pid for process in processes.of_folder(cluster.session.folder)}
    told = in_a_new_process(
        f"""
        import asyncio, json
        from pathlib import Path
        from cluster.road import RayRoad
        from cluster_doubles import SmallJob
        from dubbing.config import Settings
        async def main():
            settings, entry = Settings(ray_address={cluster.address!r}), "cluster_doubles:translate_all"
            async with RayRoad(settings, log_dir=Path("logs"), engine_args={{}}, entry=entry) as road:
                job = SmallJob("guest", {{"translate": "fake-translate"}}, texts=("hello",))
                print(json.dumps([await road.run_job(job, lambda p: None), road.timings]))
        asyncio.run(main())
        """,
        plugin,
    )
    assert told[0] == ["[es] hello"]  # type: ignore[index]
    assert set(told[1]) == {"import", "ray.init", "serve.start", "deploy", "health"}  # type: ignore[index]
    assert before <= {process.pid for process in processes.of_folder(cluster.session.folder)}


@pytest.mark.slow
def test_a_private_ray_with_a_job_at_work_leaves_nothing_behind(plugin: Path, tmp_path: Path) -> None:
    write_config(tmp_path / "c.yaml", {"speak": {"fake-speak": {}}})
    told = in_a_new_process(
        f"""
        import asyncio, dataclasses, json
        from pathlib import Path
        from cluster import processes
        from cluster.road import RayRoad
        from cluster_doubles import SmallJob
        from dubbing.config import Settings
        here = Path({str(tmp_path)!r})
        async def main():
            settings, entry = Settings(serve_config=here / "c.yaml"), "cluster_doubles:encode"
            async with RayRoad(settings, log_dir=here / "logs", engine_args={{}}, entry=entry) as road:
                running = asyncio.ensure_future(road.run_job(SmallJob("left", {{}}, folder=here), lambda p: None))
                while not (here / "pids").exists():
                    await asyncio.sleep(0.05)
                folder = road._session.folder
                mine = [dataclasses.astuple(process) for process in processes.of_folder(folder)]
            (error,) = await asyncio.gather(running, return_exceptions=True)
            kept = str(road.kept_logs)
            print(json.dumps({{"folder": str(folder), "mine": mine, "logs": kept, "error": type(error).__name__}}))
        asyncio.run(main())
        """,
        plugin,
    )
    ffmpeg = int((tmp_path / "pids").read_text().split()[1])
    assert ffmpeg in [pid for pid, _ in told["mine"]]
    assert [pid for pid, started in told["mine"] if processes.Process(pid, started).runs()] == []
    assert not Path(told["folder"]).exists()
    assert told["error"] == "StoppedError"
    assert told["logs"] == "None"
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_a_start_broken_off_leaves_nothing_behind_but_the_logs_of_its_failure(plugin: Path, tmp_path: Path) -> None:
    write_config(tmp_path / "c.yaml", {"speak": {"crooked-speak": {}}})
    told = in_a_new_process(
        f"""
        import asyncio, json, time
        from pathlib import Path
        from cluster import processes
        from cluster.road import RayRoad
        from dubbing.config import Settings
        from dubbing.errors import ClusterError
        here = Path({str(tmp_path)!r})
        async def main():
            road = RayRoad(Settings(serve_config=here / "c.yaml"), log_dir=here / "logs", engine_args={{}})
            starting = asyncio.ensure_future(road.start())
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            assert starting.cancelled()
            try:
                await road.start()
            except ClusterError as error:
                message = error.message
            await road.aclose()
            folder = road._session.folder
            left = len(processes.of_folder(folder))
            kept = str(road.kept_logs)
            print(json.dumps({{"folder": str(folder), "left": left, "logs": kept, "message": message}}))
        asyncio.run(main())
        """,
        plugin,
    )
    assert "Speaker" in told["message"]
    assert "ZeroDivisionError: a defect in the engine's loading code" in told["message"]
    assert told["left"] == 0
    assert not Path(told["folder"]).exists()
    assert "gcs_server.out" in [path.name for path in Path(told["logs"]).iterdir()]


def test_the_private_ray_lies_in_a_folder_that_says_whose_it_is(cluster: Cluster) -> None:
    assert cluster.session.folder is not None
    assert cluster.session.folder.name.startswith(f"dub-ray-{os.getpid()}-")


@pytest.mark.parametrize("address", ["local", "auto"])
def test_a_ray_that_does_not_start_in_time_is_an_error_of_the_cluster(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    def late(**options: object) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "init", late)
    session = local.RaySession(Settings(ray_address=address))
    with pytest.raises(ClusterError, match="timed out during startup"):
        session._init_private() if session.owned else session._join(address)


def test_ray_imported_too_early_is_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    session = local.RaySession(Settings())
    with pytest.raises(ClusterError, match="imported before"):
        session.start({})


def test_the_road_is_imported_without_ray(plugin: Path) -> None:
    code = "import json, sys, cluster.road; print(json.dumps({'ray': 'ray' in sys.modules}))"
    assert in_a_new_process(code, plugin) == {"ray": False}


def test_the_road_is_found_by_its_entry_point() -> None:
    (entry,) = entry_points(group="dubbing.cluster")
    assert entry.load() is RayRoad
