"""EBU R128 / ITU-R BS.1770 loudness in process, piece by piece, exact when the pieces are put together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from dubbing.media.wav import blocks, wav_info

Float32Audio = npt.NDArray[np.float32]
SILENCE_LUFS = -70.0
"""The absolute gate: quieter is silence."""
STEP_MS = 100
"""A new 400 ms gating block starts so often."""
SETTLE_STEPS = 10
"""Steps heard before a piece so that the weighting filters and the first gating block are full."""
_KEYS = ("lavfi.r128.M", "lavfi.r128.true_peak")
_OFFSET = -0.691
_INCOMPLETE = 3
_RELATIVE_GATE_LU = 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One piece of a programme."""

    momentary: npt.NDArray[np.float64]
    """Loudness of each 400 ms gating block, LUFS, one per 100 ms."""
    true_peak_db: float
    """dBTP; -inf when silent or not asked for."""


class Meter:
    """A BS.1770 meter for one piece of audio; feed blocks, then ask for the result."""

    def __init__(
        self,
        rate: int = 48_000,
        *,
        channels: int = 2,
        true_peak: bool = False,
        planar: bool = False,
        skip_frames: int = 0,
    ) -> None:
        """`planar`: frames are pushed as libav's planar floats; `skip_frames`: samples at the start not to be heard."""
        layout, form = "stereo" if channels == 2 else "mono", "fltp" if planar else "flt"
        self._rate, self._layout, self._pts = rate, layout, 0
        graph = av.filter.Graph()
        self._source = graph.add(
            "abuffer", f"time_base=1/{rate}:sample_rate={rate}:sample_fmt={form}:channel_layout={layout}"
        )
        # A mono programme is heard from two loudspeakers.
        options = f"metadata=1:peak={'true' if true_peak else 'none'}:dualmono=true"
        # Values leave the graph through a file: not every libav binding shows the metadata of a frame.
        keys = _KEYS[: 1 + true_peak]
        self._values = {key: tempfile.NamedTemporaryFile("r", prefix="r128-", delete=False) for key in keys}  # noqa: SIM115
        chain = [graph.add("atrim", f"start_sample={skip_frames}"), graph.add("ebur128", options)]
        for key, file in self._values.items():
            chain.append(graph.add("ametadata", mode="print", key=key, file=file.name, direct="1"))
        self._sink = graph.add("abuffersink")
        for one, following in itertools.pairwise([self._source, *chain, self._sink]):
            one.link_to(following)
        graph.configure()
        # Without their names they go with the process, however it ends.
        for file in self._values.values():
            Path(file.name).unlink()
        self._graph = graph

    def feed(self, audio: Float32Audio) -> None:
        """Hear interleaved float32 samples of shape (frames, channels)."""
        if not audio.size:
            return
        frame = av.AudioFrame.from_ndarray(audio.reshape(1, -1), format="flt", layout=self._layout)
        frame.sample_rate = self._rate
        self.push(frame)

    def push(self, frame: av.AudioFrame) -> None:
        """Hear a libav frame."""
        frame.pts, frame.time_base = self._pts, Fraction(1, self._rate)
        self._pts += frame.samples
        self._source.push(frame)
        self._pull()

    def result(self, skip_steps: int = 0) -> Measured:
        """Everything heard, without the first `skip_steps` steps; incomplete first blocks count as silence. Ends it."""
        values = [self._read(key) for key in self._values]
        momentary = values[0]
        momentary[:_INCOMPLETE] = -np.inf
        peak = float(values[1].max(initial=0.0)) if len(values) > 1 else 0.0
        return Measured(momentary[skip_steps:], 20 * math.log10(peak) if peak > 0 else -math.inf)

    def _read(self, key: str) -> npt.NDArray[np.float64]:
        with self._values[key] as file:
            return np.array([float(line[len(key) + 1 :]) for line in file if line.startswith(key)], dtype=np.float64)

    def _pull(self) -> None:
        with contextlib.suppress(BlockingIOError, EOFError):
            while True:
                self._sink.pull()


def integrated(pieces: Iterable[npt.NDArray[np.float64]]) -> float:
    """Gated loudness in LUFS of gating blocks put together: absolute gate -70, relative gate -10 LU."""
    blocks_lufs = np.concatenate([*pieces, np.empty(0)])
    loud = blocks_lufs[blocks_lufs >= SILENCE_LUFS]
    if not loud.size:
        return SILENCE_LUFS
    energy = 10 ** ((loud - _OFFSET) / 10)
    gate = _OFFSET + 10 * math.log10(float(energy.mean())) - _RELATIVE_GATE_LU
    kept = energy[loud > gate]
    return max(SILENCE_LUFS, _OFFSET + 10 * math.log10(float(kept.mean())))


def short_term(momentary: npt.NDArray[np.float64]) -> list[float]:
    """Loudness of the three seconds around each second, LUFS to a tenth; SILENCE_LUFS is silence.

    `momentary` holds a gating block per 100 ms from the start of the programme on. The mean of the blocks' energies
    weighs the outermost 300 ms of a window a little less than a meter for it does.
    """
    steps = 1000 // STEP_MS
    energy = np.nan_to_num(10 ** ((momentary - _OFFSET) / 10))  # the filter calls digital silence "nan"
    total = np.concatenate([[0.0], np.cumsum(energy)])
    starts = np.arange(0, len(momentary), steps)
    low = np.clip(starts - steps, 0, None)
    high = np.clip(starts + 2 * steps, None, len(momentary))
    mean = (total[high] - total[low]) / (high - low)
    lufs = _OFFSET + 10 * np.log10(np.maximum(mean, 1e-12))
    return [round(float(value), 1) for value in np.maximum(lufs, SILENCE_LUFS)]


async def programme_loudness(path: Path) -> tuple[float, list[float]]:
    """Loudness of one of our WAVs in LUFS: integrated (SILENCE_LUFS when there is nothing to hear), and `short_term`."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(_measure, path, stop)
    finally:
        stop.set()


def _measure(path: Path, stop: threading.Event) -> tuple[float, list[float]]:
    info = wav_info(path)
    meter = Meter(info.sample_rate, channels=info.channels)
    for block in blocks(info, info.sample_rate):
        if stop.is_set():
            break
        meter.feed(block.astype(np.float32) * np.float32(1 / 32768))
    momentary = meter.result().momentary
    return integrated([momentary]), short_term(momentary)
