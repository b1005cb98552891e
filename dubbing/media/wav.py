"""Our own 16-bit PCM WAVs, RF64 beyond 4 GB, read in blocks so that memory does not grow with length."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dubbing.errors import MediaToolError
from dubbing.media.files import partial
from dubbing.types import Int16Audio

_PCM, _EXTENSIBLE = 1, 0xFFFE
_UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class WavInfo:
    """Where the samples of a WAV lie."""

    path: Path
    sample_rate: int
    """Hz."""
    channels: int
    frames: int
    """Samples per channel, never more than the file really holds."""
    data_offset: int
    """Byte position of the first sample."""

    @property
    def duration_ms(self) -> int:
        """Length, rounded to the nearest ms."""
        return (self.frames * 1000 + self.sample_rate // 2) // self.sample_rate


def wav_info(path: Path) -> WavInfo:
    """Read the header of a 16-bit PCM WAV or RF64. Raises MediaToolError for anything else."""
    size = path.stat().st_size
    with path.open("rb") as file:
        magic, _, kind = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
        if magic not in {b"RIFF", b"RF64"} or kind != b"WAVE":
            raise MediaToolError(name=path.name, detail="not a WAV file")
        layout: tuple[int, int] | None = None
        long_size: int | None = None
        while len(head := file.read(8)) == 8:
            tag, length = struct.unpack("<4sI", head)
            if tag == b"data":
                if layout is None:
                    break
                channels, rate = layout
                length = long_size if length == _UNKNOWN and long_size else length
                length = min(length, size - file.tell())
                return WavInfo(path, rate, channels, length // (2 * channels), file.tell())
            if tag not in {b"ds64", b"fmt "}:
                file.seek(length + (length & 1), os.SEEK_CUR)
                continue
            body = file.read(length + (length & 1))
            if len(body) < 16:
                break
            if tag == b"ds64":
                long_size = struct.unpack_from("<Q", body, 8)[0]
            else:
                coding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
                if coding in {_PCM, _EXTENSIBLE} and bits == 16 and channels > 0 and rate > 0:
                    layout = channels, rate
    raise MediaToolError(name=path.name, detail="not a 16-bit PCM WAV file")


def read_frames(info: WavInfo, start: int, count: int) -> Int16Audio:
    """Samples start..start+count, shape (frames, channels); shorter at the end of the file, empty behind it."""
    start = max(0, start)
    count = max(0, min(count, info.frames - start))
    with info.path.open("rb") as file:
        file.seek(info.data_offset + start * 2 * info.channels)
        samples = np.fromfile(file, dtype="<i2", count=count * info.channels)
    return samples.reshape(-1, info.channels)


def blocks(info: WavInfo, block_frames: int, start: int = 0) -> Iterator[Int16Audio]:
    """The file from `start` on in blocks of shape (<= block_frames, channels)."""
    while start < info.frames:
        block = read_frames(info, start, block_frames)
        if not block.shape[0]:
            return
        start += block.shape[0]
        yield block


def read_wav(path: Path) -> tuple[Int16Audio, int]:
    """A short mono WAV as (samples of shape (n,), Hz); several channels are averaged."""
    info = wav_info(path)
    samples = read_frames(info, 0, info.frames)
    if info.channels == 1:
        return samples[:, 0], info.sample_rate
    return samples.astype(np.int32).mean(axis=1).round().astype(np.int16), info.sample_rate


def write_wav(path: Path, audio: Int16Audio, rate: int) -> None:
    """Write samples of shape (n,) or (n, channels) atomically."""
    channels = 1 if audio.ndim == 1 else audio.shape[1]
    with partial(path) as temporary, temporary.open("wb") as file:
        file.write(header(audio.size * 2, channels, rate))
        np.ascontiguousarray(audio, dtype="<i2").tofile(file)


def header(data_bytes: int, channels: int, rate: int) -> bytes:
    """A WAV header for so many bytes of 16-bit samples; RF64 where 32 bits do not reach."""
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, channels, rate, rate * channels * 2, channels * 2, 16)
    if data_bytes + 36 <= _UNKNOWN - 1:
        return struct.pack("<4sI4s", b"RIFF", 36 + data_bytes, b"WAVE") + fmt + struct.pack("<4sI", b"data", data_bytes)
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, 72 + data_bytes, data_bytes, data_bytes // (2 * channels), 0)
    start = struct.pack("<4sI4s", b"RF64", _UNKNOWN, b"WAVE")
    return start + ds64 + fmt + struct.pack("<4sI", b"data", _UNKNOWN)
