"""What is in a file, as ffprobe says, distrusting what its header claims about time."""

from __future__ import annotations

import asyncio
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

from dubbing.errors import (
    EmptyFileError,
    FileMissingError,
    ForbiddenFormatError,
    PictureTooLargeError,
    TooLongError,
    UnreadableMediaError,
)
from dubbing.media import guard
from dubbing.media.verdict import is_playlist
from dubbing.types import AudioStream, MediaInfo, VideoStream

_PROBE_TIMEOUT_S = 60.0
_SPARSE_BYTES_PER_S = 400
"""Below the thinnest real speech codec; a header that claims less is checked against the packets."""
_DENSE_BYTES_PER_S = 40 << 20
_MAX_TAG = 80


async def probe(path: Path, *, max_minutes: int = 240) -> MediaInfo:
    """Look into a file. Raises a BadInputError that says what is wrong with it, TooLongError beyond `max_minutes`."""
    size = await asyncio.to_thread(_look, path)
    argv = ["ffprobe", "-v", "warning", "-of", "json", "-show_format", "-show_streams", *guard.source(path)]
    done = await guard.run(argv, name=path.name, timeout_s=_PROBE_TIMEOUT_S)
    found = json.loads(done.stdout)
    streams: list[dict[str, Any]] = found.get("streams", [])
    form = found.get("format", {})
    video, audio = _video(streams), tuple(_audio(s) for s in streams if s.get("codec_type") == "audio")
    if video is None and not audio:
        raise UnreadableMediaError(name=path.name, detail="neither a video nor an audio track")
    if video is not None and video.width * video.height > guard.MAX_PIXELS:
        raise PictureTooLargeError(name=path.name, limit=guard.MAX_PIXELS)
    start = _seconds(form.get("start_time"))
    duration = _seconds(form.get("duration"))
    if _suspicious(duration, size, max_minutes):
        duration = await _scan(path, size, start)
    if duration > max_minutes * 60:
        raise TooLongError(name=path.name, limit_min=max_minutes)
    return MediaInfo(form.get("format_name", ""), round(duration * 1000), round(start * 1000), video, audio, size)


async def keyframe_before(path: Path, ms: int) -> int:
    """The last video keyframe at or before `ms`, in ms from the start of the file, rounded down; 0 when there is none.

    A copied cut can only start there: `extract` and `package` take this value so that sound and picture agree.
    """
    info = await guard.run(
        ["ffprobe", "-v", "warning", "-of", "json", "-show_entries", "format=start_time", *guard.source(path)],
        name=path.name,
        timeout_s=_PROBE_TIMEOUT_S,
    )
    zero = _seconds(json.loads(info.stdout).get("format", {}).get("start_time"))
    wanted = zero + ms / 1000
    for back_s in (1.0, 30.0, math.inf):  # most files have a keyframe nearby; reading from the start is the last resort
        best = await _last_keyframe(path, max(zero, wanted - back_s), wanted)
        if best is not None:
            return max(0, math.floor((best - zero) * 1000 + 1e-4))
    return 0


async def _last_keyframe(path: Path, start: float, wanted: float) -> float | None:
    """Time of the last keyframe in [a keyframe before start, wanted], in the container's seconds."""
    best: float | None = None

    def hear(line: str) -> None:
        nonlocal best
        time, _, flags = line.partition(",")
        if flags.startswith("K") and (at := _seconds(time, math.inf)) <= wanted + 1e-6:
            best = at if best is None else max(best, at)

    interval = f"{start:.6f}%{wanted + 1:.6f}"
    argv = ["ffprobe", "-v", "warning", "-select_streams", "v:0", "-show_entries", "packet=pts_time,flags"]
    argv += ["-of", "csv=p=0", "-read_intervals", interval, *guard.source(path)]
    await guard.run(argv, name=path.name, timeout_s=_PROBE_TIMEOUT_S, on_line=hear)
    return best


def _look(path: Path) -> int:
    """Size in bytes, after refusing what needs no ffmpeg to be refused."""
    if not path.is_file():
        raise FileMissingError(name=path.name)
    size = path.stat().st_size
    if size == 0:
        raise EmptyFileError(name=path.name)
    with path.open("rb") as file:
        if is_playlist(file.read(4096)):
            raise ForbiddenFormatError(name=path.name)
    return size


def _video(streams: list[dict[str, Any]]) -> VideoStream | None:
    for stream in streams:
        if stream.get("codec_type") != "video" or stream.get("disposition", {}).get("attached_pic"):
            continue
        fps = _rate(stream.get("avg_frame_rate")) or _rate(stream.get("r_frame_rate"))
        return VideoStream(
            stream["index"],
            stream.get("codec_name", "unknown"),
            int(stream.get("width", 0)),
            int(stream.get("height", 0)),
            fps,
        )
    return None


def _audio(stream: dict[str, Any]) -> AudioStream:
    tags = {key.lower(): str(value)[:_MAX_TAG] for key, value in stream.get("tags", {}).items()}
    return AudioStream(
        stream["index"],
        stream.get("codec_name", "unknown"),
        tags.get("language", "und"),
        tags.get("title", ""),
        int(stream.get("channels", 0)),
        int(stream.get("sample_rate", 0)),
    )


def _suspicious(duration: float, size: int, max_minutes: int) -> bool:
    """Whether the claimed length is absent, too long, or does not go with the size."""
    if not 0 < duration <= max_minutes * 60:
        return True
    return not _SPARSE_BYTES_PER_S <= size / duration <= _DENSE_BYTES_PER_S


async def _scan(path: Path, size: int, start: float) -> float:
    """Length in seconds by the timestamps of all packets, which cost the reading of the file but no memory."""
    end = start

    def hear(line: str) -> None:
        nonlocal end
        time, _, length = line.partition(",")
        end = max(end, _seconds(time, start) + max(0.0, min(_seconds(length), 10.0)))

    argv = ["ffprobe", "-v", "warning", "-show_entries", "packet=pts_time,duration_time", "-of", "csv=p=0"]
    await guard.run(
        [*argv, *guard.source(path)], name=path.name, timeout_s=_PROBE_TIMEOUT_S + size / 20e6, on_line=hear
    )
    return end - start


def _seconds(text: str | None, default: float = 0.0) -> float:
    try:
        value = float(text or "")
    except ValueError:
        return default
    return value if math.isfinite(value) else default


def _rate(text: str | None) -> float:
    try:
        return round(float(Fraction(text or "0")), 3)
    except (ValueError, ZeroDivisionError):
        return 0.0
