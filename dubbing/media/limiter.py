"""A look-ahead peak limiter whose gain depends only on nearby samples, so that pieces of a film limit alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Float32Audio = npt.NDArray[np.float32]
CELL = 64
"""Frames that share one peak value; 1.3 ms at 48 kHz."""
_SMOOTH = 16
"""Half-width of the gain's smoothing, cells: about 21 ms either side."""
_HOLD = _SMOOTH + 1
"""Half-width of the running minimum; one more than the smoothing, so that interpolation cannot overshoot."""
_CONTEXT = _SMOOTH + _HOLD + 1
MIN_BLOCK = _CONTEXT * CELL
"""Blocks given to `limited` have at least so many frames, and a multiple of CELL, the last excepted."""


def limited(blocks: Iterable[Float32Audio], ceiling: float) -> Iterator[Float32Audio]:
    """The blocks, shape (frames, channels), in place with no sample above `ceiling` (linear), one block late."""
    before = np.ones(_CONTEXT)
    held: Float32Audio | None = None
    held_gain = np.ones(0)
    for block in blocks:
        gain = _required(block, ceiling)
        if held is not None:
            yield _apply(held, before, held_gain, gain[:_CONTEXT])
            before = held_gain[-_CONTEXT:]
        held, held_gain = block, gain
    if held is not None:
        yield _apply(held, before, held_gain, np.ones(0))


def _required(block: Float32Audio, ceiling: float) -> npt.NDArray[np.float64]:
    """The gain each cell needs by itself."""
    whole = block.shape[0] // CELL * CELL
    # Cell by cell over interleaved samples: a maximum along an axis of length 2 is ten times slower.
    peaks = np.abs(block[:whole]).reshape(-1, CELL * block.shape[1]).max(axis=1)
    if whole < block.shape[0]:
        peaks = np.append(peaks, np.abs(block[whole:]).max())
    gain: npt.NDArray[np.float64] = np.minimum(1.0, ceiling / np.maximum(peaks.astype(np.float64), 1e-9))
    return gain


def _apply(
    block: Float32Audio,
    before: npt.NDArray[np.float64],
    gain: npt.NDArray[np.float64],
    after: npt.NDArray[np.float64],
) -> Float32Audio:
    if before.min(initial=1.0) >= 1.0 and gain.min(initial=1.0) >= 1.0 and after.min(initial=1.0) >= 1.0:
        return block
    cells = np.concatenate([np.ones(_CONTEXT - before.size), before, gain, after, np.ones(_CONTEXT - after.size)])
    windows = np.lib.stride_tricks.sliding_window_view(cells, 2 * _HOLD + 1)
    lowest = windows.min(axis=1)
    kernel = np.hanning(2 * _SMOOTH + 3)[1:-1]
    smooth = np.convolve(lowest, kernel / kernel.sum(), mode="valid")  # one cell of context is left either side
    centres = (np.arange(smooth.size) - 1 + 0.5) * CELL
    curve = np.interp(np.arange(block.shape[0]) + 0.5, centres, smooth)
    block *= curve.astype(np.float32)[:, None]
    return block
