"""A film's beginning with its sound tracks exchanged makes the same film with the other sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dubbing.media import heads
from tests.e2e import jobs
from tests.media.conftest import decode, run_ffmpeg


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of picture with a tone at 300 Hz, and one at 1500 Hz that is not the default."""
    path = tmp_path_factory.mktemp("heads") / "film.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x64:r=25:d=2"),
        *("-f", "lavfi", "-i", "sine=300:d=2:r=48000", "-f", "lavfi", "-i", "sine=1500:d=2:r=48000"),
        *("-map", 0, "-map", 1, "-map", 2, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
        *("-c:a", "aac", "-disposition:a:1", 0, "-movflags", "+faststart", path),
    )
    return path


def pitch(path: Path, track: int) -> float:
    """The loudest frequency of a sound track, Hz."""
    sound = decode(path, channels=1, track=track)[:48_000, 0]
    return float(np.argmax(np.abs(np.fft.rfft(sound))) * 48_000 / len(sound))


def test_the_second_sound_becomes_the_first_and_everything_else_stays(film: Path, tmp_path: Path) -> None:
    head = heads.with_sounds_exchanged(film)

    assert head is not None
    exchanged, whole = tmp_path / "exchanged.mp4", film.read_bytes()
    exchanged.write_bytes(head + whole[len(head) :])
    assert [round(pitch(film, n), -1) for n in (0, 1)] == [300, 1500]
    assert [round(pitch(exchanged, n), -1) for n in (0, 1)] == [1500, 300]
    assert jobs.picture_hash(exchanged) == jobs.picture_hash(film)
    assert [stream["disposition"]["default"] for stream in jobs.streams(exchanged)] == [1, 1, 0]
    assert heads.with_sounds_exchanged(exchanged) == whole[: len(head)]


def test_a_film_of_sounds_alone_is_exchanged_too(film: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.m4a"
    run_ffmpeg("-i", film, "-map", "0:a", "-c", "copy", "-movflags", "+faststart", path)
    head = heads.with_sounds_exchanged(path)

    assert head is not None
    path.write_bytes(head + path.read_bytes()[len(head) :])
    assert round(pitch(path, 0), -1) == 1500


@pytest.mark.parametrize("options", [["-map", "0:v", "-map", "0:a:0", "-movflags", "+faststart"], ["-map", "0"]])
def test_without_a_second_sound_or_an_index_in_front_there_is_no_such_beginning(
    film: Path, tmp_path: Path, options: list[str]
) -> None:
    path = tmp_path / "film.mp4"
    run_ffmpeg("-i", film, *options, "-c", "copy", path)

    assert heads.with_sounds_exchanged(path) is None


@pytest.mark.parametrize("length", [0, 7, 40, 200])
def test_a_damaged_file_has_no_such_beginning(film: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(film.read_bytes()[:length])

    assert heads.with_sounds_exchanged(path) is None
