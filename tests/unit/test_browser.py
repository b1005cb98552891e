"""The browser helper tells a file that plays from one that does not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser import play


@pytest.fixture
def film(tmp_path: Path, require_program: Callable[..., str]) -> Path:
    """Two seconds of picture and tone."""
    require_program("chromium", "chromium-browser")
    path = tmp_path / "film.mp4"
    command = [
        require_program("ffmpeg"),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x180:rate=25:duration=2",
    ]
    command += ["-f", "lavfi", "-i", "sine=frequency=440:duration=2", "-c:v", "libx264", "-preset", "ultrafast"]
    command += ["-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def test_a_film_plays_with_picture_and_sound(film: Path, tmp_path: Path) -> None:
    seen = play(film, seconds=1.0, screenshot=tmp_path / "film.png")
    assert seen.error == ""
    assert (seen.width, seen.height, seen.audio_tracks) == (320, 180, 1)
    assert seen.duration_s == pytest.approx(2.0, abs=0.1)
    assert seen.reached_s >= 1.0
    assert (tmp_path / "film.png").read_bytes().startswith(b"\x89PNG")


def test_sound_alone_plays(film: Path, tmp_path: Path) -> None:
    sound = tmp_path / "sound.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(film), "-vn", "-c", "copy", str(sound)], check=True, timeout=60)
    seen = play(sound, seconds=0.5)
    assert (seen.error, seen.width, seen.audio_tracks) == ("", 0, 1)
    assert seen.reached_s >= 0.5


def test_a_broken_file_is_reported(film: Path) -> None:
    film.write_bytes(b"\0" * 1000)
    seen = play(film)
    assert seen.error
    assert seen.reached_s == 0
