"""How ffmpeg and ffprobe are run: argument lists, nothing on stdin, limits, a time-out, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dubbing.errors import MediaTimeoutError, ProgramMissingError
from dubbing.media.verdict import error_for

MAX_PIXELS = 35_389_440
"""8192 x 4320: a 700 kB file with larger pictures took 800 MB of memory."""
MAX_STREAMS = 32
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,wav,mp3,flac,ogg,aac"
"""Demuxers an upload may use. A protocol whitelist alone is not enough: HLS reads other local files through `file`."""
INPUT_GUARD: tuple[str, ...] = (
    "-protocol_whitelist",
    "file",
    "-format_whitelist",
    FORMATS,
    "-max_pixels",
    str(MAX_PIXELS),
    "-max_streams",
    str(MAX_STREAMS),
)
"""Options that stand before every `-i` of a file a user gave us."""

_HEAD_BYTES, _TAIL_BYTES = 16 << 10, 48 << 10
_STDOUT_BYTES = 8 << 20
_INSTALL = "apt-get install -y --no-install-recommends ffmpeg"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may use (rlimits)."""

    memory_bytes: int = 8 << 30
    """Address space; ffmpeg reserves far more than it touches, and more with more cores."""
    cpu_s: int = 4 * 3600
    file_bytes: int = 1 << 40
    open_files: int = 256


@dataclass(frozen=True, slots=True)
class Completed:
    """A process that ended well."""

    stdout: bytes
    """At most 8 MiB; empty when lines or progress were handed to a callback."""
    stderr: str
    """First 16 KiB and last 48 KiB."""


def source(path: Path) -> list[str]:
    """`-i` with the guard in front, for a user's file. The `file:` prefix keeps odd names from being protocols."""
    return [*INPUT_GUARD, "-i", f"file:{path}"]


def input_options() -> dict[str, str | None]:
    """The guard as ffmpeg-python takes it, for a user's file in a filter graph; None marks an option without a value."""
    return {name.removeprefix("-"): value for name, value in zip(INPUT_GUARD[::2], INPUT_GUARD[1::2], strict=True)}


def own(path: Path, kind: str) -> list[str]:
    """`-i` for a file that we wrote ourselves in the format `kind`."""
    return ["-protocol_whitelist", "file", "-format_whitelist", kind, "-f", kind, "-i", f"file:{path}"]


def timeout_for(duration_ms: int) -> float:
    """Seconds a pass over a file of this length may take."""
    return 30 + 2 * duration_ms / 1000


async def run(
    argv: Sequence[str],
    *,
    name: str,
    timeout_s: float,
    stdin: AsyncIterable[bytes] | None = None,
    on_progress: Callable[[int], None] | None = None,
    on_line: Callable[[str], None] | None = None,
    limits: Limits = Limits(),
) -> Completed:
    """Run ffmpeg or ffprobe to its end; `name` is what a user calls the file.

    `on_progress` hears the written position in ms, `on_line` every line of stdout. However this ends - error, time-out,
    cancellation - the process is gone when it returns. Raises the media errors of dubbing.errors.
    """
    program, arguments = argv[0], list(argv[1:])
    if on_progress is not None:
        arguments[:0] = ["-progress", "pipe:1", "-nostats"]
        on_line = _progress_lines(on_progress)
    if program == "ffmpeg":
        arguments[:0] = ["-nostdin"]
    executable = shutil.which(program)
    if executable is None:
        raise ProgramMissingError(program=program, install=_INSTALL)
    process = await asyncio.create_subprocess_exec(
        *_limiter(limits),
        executable,
        "-hide_banner",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Not in a session of its own: a killed worker must take its ffmpeg with it.
        env={"PATH": os.defpath, "LC_ALL": "C", "MALLOC_ARENA_MAX": "2"},
        limit=1 << 20,
    )
    try:
        stdout, stderr = await asyncio.wait_for(_drive(process, stdin, on_line), timeout_s)
    except asyncio.TimeoutError as error:
        raise MediaTimeoutError(name=name, limit_s=round(timeout_s)) from error
    finally:
        await _stop(process)
    failure = error_for(name, process.returncode or 0, stderr, pixel_limit=MAX_PIXELS, stream_limit=MAX_STREAMS)
    if failure is not None:
        raise failure
    return Completed(stdout, stderr)


async def _drive(
    process: asyncio.subprocess.Process, stdin: AsyncIterable[bytes] | None, on_line: Callable[[str], None] | None
) -> tuple[bytes, str]:
    """Feed and drain the process until it ends."""
    assert process.stdout is not None
    assert process.stderr is not None
    tasks: list[asyncio.Task[bytes]] = [
        asyncio.ensure_future(_lines(process.stdout, on_line) if on_line else _bytes(process.stdout, 0, _STDOUT_BYTES)),
        asyncio.ensure_future(_bytes(process.stderr, _HEAD_BYTES, _TAIL_BYTES)),
    ]
    feeder = None if stdin is None else asyncio.ensure_future(_feed(process, stdin))
    try:
        out, err = await asyncio.gather(*tasks)
        if feeder is not None:
            await feeder
        await process.wait()
    finally:
        for task in (*tasks, *([] if feeder is None else [feeder])):
            task.cancel()
    return out, err.decode("utf-8", "replace")


async def _feed(process: asyncio.subprocess.Process, stdin: AsyncIterable[bytes]) -> None:
    assert process.stdin is not None
    # A process that ends early says why on stderr; the broken pipe is only its echo.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        async for block in stdin:
            process.stdin.write(block)
            await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()


async def _bytes(reader: asyncio.StreamReader, head_size: int, tail_size: int) -> bytes:
    """Everything up to head + tail bytes; of more, the beginning and the end."""
    head, tail = bytearray(), bytearray()
    while block := await reader.read(1 << 16):
        take = head_size - len(head)
        head += block[:take]
        tail += block[take:]
        del tail[:-tail_size]
    return bytes(head + tail)


async def _lines(reader: asyncio.StreamReader, on_line: Callable[[str], None]) -> bytes:
    while line := await reader.readline():
        on_line(line.decode("utf-8", "replace").rstrip("\r\n"))
    return b""


def _progress_lines(on_progress: Callable[[int], None]) -> Callable[[str], None]:
    def hear(line: str) -> None:
        key, _, value = line.partition("=")
        if key == "out_time_us" and value.isdigit():
            on_progress(int(value) // 1000)

    return hear


def _limiter(limits: Limits) -> list[str]:
    """The program that sets rlimits and then becomes ffmpeg: nothing of a file is read before they hold."""
    executable = shutil.which("prlimit")
    if executable is None:
        raise ProgramMissingError(program="prlimit", install="apt-get install -y util-linux")
    wanted = {
        "as": (resource.RLIMIT_AS, limits.memory_bytes),
        "cpu": (resource.RLIMIT_CPU, limits.cpu_s),
        "fsize": (resource.RLIMIT_FSIZE, limits.file_bytes),
        "nofile": (resource.RLIMIT_NOFILE, limits.open_files),
        "core": (resource.RLIMIT_CORE, 0),
    }
    command = [executable]
    for name, (kind, value) in wanted.items():
        _, hard = resource.getrlimit(kind)
        command.append(f"--{name}={value if hard == resource.RLIM_INFINITY else min(value, hard)}")
    return command


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a process that still runs: ask, wait two seconds, kill, wait."""
    if process.returncode is not None:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 2)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await process.wait()
