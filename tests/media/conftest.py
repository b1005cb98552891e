"""Small films, made once per session by ffmpeg itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

Ffmpeg = Callable[..., None]


def run_ffmpeg(*arguments: object) -> None:
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="session")
def ffmpeg() -> Ffmpeg:
    return run_ffmpeg


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """film.mp4: 12 s of moving picture, B-frames, a keyframe every 2 s, and a short beep at every whole second."""
    folder = tmp_path_factory.mktemp("films")
    beeps = "aevalsrc='if(lt(mod(t,1),0.02),0.5*sin(2*PI*1000*t),0)':s=48000:d=12"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=12", "-f", "lavfi", "-i", beeps),
        *("-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0"),
        *("-pix_fmt", "yuv420p", "-c:a", "aac", "-metadata", "comment=filmed at home", folder / "film.mp4"),
    )
    return folder


@pytest.fixture(scope="session")
def real_media() -> Path:
    folder = Path(os.environ.get("DUBBING_TEST_MEDIA", Path(__file__).parents[3] / "shared" / "media"))
    if not (folder / "MANIFEST.tsv").is_file():
        pytest.skip("no folder of real media: set DUBBING_TEST_MEDIA")
    return folder


def decode(path: Path, rate: int = 48_000, channels: int = 2, track: int = 0) -> np.ndarray:
    """Independent decoder: one audio track as float32 of shape (frames, channels), from time zero of the file."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-map", f"0:a:{track}"]
    command += ["-af", "aresample=async=1:first_pts=0", "-ar", str(rate), "-ac", str(channels), "-f", "f32le", "-"]
    done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return np.frombuffer(done.stdout, np.float32).reshape(-1, channels)


@pytest.fixture(scope="session")
def decoded() -> Callable[..., np.ndarray]:
    return decode


@pytest.fixture(scope="session")
def meter() -> Callable[[Path], tuple[float, float]]:
    """Independent meter: (integrated LUFS, true peak dBTP) by the ffmpeg program."""

    def measure(path: Path) -> tuple[float, float]:
        command = ["ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-i", str(path)]
        command += ["-af", "ebur128=peak=true", "-f", "null", "-"]
        done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        summary = done.stderr.rsplit("Summary:", 1)[1].split()
        return float(summary[summary.index("I:") + 1]), float(summary[summary.index("Peak:") + 1])

    return measure


@pytest.fixture(autouse=True)
def no_process_is_left_behind():
    yield
    left = [p.name() for p in psutil.Process().children(recursive=True) if p.name() in {"ffmpeg", "ffprobe"}]
    assert left == []
