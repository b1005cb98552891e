"""Jobs on the road: progress, errors, cancelling, and processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from cluster_doubles import SmallJob
from cluster_support import Cluster, eventually, eventually_async, stats
from ray import serve

from cluster import processes
from cluster.road import RayRoad
from dubbing.errors import ClusterError, EngineMissingError, NoSpeechError
from dubbing.types import Progress

T = TypeVar("T")

TRANSLATE = {"translate": "fake-translate"}
STAY = (
    "gcs_server",
    "raylet",
    "monitor.py",
    "log_monitor.py",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "ray::Serve",
)
"""What a Ray is made of; workers that wait for a task, and what engines start, come and go as they see fit."""


def on_the_road(cluster: Cluster, entry: str, work: Callable[[RayRoad], Awaitable[T]]) -> T:
    async def drive() -> T:
        async with cluster.road(entry) as road:
            return await work(road)

    return asyncio.run(drive())


def started(folder: Path) -> list[tuple[int, int]]:
    """(worker, ffmpeg) of each start so far."""
    pids = folder / "pids"
    lines = pids.read_text().splitlines() if pids.exists() else []
    return [(int(worker), int(ffmpeg)) for worker, ffmpeg in (line.split() for line in lines)]


def programs(folder: Path) -> dict[int, str]:
    """What runs of a private Ray: pid -> the script of a Python process that has not named itself, else its name."""
    found = {}
    for one in processes.of_folder(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(one.pid)
            scripts = [Path(part).name for part in process.cmdline() if part.endswith(".py")]
            found[one.pid] = scripts[0] if scripts else process.name()
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_job_reports_progress_and_returns_its_result(cluster: Cluster) -> None:
    job = SmallJob("small", TRANSLATE, texts=("one", "two", "three"))
    seen: list[Progress] = []
    result = on_the_road(cluster, "translate_all", lambda road: road.run_job(job, seen.append))
    assert result == ["[es] one", "[es] two", "[es] three"]
    assert (seen[-1].done, seen[-1].total) == (3, 3)


@pytest.mark.parametrize("entry", ["find_no_speech", "find_no_speech_in_a_leaf"])
def test_an_error_of_the_pipeline_arrives_as_itself(cluster: Cluster, entry: str) -> None:
    with pytest.raises(NoSpeechError) as caught:
        on_the_road(cluster, entry, lambda road: road.run_job(SmallJob("silent", {}), lambda p: None))
    assert type(caught.value) is NoSpeechError
    assert caught.value.facts == {"name": "film.mp4"}


def test_a_job_that_needs_an_engine_nobody_deployed_says_so(cluster: Cluster) -> None:
    job = SmallJob("poor", {"speak": "xtts"})
    with pytest.raises(EngineMissingError, match="speak engine xtts cannot be used here: it is not deployed"):
        on_the_road(cluster, "translate_all", lambda road: road.run_job(job, lambda p: None))


def test_cancelling_a_job_ends_its_ffmpeg_in_order(cluster: Cluster, tmp_path: Path) -> None:
    async def work(road: RayRoad) -> None:
        running = asyncio.ensure_future(road.run_job(SmallJob("cut", {}, folder=tmp_path), lambda p: None))

        async def encoding() -> bool:
            return bool(started(tmp_path))

        await eventually_async(encoding)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()

    on_the_road(cluster, "encode", work)
    assert [runs(ffmpeg) for _, ffmpeg in started(tmp_path)] == [False]
    assert (tmp_path / "tidy").read_text() == "ended\n", "the leaf's own clean-up should have run, once"


def test_cancelling_a_job_frees_the_engine(cluster: Cluster) -> None:
    job = SmallJob("long", {"translate": "costly-translate"}, texts=tuple(f"dropped {n}" for n in range(200)))
    handle = serve.get_deployment_handle("Translator-costly-translate", "engines")

    async def work(road: RayRoad) -> None:
        running = asyncio.ensure_future(road.run_job(job, lambda p: None))

        async def busy() -> bool:
            return (await stats(handle)).waiting > 100

        async def free() -> bool:
            return (await stats(handle)).waiting == 0

        await eventually_async(busy)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await eventually_async(free)

    on_the_road(cluster, "translate_all", work)
    assert len([call for call in cluster.calls_made() if call["text"].startswith("dropped")]) < 200


def test_ffmpeg_dies_with_its_worker_and_the_leaf_starts_again(cluster: Cluster, tmp_path: Path) -> None:
    async def work(road: RayRoad) -> None:
        running = asyncio.ensure_future(road.run_job(SmallJob("shot", {}, folder=tmp_path), lambda p: None))

        async def encoding(times: int) -> bool:
            return len(started(tmp_path)) == times

        await eventually_async(lambda: encoding(1))
        worker, ffmpeg = started(tmp_path)[0]
        os.kill(worker, signal.SIGKILL)
        await eventually_async(lambda: asyncio.sleep(0, not runs(ffmpeg)))
        await eventually_async(lambda: encoding(2))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    on_the_road(cluster, "encode", work)
    assert [runs(ffmpeg) for _, ffmpeg in started(tmp_path)] == [False, False]


def test_a_coordinator_that_is_killed_is_an_error_and_takes_its_ffmpeg_along(cluster: Cluster, tmp_path: Path) -> None:
    told: list[Progress] = []

    async def work(road: RayRoad) -> None:
        running = asyncio.ensure_future(road.run_job(SmallJob("lost", {}, folder=tmp_path), told.append))

        async def encoding() -> bool:
            return bool(started(tmp_path)) and bool(told)

        await eventually_async(encoding)
        os.kill(told[0].done, signal.SIGKILL)
        with pytest.raises(ClusterError, match="the job's process ended unexpectedly"):
            await running

    on_the_road(cluster, "encode", work)
    assert eventually(lambda: not any(runs(ffmpeg) for _, ffmpeg in started(tmp_path)))


def test_a_joined_ray_outlives_the_road(cluster: Cluster) -> None:
    assert cluster.session.folder is not None
    before = {pid: name for pid, name in programs(cluster.session.folder).items() if name.startswith(STAY)}
    assert {stay for stay in STAY if any(name.startswith(stay) for name in before.values())} == set(STAY)
    on_the_road(cluster, "translate_all", lambda road: asyncio.sleep(0))
    after = programs(cluster.session.folder)
    assert {pid: name for pid, name in before.items() if pid not in after} == {}
    assert serve.status().applications["engines"].status == "RUNNING"
