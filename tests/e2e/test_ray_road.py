"""`dub run` over a Ray of its own: a real dub, a clean stop, a resume, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import folders
from tests.browser import play
from tests.e2e import jobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ANSWER_S = 300.0
GONE_S = 90.0
"""Limits for a machine that is busy otherwise: a quiet one takes fifteen seconds for a dub, and three for an end."""


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `dub run`; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dubbing.cli", "run", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until_heard(process: subprocess.Popen[str]) -> str:
    """What it says until some of the speech is recognised, which is never all that is to be done."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("transcribe"):
            return said
    raise AssertionError(said)


def left_behind(pid: int) -> list[str]:
    """Processes and folders of the private Ray that `dub` with this pid started."""
    mark = f"dub-ray-{pid}-"
    folders = [str(path) for base in {tempfile.gettempdir(), "/tmp"} for path in Path(base).glob(f"{mark}*")]
    processes = []
    for process in psutil.process_iter(["cmdline", "name"]):
        # a worker of Ray writes its name over its command line; its log it keeps open
        if any(mark in part for part in [*(process.info["cmdline"] or []), *open_files(process.pid)]):
            processes.append(f"{process.pid} {process.info['name']}")
    return folders + processes


def open_files(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            yield str(link.readlink())


def name_of(process: psutil.Process) -> str:
    """Its name; empty when it runs no more."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return process.name()
    return ""


def none_within(seconds: float, look: Callable[[], list[str]]) -> list[str]:
    """What is left of what `look` sees; waits until that is nothing."""
    deadline = time.monotonic() + seconds
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def rows(cwd: Path) -> list[dict[str, Any]]:
    """The jobs of this folder's database, as `dub jobs` tells them."""
    command = [sys.executable, "-m", "dubbing.cli", "jobs", "--json"]
    told: list[dict[str, Any]] = json.loads(subprocess.run(command, cwd=cwd, capture_output=True, check=True).stdout)
    return told


def row(cwd: Path, job_id: str) -> dict[str, Any]:
    (found,) = [job for job in rows(cwd) if job["id"] == job_id]
    return found


TEXT = (
    "Good morning, and welcome. Today we will make some bread. First we take water, flour, and a little salt. "
    "Then we wait for one hour. The bread is ready when it is brown. Thank you for watching."
)


def speaking_film(folder: Path, text: str) -> Path:
    """Clear English over moving pictures, two words a second."""
    voice, path = jobs.spoken_wav(folder / "voice.wav", text), folder / "bread.mp4"
    picture = ["-f", "lavfi", "-i", "testsrc2=s=640x360:r=25", "-i", voice, "-c:v", "libx264", "-preset", "ultrafast"]
    command = ["ffmpeg", "-v", "error", "-y", *picture, "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest", path]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, require_program: Any) -> Path:
    """Twelve seconds."""
    require_program("flite"), require_program("apertium"), require_program("espeak-ng")
    return speaking_film(tmp_path_factory.mktemp("film"), TEXT)


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory, require_program: Any) -> Path:
    """A minute, most of which is still to be done when the first words are recognised."""
    require_program("flite"), require_program("apertium"), require_program("espeak-ng")
    return speaking_film(tmp_path_factory.mktemp("long"), " ".join([TEXT] * 5))


def test_a_film_is_dubbed_over_ray_and_plays_in_a_browser(
    film: Path, tmp_path: Path, start: Start, require_program: Any
) -> None:
    process = start(film, "--to", "es", "--json")
    out, errors = process.communicate(timeout=ANSWER_S)

    assert process.returncode == 0, errors
    answer = json.loads(out)
    video = Path(answer["files"]["es"][0])
    report = json.loads(Path(answer["report"]).read_text())
    assert jobs.picture_hash(video) == jobs.picture_hash(film)
    assert report["targets"]["es"]["spoken"] == report["targets"]["es"]["lines"] >= 2
    assert {"ray.init", "serve.start", "deploy", "health"} <= set(report["time"]["command"]["steps_s"])
    assert row(tmp_path, answer["id"])["state"] == "done"
    assert left_behind(process.pid) == []
    require_program("chromium")
    playback = play(video)
    assert not playback.error and playback.reached_s > 0.5 and playback.width == 640


def test_ctrl_c_stops_ray_and_all_and_the_same_command_resumes(long_film: Path, tmp_path: Path, start: Start) -> None:
    process = start(long_film, "--to", "es", "--json")
    said = until_heard(process)
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=ANSWER_S)

    assert process.returncode == 130, said + rest
    assert json.loads(out)["error"]["code"] == "stopped"
    assert [job["state"] for job in rows(tmp_path)] == ["paused"]
    assert left_behind(process.pid) == []
    kept = (tmp_path / "Output" / "bread" / ".work" / "transcribe.jsonl").read_text().count("\n")

    again = start(long_film, "--to", "es", "--json")
    out, errors = again.communicate(timeout=ANSWER_S)

    assert again.returncode == 0, errors
    calls = json.loads(Path(json.loads(out)["report"]).read_text())["calls"]
    assert kept >= 1 and calls["transcribe.kept"] == kept
    (job,) = rows(tmp_path)
    assert job["state"] in ("done", "done_with_warnings"), "the same job, not another one"


def test_a_job_whose_command_was_killed_is_taken_over_by_the_same_command(
    film: Path, tmp_path: Path, start: Start
) -> None:
    process = start(film, "--to", "es")
    until_heard(process)
    process.kill()
    process.communicate()
    (job,) = rows(tmp_path)
    again = start(film, "--to", "es", "--json")
    out, errors = again.communicate(timeout=ANSWER_S)

    assert job["state"] == "running"
    assert again.returncode == 0, errors
    assert "is running already: following it" in errors and "it has gone silent" in errors
    assert json.loads(out)["id"] == job["id"]


def test_after_kill_minus_nine_all_but_two_agents_of_ray_goes_by_itself_and_those_at_the_next_start(
    film: Path, start: Start
) -> None:
    process = start(film, "--to", "es")
    until_heard(process)
    children = psutil.Process(process.pid).children(recursive=True)
    ray_folder = next(Path(place) for place in left_behind(process.pid) if place.startswith("/"))
    assert {"raylet", "gcs_server"} <= {child.name() for child in children}
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    def alive() -> list[str]:
        return [name for child in children if (name := name_of(child))]

    # they want to tell the raylet's end to a head that has ended too, and give up after a minute
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
    assert none_within(GONE_S, lambda: [name for name in alive() if name not in agents]) == []
    assert len(alive()) <= len(agents)
    folders.sweep(ray_folder.parent, folders.RAY)
    assert (alive(), ray_folder.exists()) == ([], False)


def test_an_address_where_no_ray_listens_is_said_at_once(film: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dubbing.cli", "run", str(film), "--to", "es", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:9"},
        timeout=ANSWER_S,
    )

    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], error["retryable"]) == (4, "cluster", True)
    assert "127.0.0.1:9" in error["message"] and "--in-process" in error["hint"]
