"""Sample rate and tempo of short speech, in process: a start of ffmpeg per line would cost more than the work."""

from __future__ import annotations

import av
import numpy as np

from dubbing.types import Int16Audio

_WORDS_LEFT = 10 ** (-45 / 20) * 32768
"""Peak above which the end of a line is taken for words, not silence: -45 dBFS."""


def resample(audio: Int16Audio, from_hz: int, to_hz: int) -> Int16Audio:
    """Mono int16 samples at another rate; the length is exactly round(n * to / from)."""
    if from_hz == to_hz or not audio.size:
        return audio
    wanted = round(audio.shape[0] * to_hz / from_hz)
    out = _filtered(audio, from_hz, [("aresample", f"{to_hz}:resampler=swr")])
    return _exactly(out, wanted)


def stretch(audio: Int16Audio, rate_hz: int, factor: float) -> Int16Audio:
    """Speech at another tempo and the same pitch: `factor` 1.25 is a quarter faster.

    The length is exactly round(n / factor), unless that would cut words: silence is padded or trimmed, words never are.
    """
    if not 0.5 <= factor <= 4.0:
        raise ValueError(f"tempo factor {factor} is outside 0.5..4.0")
    if factor == 1.0 or not audio.size:
        return audio
    wanted = round(audio.shape[0] / factor)
    # The tail of silence flushes atempo's overlap window, which otherwise swallows the last syllable.
    padded = np.concatenate([audio, np.zeros(rate_hz // 5, np.int16)])
    out = _filtered(padded, rate_hz, [("atempo", f"{factor:.6f}")])
    return _exactly(out, wanted)


def _exactly(audio: Int16Audio, wanted: int) -> Int16Audio:
    """Pad with silence, or trim silence, to `wanted` samples; a tail that still speaks is kept."""
    missing = wanted - audio.shape[0]
    if missing >= 0:
        return np.concatenate([audio, np.zeros(missing, np.int16)])
    loud = np.flatnonzero(np.abs(audio[wanted:].astype(np.int32)) > _WORDS_LEFT)
    return audio[: wanted + (int(loud[-1]) + 1 if loud.size else 0)]


def _filtered(audio: Int16Audio, rate: int, filters: list[tuple[str, str]]) -> Int16Audio:
    graph = av.filter.Graph()
    source = graph.add("abuffer", f"time_base=1/{rate}:sample_rate={rate}:sample_fmt=s16:channel_layout=mono")
    last = source
    for name, options in [*filters, ("aformat", "sample_fmts=s16:channel_layouts=mono")]:
        step = graph.add(name, options)
        last.link_to(step)
        last = step
    sink = graph.add("abuffersink")
    last.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio).reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    source.push(frame)
    source.push(None)
    parts = []
    while True:
        try:
            parts.append(sink.pull().to_ndarray().reshape(-1))
        except (BlockingIOError, EOFError):
            break
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)
