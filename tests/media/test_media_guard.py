"""The guard ends what it starts, and says what went wrong."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from dubbing.errors import (
    DiskFullError,
    MediaLimitError,
    MediaTimeoutError,
    MediaToolError,
    NoAudioError,
    ProgramMissingError,
    TruncatedMediaError,
    UnreadableMediaError,
)
from dubbing.media import guard
from dubbing.media.files import disk_errors
from dubbing.media.verdict import error_for, is_playlist

ENDLESS = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "anullsrc", "-f", "null", "-"]


_OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Servers of other tests may run below this process."""
    _OTHERS.clear()
    _OTHERS.update(process.pid for process in psutil.Process().children(recursive=True))


def children() -> list[psutil.Process]:
    """Processes that this test started and that still run."""
    return [p for p in psutil.Process().children(recursive=True) if p.pid not in _OTHERS]


async def cancelled_while_running(argv: list[str]) -> float:
    """Seconds that cancelling took, once the process was there."""
    task = asyncio.ensure_future(guard.run(argv, name="x", timeout_s=60))
    while not children():
        await asyncio.sleep(0.005)
    start = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - start


def test_cancelling_ends_ffmpeg_within_three_seconds():
    times = [asyncio.run(cancelled_while_running(ENDLESS)) for _ in range(3)]
    assert min(times) < 3, "a busy machine may need more now and then, but not always"
    assert children() == []


def test_a_program_that_ignores_the_polite_signal_is_killed(tmp_path: Path):
    stubborn = tmp_path / "stubborn"
    stubborn.write_text(
        "#!/usr/bin/python3\nimport signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: signal.pause()\n"
    )
    stubborn.chmod(0o755)
    asyncio.run(cancelled_while_running([str(stubborn)]))
    assert children() == []


def test_a_pass_that_takes_too_long_is_ended_with_its_own_error():
    with pytest.raises(MediaTimeoutError) as caught:
        asyncio.run(guard.run(ENDLESS, name="film.mp4", timeout_s=0.3))
    assert caught.value.code == "media_timeout"
    assert "film.mp4" in caught.value.message
    assert children() == []


def test_a_file_that_grows_beyond_its_limit_is_stopped(tmp_path: Path):
    argv = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "anullsrc", "-f", "s16le", str(tmp_path / "out")]
    with pytest.raises(MediaLimitError):
        asyncio.run(guard.run(argv, name="film.mp4", timeout_s=60, limits=guard.Limits(file_bytes=1 << 20)))
    assert (tmp_path / "out").stat().st_size <= 1 << 20


def test_a_process_that_wants_too_much_memory_is_stopped():
    argv = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=s=16000x16000", "-f", "null", "-"]
    with pytest.raises(MediaLimitError):
        asyncio.run(guard.run(argv, name="x", timeout_s=60, limits=guard.Limits(memory_bytes=700 << 20)))


def test_too_much_processor_time_is_a_limit_error():
    with pytest.raises(MediaLimitError):
        asyncio.run(guard.run(ENDLESS, name="x", timeout_s=60, limits=guard.Limits(cpu_s=1)))


def test_a_missing_program_names_the_command_that_installs_it():
    with pytest.raises(ProgramMissingError) as caught:
        asyncio.run(guard.run(["ffmpeg-not-installed"], name="x", timeout_s=1))
    assert "apt-get install" in caught.value.advice


def test_standard_input_can_be_fed_and_progress_is_heard(tmp_path: Path):
    async def second_of_silence():
        for _ in range(10):
            yield bytes(96_00)

    heard: list[int] = []
    argv = ["ffmpeg", "-v", "error", "-f", "s16le", "-ar", "48000", "-ac", "1", "-i", "pipe:0", str(tmp_path / "o.wav")]
    run = guard.run(argv, name="x", timeout_s=20, stdin=second_of_silence(), on_progress=heard.append)
    asyncio.run(run)
    assert heard[-1] == 1000


def test_a_program_that_never_reads_its_input_is_an_error_not_a_hang():
    async def endless():
        while True:
            yield bytes(1 << 16)

    argv = ["ffmpeg", "-v", "error", "-f", "nonsense", "-i", "pipe:0", "-f", "null", "-"]
    with pytest.raises(MediaToolError):
        asyncio.run(guard.run(argv, name="x", timeout_s=20, stdin=endless()))


def test_a_full_disk_is_told_by_folder_and_need_whoever_meets_it(tmp_path: Path):
    async def by_ffmpeg() -> None:
        argv = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "anullsrc=d=60", "-f", "s16le", "/dev/full"]
        with disk_errors(tmp_path, 5 << 20):
            await guard.run(argv, name="x", timeout_s=20)

    with pytest.raises(DiskFullError) as caught:
        asyncio.run(by_ffmpeg())
    assert (caught.value.facts["folder"], caught.value.facts["need_mb"]) == (str(tmp_path), 5)
    with pytest.raises(DiskFullError), disk_errors(tmp_path, 1), Path("/dev/full").open("wb") as file:
        file.write(bytes(1 << 20))
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path, 1):
        (tmp_path / "no").open("rb")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("[mov @ 0x1] moov atom not found\nx.mp4: Invalid data found when processing input", TruncatedMediaError),
        (
            "[mov @ 0x1] Format mov detected only with low score of 1\nmoov atom not found\nInvalid data found",
            UnreadableMediaError,
        ),
        ("av_interleaved_write_frame(): No space left on device", DiskFullError),
        ("Stream map '0:a' matches no streams.", NoAudioError),
        ("x: Cannot allocate memory", MediaLimitError),
        ("something nobody has seen before", MediaToolError),
    ],
)
def test_what_ffmpeg_says_becomes_the_error_a_user_understands(words: str, expected: type):
    assert type(error_for("x", 1, words, pixel_limit=1, stream_limit=1)) is expected


def test_a_film_is_no_playlist_and_a_playlist_is():
    assert not is_playlist(b"\0\0\0\x20ftypisom\0\0\2\0file ")
    assert not is_playlist(b"")
    for head in (
        b"#EXTM3U\n",
        b"\xef\xbb\xbf#EXTM3U",
        b"ffconcat version 1.0",
        b"file 'a.mp4'\n",
        b"v=0\r\no=- 0 0",
        b"<MPD",
    ):
        assert is_playlist(head)
