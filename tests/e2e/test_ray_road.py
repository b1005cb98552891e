"""`dub run` over a Ray of its own: a real dub, a clean stop, a resume, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser import play
from tests.e2e import jobs

pytestmark = pytest.mark.slow


def start(cwd: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dubbing.cli", "run", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left_behind(pid: int) -> list[str]:
    """Processes and folders of the private Ray that `dub` with this pid started."""
    mark = f"dub-ray-{pid}-"
    folders = [str(path) for base in {tempfile.gettempdir(), "/tmp"} for path in Path(base).glob(f"{mark}*")]
    processes = []
    for process in psutil.process_iter(["cmdline", "name"]):
        if any(mark in part for part in process.info["cmdline"] or []):
            processes.append(f"{process.pid} {process.info['name']}")
    return folders + processes


def gone_within(pid: int, seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while (left := left_behind(pid)) and time.monotonic() < deadline:
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


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, require_program: Any) -> Path:
    """Twelve seconds of clear English over moving pictures."""
    require_program("flite"), require_program("apertium"), require_program("espeak-ng")
    folder = tmp_path_factory.mktemp("film")
    text = (
        "Good morning, and welcome. Today we will make some bread. First we take water, flour, and a little salt. "
        "Then we wait for one hour. The bread is ready when it is brown. Thank you for watching."
    )
    voice = jobs.spoken_wav(folder / "voice.wav", text)
    path = folder / "bread.mp4"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=640x360:r=25",
        "-i",
        voice,
        "-c:v",
        "libx264",
    ]
    subprocess.run(
        [*command, "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest", path], check=True
    )
    return path


def test_a_film_is_dubbed_over_ray_and_plays_in_a_browser(film: Path, tmp_path: Path, require_program: Any) -> None:
    process = start(tmp_path, film, "--to", "es", "--json")
    out, errors = process.communicate(timeout=180)

    assert process.returncode == 0, errors
    answer = json.loads(out)
    video = Path(answer["files"]["es"][0])
    report = json.loads(Path(answer["report"]).read_text())
    assert jobs.picture_hash(video) == jobs.picture_hash(film)
    assert report["targets"]["es"]["spoken"] == report["targets"]["es"]["lines"] >= 2
    assert {"ray.init", "serve.start", "deploy", "health"} <= set(report["time"]["command"]["steps_s"])
    assert row(tmp_path, answer["id"])["state"] == "done"
    assert gone_within(process.pid, 5) == []
    require_program("chromium")
    playback = play(video)
    assert not playback.error and playback.reached_s > 0.5 and playback.width == 640


def test_ctrl_c_stops_ray_and_all_and_the_same_command_resumes(film: Path, tmp_path: Path) -> None:
    process = start(tmp_path, film, "--to", "es", "--json")
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if line.startswith("transcribe"):
            process.send_signal(signal.SIGINT)
            break
    out, rest = process.communicate(timeout=60)

    assert process.returncode == 130, seen + rest
    assert json.loads(out)["error"]["code"] == "stopped"
    assert [job["state"] for job in rows(tmp_path)] == ["paused"]
    assert gone_within(process.pid, 5) == []
    kept = (tmp_path / "Output" / "bread" / ".work" / "transcribe.jsonl").read_text().count("\n")

    again = start(tmp_path, film, "--to", "es", "--json")
    out, errors = again.communicate(timeout=180)

    assert again.returncode == 0, errors
    calls = json.loads(Path(json.loads(out)["report"]).read_text())["calls"]
    assert kept >= 1 and calls["transcribe.kept"] == kept
    assert [job["state"] for job in rows(tmp_path)] == ["done"], "the same job, not another one"


def test_a_job_whose_command_was_killed_is_taken_over_by_the_same_command(film: Path, tmp_path: Path) -> None:
    process = start(tmp_path, film, "--to", "es")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("transcribe"):
            break
    process.kill()
    process.communicate()
    (job,) = rows(tmp_path)
    again = start(tmp_path, film, "--to", "es", "--json")
    out, errors = again.communicate(timeout=180)

    assert job["state"] == "running"
    assert again.returncode == 0, errors
    assert "is running already: following it" in errors and "it has gone silent" in errors
    assert json.loads(out)["id"] == job["id"]


def test_kill_minus_nine_leaves_no_ray_and_no_ffmpeg_behind(film: Path, tmp_path: Path) -> None:
    process = start(tmp_path, film, "--to", "es")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("transcribe"):
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    _, alive = psutil.wait_procs(children, timeout=10)

    # Ray's own agents look for their raylet every few tens of seconds; no worker, raylet, engine or ffmpeg is left
    left = [p for p in alive if p.is_running() and p.name() not in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")]
    # an agent that has only begun to start has not told its name yet
    assert [p.cmdline() for p in left if "agent" not in " ".join(p.cmdline())] == []


def test_an_address_where_no_ray_listens_is_said_at_once(film: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dubbing.cli", "run", str(film), "--to", "es", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:9"},
        timeout=60,
    )

    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], error["retryable"]) == (4, "cluster", True)
    assert "127.0.0.1:9" in error["message"] and "--in-process" in error["hint"]
