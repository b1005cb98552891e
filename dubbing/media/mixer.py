"""The sum of background and dub, any stretch of it at any time, from files: nothing is stored in between."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from dubbing.errors import MediaToolError
from dubbing.media.ducking import Ducking
from dubbing.media.resample import resample
from dubbing.media.wav import WavInfo, read_wav, wav_info

Float32Audio = npt.NDArray[np.float32]
RATE = 48_000
BLOCK = 32_768
"""Frames mixed at once: 256 KiB of float32 stereo stays in the second-level cache."""
_FULL_SCALE = np.float32(1 / 32768)


@dataclass(frozen=True, slots=True)
class Clip:
    """A spoken line and its place."""

    path: Path
    """Mono 16-bit WAV of our own, any rate."""
    start_ms: int
    gain_db: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed:
    """A clip on the 48 kHz time line."""

    path: Path
    start: int
    """Frames."""
    end: int
    gain: np.float32
    """Linear, full scale of int16 included."""


def place(clips: Sequence[Clip]) -> tuple[Placed, ...]:
    """The clips in order of start; their lengths come from the WAV headers."""
    placed = []
    for clip in clips:
        info = wav_info(clip.path)
        start = max(0, clip.start_ms) * RATE // 1000
        gain = _FULL_SCALE * np.float32(10 ** (clip.gain_db / 20))
        placed.append(Placed(clip.path, start, start + round(info.frames * RATE / info.sample_rate), gain))
    return tuple(sorted(placed, key=lambda one: one.start))


class Mixer:
    """Renders stretches of the mix for one worker. Not for several threads at once."""

    def __init__(self, bed: WavInfo | None, clips: Sequence[Placed], ducking: Ducking, frames: int):
        if bed is not None and (bed.channels, bed.sample_rate) != (2, RATE):
            raise MediaToolError(name=bed.path.name, detail="the background is not 48 kHz stereo")
        self._bed, self._clips, self._ducking, self._frames = bed, clips, ducking, frames
        self._file = -1 if bed is None else os.open(bed.path, os.O_RDONLY)
        self._loaded: dict[int, Float32Audio] = {}

    def __enter__(self) -> Mixer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def blocks(self, start: int, stop: int) -> Iterator[Float32Audio]:
        """The mix from frame `start` to `stop`, silence beyond its end, in blocks of shape (<= BLOCK, 2)."""
        near = [i for i, clip in enumerate(self._clips) if clip.start < stop and clip.end > start]
        for at in range(start, stop, BLOCK):
            yield self._render(at, min(stop, at + BLOCK), near)

    def _render(self, start: int, stop: int, near: list[int]) -> Float32Audio:
        audio = np.zeros((stop - start, 2), np.float32)
        stop = min(stop, self._frames)
        self._add_bed(audio, start, stop)
        for i in near:
            clip = self._clips[i]
            low, high = max(clip.start, start), min(clip.end, stop)
            if low < high:
                voice = self._voice(i)[low - clip.start : high - clip.start]
                audio[low - start : low - start + voice.size] += voice[:, None]
            elif clip.end <= start:
                self._loaded.pop(i, None)
        return audio

    def _add_bed(self, audio: Float32Audio, start: int, stop: int) -> None:
        if self._bed is None:
            return
        count = max(0, min(stop, self._bed.frames) - start)
        data = os.pread(self._file, count * 4, self._bed.data_offset + start * 4)
        samples = np.frombuffer(data, "<i2").reshape(-1, 2)
        part = audio[: samples.shape[0]]
        np.multiply(samples, _FULL_SCALE, out=part)
        self._ducking.apply(part, start)

    def _voice(self, i: int) -> Float32Audio:
        voice = self._loaded.get(i)
        if voice is None:
            clip = self._clips[i]
            audio, rate = read_wav(clip.path)
            voice = self._loaded[i] = resample(audio, rate, RATE) * clip.gain
        return voice
