"""What can be heard of a clip without a recogniser: how loud it is, and whether it repeats itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dubbing.types import Int16Audio

LOOP_S = (0.3, 3.0)
"""Lengths of what may be repeated."""
ALIKE = 0.85
"""Mean correlation of a stretch with the same stretch one repetition earlier, from which they count as the same."""
_HOP_S = 0.02
_BANDS = 16


def level_dbfs(audio: Int16Audio, sample_rate: int) -> float:
    """RMS over the 50 ms frames within 20 dB of the loudest one, dBFS; -120 for silence or no audio."""
    frame = max(1, sample_rate // 20)
    count = -(-len(audio) // frame)
    if count == 0:
        return -120.0
    padded = np.zeros(count * frame, np.float32)
    padded[: len(audio)] = audio
    power = np.mean(padded.reshape(count, frame) ** 2, axis=1)
    loud = power[power >= power.max() / 100]
    return float(10 * np.log10(loud.mean() / 32768.0**2 + 1e-12))


def looped(audio: Int16Audio, sample_rate: int) -> bool:
    """Whether the clip ends in the same 0.3 to 3 s said three times."""
    shape = _spectral_shape(audio, sample_rate)
    for lag in range(round(LOOP_S[0] / _HOP_S), min(round(LOOP_S[1] / _HOP_S), len(shape) // 3) + 1):
        last, before = shape[-2 * lag :], shape[-3 * lag : -lag]
        if float(np.mean(np.sum(last * before, axis=1))) > ALIKE:
            return True
    return False


def _spectral_shape(audio: Int16Audio, sample_rate: int) -> npt.NDArray[np.float32]:
    """Per 20 ms, how the clip's log spectrum differs from its mean, as vectors of length 1: shape (frames, 16)."""
    hop = max(1, round(sample_rate * _HOP_S))
    count = len(audio) // hop - 1
    if count < 3:
        return np.zeros((0, _BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(audio.astype(np.float32), 2 * hop)[::hop][:count]
    power = np.abs(np.fft.rfft(frames * np.hanning(2 * hop), axis=1)) ** 2
    edges = np.unique(np.geomspace(2, power.shape[1] // 2, _BANDS + 1).astype(int))
    bands = np.log10(np.add.reduceat(power, edges[:-1], axis=1) + 1e3)
    bands -= bands.mean(axis=0)
    shape: npt.NDArray[np.float32] = (bands / (np.linalg.norm(bands, axis=1, keepdims=True) + 1e-6)).astype(np.float32)
    return shape
