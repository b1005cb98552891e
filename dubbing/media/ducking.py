"""Side-chain ducking without a side chain: the speech times are known, so the gain curve is too."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Float32Audio = npt.NDArray[np.float32]


class Ducking:
    """The gain of the background: down before speech, up after it, raised-cosine between.

    Intervals are (start, end) of speech in frames. Pauses too short to come up and go down again stay ducked.
    """

    def __init__(self, speech: Iterable[tuple[int, int]], *, attack: int, release: int, hold: int, depth_db: float):
        self._floor = np.float32(10 ** (-abs(depth_db) / 20))
        self._down = self._ramp(attack)
        self._up = self._ramp(release)[::-1].copy()
        self._intervals = _merged(speech, attack + release + hold)
        self._ends = [end + release for _, end in self._intervals]

    def apply(self, audio: Float32Audio, start: int) -> None:
        """Multiply audio of shape (frames, channels) that begins at frame `start` in place."""
        stop = start + audio.shape[0]
        for begin, end in self._intervals[bisect.bisect_right(self._ends, start) :]:
            fall = begin - self._down.size
            if fall >= stop:
                return
            _scale(audio, start, fall, self._down)
            _scale(audio, start, end, self._up)
            audio[max(begin - start, 0) : max(end - start, 0)] *= self._floor

    def _ramp(self, frames: int) -> Float32Audio:
        turn = 0.5 - 0.5 * np.cos(np.pi * (np.arange(frames) + 0.5) / max(frames, 1))
        return np.asarray(1 - turn * (1 - self._floor), dtype=np.float32)


def _scale(audio: Float32Audio, start: int, at: int, ramp: Float32Audio) -> None:
    """Multiply the part of `audio` (beginning at `start`) that lies under `ramp` (beginning at `at`)."""
    low, high = max(at, start), min(at + ramp.size, start + audio.shape[0])
    if low < high:
        audio[low - start : high - start] *= ramp[low - at : high - at, None]


def _merged(speech: Iterable[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(pair for pair in speech if pair[1] > pair[0]):
        if merged and start - merged[-1][1] < gap:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged
