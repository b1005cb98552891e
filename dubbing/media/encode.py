"""Short speech as bytes in the formats people ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dubbing.media import guard, wav
from dubbing.media.resample import resample
from dubbing.types import Int16Audio

PCM_RATE = 24_000
"""Hz of headerless samples, whose rate nobody could tell otherwise."""


@dataclass(frozen=True, slots=True)
class _Format:
    media_type: str
    options: tuple[str, ...] = ()
    """Of ffmpeg; empty where the samples are written as they are."""


FORMATS: Mapping[str, _Format] = {
    "mp3": _Format("audio/mpeg", ("-c:a", "libmp3lame", "-q:a", "3", "-f", "mp3")),
    "opus": _Format("audio/ogg", ("-c:a", "libopus", "-b:a", "48k", "-f", "ogg")),
    "aac": _Format("audio/aac", ("-c:a", "aac", "-b:a", "96k", "-f", "adts")),
    "flac": _Format("audio/flac", ("-c:a", "flac", "-f", "flac")),
    "wav": _Format("audio/wav"),
    "pcm": _Format("audio/pcm"),
}


async def encode(audio: Int16Audio, rate: int, form: str, folder: Path) -> bytes:
    """Mono samples of shape (n,) at `rate` Hz in one of FORMATS; `folder` takes two temporary files.

    `pcm` is 16-bit little-endian at 24 kHz. Raises MediaToolError.
    """
    options = FORMATS[form].options
    if form == "pcm":
        return resample(audio, rate, PCM_RATE).astype("<i2").tobytes()
    if not options:
        return wav.header(audio.size * 2, 1, rate) + np.ascontiguousarray(audio, dtype="<i2").tobytes()
    source, target = folder / "speech.wav", folder / f"speech.{form}"
    await asyncio.to_thread(wav.write_wav, source, audio, rate)
    argv = ["ffmpeg", "-v", "warning", "-y", *guard.own(source, "wav"), "-bitexact", *options, f"file:{target}"]
    await guard.run(argv, name=target.name, timeout_s=guard.timeout_for(audio.size * 1000 // rate))
    return await asyncio.to_thread(target.read_bytes)
