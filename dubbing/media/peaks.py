"""How loud a WAV of ours is over time, a few values a second: what a waveform is drawn from."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from dubbing.media import wav

PER_SECOND = 10
FULL = 100
"""What a full-scale sample gives."""
_BLOCK_S = 30


async def measure(path: Path) -> list[int]:
    """The largest sample of each tenth of a second, 0..100, over all channels."""
    return await asyncio.to_thread(_measure, path)


def _measure(path: Path) -> list[int]:
    info = wav.wav_info(path)
    step = max(1, info.sample_rate // PER_SECOND)
    found: list[int] = []
    for block in wav.blocks(info, step * PER_SECOND * _BLOCK_S):
        loudest = np.abs(block.astype(np.int32)).max(axis=1)
        padded = np.zeros(-(-len(loudest) // step) * step, np.int32)
        padded[: len(loudest)] = loudest
        found.extend((padded.reshape(-1, step).max(axis=1) * FULL // 32768).tolist())
    return found
