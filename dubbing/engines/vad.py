"""Where somebody speaks: Silero VAD, from the file that faster-whisper ships, run with onnxruntime alone.

Importing faster_whisper would bring CTranslate2 and PyAV along; the bundled network needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubbing.errors import MachineError
from dubbing.types import Int16Audio

SAMPLE_RATE = 16_000
FRAME = 512
"""Samples per decision of the network: 32 ms."""
CONTEXT = 64
"""Samples of the frame before that the network looks at."""
SPEECH, SILENCE = 0.5, 0.35
"""Probability at which speech begins, and below which it ends."""
BLOCK = 4096
"""Frames per call of the network, so that memory does not grow with the length of the audio."""


CLOSE = {"min_silence_ms": 300, "pad_ms": 50}
"""Spans close around the words, to time words by; the defaults are wide, so that audio cut by them loses no word."""


def speech_spans(
    audio: Int16Audio, *, max_ms: int = 30_000, min_silence_ms: int = 500, min_speech_ms: int = 100, pad_ms: int = 200
) -> list[tuple[int, int]]:
    """Stretches of speech in 16 kHz mono audio as (start, end) in ms, in order, not overlapping, each <= `max_ms`.

    A pause shorter than `min_silence_ms` does not end a stretch; each is widened by `pad_ms` on both sides, up to the
    middle of the pause. A stretch that is too long is cut where speech is least likely in its second half.
    Raises MachineError when the network's file is missing.
    """
    return spans(
        speech_probabilities(audio),
        audio.size,
        max_ms=max_ms,
        min_silence_ms=min_silence_ms,
        min_speech_ms=min_speech_ms,
        pad_ms=pad_ms,
    )


def spans(
    speech: npt.NDArray[np.float32],
    samples: int,
    *,
    max_ms: int = 30_000,
    min_silence_ms: int = 500,
    min_speech_ms: int = 100,
    pad_ms: int = 200,
) -> list[tuple[int, int]]:
    """`speech_spans` of `samples` of audio with these probabilities, found before."""
    frames = _hysteresis(speech, min_silence_ms * SAMPLE_RATE // 1000 // FRAME, min_speech_ms)
    limit = max((max_ms - 2 * pad_ms) * SAMPLE_RATE // 1000 // FRAME, 2)
    pieces = [piece for start, end in frames for piece in _cut(speech, start, end, limit)]
    length_ms = samples * 1000 // SAMPLE_RATE
    edges = [(start * FRAME * 1000 // SAMPLE_RATE, end * FRAME * 1000 // SAMPLE_RATE) for start, end in pieces]
    found = []
    for i, (start, end) in enumerate(edges):
        room_before = (start - edges[i - 1][1]) // 2 if i else start
        room_after = (edges[i + 1][0] - end) // 2 if i + 1 < len(edges) else length_ms - end
        found.append((start - min(pad_ms, max(room_before, 0)), min(end + min(pad_ms, max(room_after, 0)), length_ms)))
    return found


def chunks(spans: list[tuple[int, int]], *, max_ms: int = 30_000, join_ms: int = 2_000) -> list[tuple[int, int]]:
    """Join neighbouring spans into pieces of at most `max_ms` to recognise at once; longer pauses always part them."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] <= join_ms and end - joined[-1][0] <= max_ms:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def clip(start_ms: int, end_ms: int, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """A word's times without the silence around it: the part inside the span of speech it lies in for the most part."""
    inside = [(max(start_ms, a), min(end_ms, b)) for a, b in spans if a < end_ms and b > start_ms]
    return max(inside, key=lambda part: part[1] - part[0]) if inside else (start_ms, end_ms)


def inside(spans: Sequence[tuple[int, int]], start_ms: int, end_ms: int) -> tuple[tuple[int, int], ...]:
    """The parts of the spans from `start_ms` to `end_ms`, counted from there."""
    return tuple(
        (max(a, start_ms) - start_ms, min(b, end_ms) - start_ms) for a, b in spans if a < end_ms and b > start_ms
    )


def speech_probabilities(audio: Int16Audio) -> npt.NDArray[np.float32]:
    """Probability of speech in each 32 ms frame, shape (ceil(samples / 512),); none for no audio."""
    if audio.size == 0:
        return np.zeros(0, np.float32)
    session = _session()
    count = -(-audio.size // FRAME)
    state = {name: np.zeros((1, 1, 128), np.float32) for name in "hc"}
    found = []
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        start = max(first * FRAME - CONTEXT, 0)
        samples = audio[start : last * FRAME].astype(np.float32) / 32768
        lead = CONTEXT if first == 0 else 0
        padded = np.pad(samples, (lead, (last - first) * FRAME + CONTEXT - lead - samples.size))
        windows = np.lib.stride_tricks.sliding_window_view(padded, FRAME + CONTEXT)[::FRAME]
        output, state["h"], state["c"] = session.run(None, {"input": np.ascontiguousarray(windows), **state})
        found.append(np.asarray(output, np.float32).reshape(-1))
    return np.concatenate(found)


def network_file() -> Path | None:
    """The bundled network, found without importing its package; None when faster-whisper is not installed."""
    package = find_spec("faster_whisper")
    if package is None or package.origin is None:
        return None
    files = sorted((Path(package.origin).parent / "assets").glob("silero_vad_v*.onnx"))
    return files[-1] if files else None


@lru_cache(maxsize=1)
def _session() -> Any:
    path = network_file()
    if path is None:
        raise MachineError(detail="the speech detector of faster-whisper is missing; pip install faster-whisper")
    import onnxruntime  # noqa: PLC0415 - 0.2 s, paid only by who listens

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"], sess_options=options)


def _hysteresis(speech: npt.NDArray[np.float32], min_silence: int, min_speech_ms: int) -> list[tuple[int, int]]:
    """Frame ranges of speech: begun at SPEECH, ended by a run of frames below SILENCE."""
    found: list[tuple[int, int]] = []
    start, quiet = -1, 0
    for i, probability in enumerate([*speech.tolist(), *([0.0] * (min_silence + 1))]):
        if start < 0:
            if probability >= SPEECH:
                start, quiet = i, 0
            continue
        if probability >= SPEECH:
            quiet = 0
        elif probability < SILENCE or quiet:
            quiet += 1
            if quiet > min_silence:
                end = i - quiet + 1
                if (end - start) * FRAME * 1000 // SAMPLE_RATE >= min_speech_ms:
                    found.append((start, end))
                start = -1
    return found


def _cut(speech: npt.NDArray[np.float32], start: int, end: int, limit: int) -> list[tuple[int, int]]:
    """Cut a range into pieces of at most `limit` frames, at the least likely frame of the second half of each."""
    pieces = []
    while end - start > limit:
        half = start + limit // 2
        at = half + int(np.argmin(speech[half : start + limit]))
        pieces.append((start, max(at, start + 1)))
        start = max(at, start + 1)
    return [*pieces, (start, end)]
