"""From Whisper's tokens and alignment to segments of timed words on the job's clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any

from dubbing.engines import hallucination, vad
from dubbing.engines.hallucination import Decoding, Verdict
from dubbing.types import Segment, Word

STAMP_MS = 20
"""Step of the timestamp tokens, and the shortest time a word gets."""
Span = tuple[int, int]
Timing = Mapping[str, Any]
"""A word as aligned: `word` with its leading space, `tokens`, `start` and `end` in seconds, `probability`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text tokens between two timestamps."""

    start_ms: int
    """From the start of the audio."""
    end_ms: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """A segment, and what the guard says about it."""

    segment: Segment
    verdict: Verdict


def split(tokens: Sequence[int], *, timestamps_from: int, text_below: int, length_ms: int) -> list[Piece]:
    """Part tokens at the timestamps; the first piece begins at 0 and the last ends with the audio where none is said."""
    pieces: list[Piece] = []
    text: list[int] = []
    start = 0
    for token in tokens:
        if token >= timestamps_from:
            at = min((token - timestamps_from) * STAMP_MS, length_ms)
            if text:
                pieces.append(Piece(start, max(at, start), tuple(text)))
                text = []
            start = at
        elif token < text_below:
            text.append(token)
    if text:
        pieces.append(Piece(start, max(length_ms, start), tuple(text)))
    return pieces


def segments(
    pieces: Sequence[Piece],
    timings: Iterable[Timing],
    decoding: Decoding,
    *,
    spans: Sequence[Span],
    length_ms: int,
    offset_ms: int,
) -> list[Judged]:
    """Segments of words, without those that nobody said.

    `spans` are the stretches of speech in ms; times of the answer count from `offset_ms` before the audio.
    """
    found: list[Judged] = []
    after = 0
    for piece, words in zip(pieces, _said_once(_by_piece(pieces, timings)), strict=True):
        if not words:
            continue
        text = "".join(word["word"] for word in words).strip()
        verdict = hallucination.judge(decoding, text, _speech(piece, spans))
        if verdict.action == "drop":
            start, end = offset_ms + piece.start_ms, offset_ms + piece.end_ms
            found.append(Judged(Segment(start, end, text), verdict))
            continue
        timed = []
        for word in words:
            start, end = _inside(word, spans, length_ms)
            after = max(start, after)
            timed.append(_word(word, offset_ms + after, offset_ms + max(after + STAMP_MS, end), verdict))
        mean = round(fmean(word.confidence or 0.0 for word in timed), 3)
        segment = Segment(timed[0].start_ms, timed[-1].end_ms, text, tuple(timed), confidence=mean)
        found.append(Judged(segment, verdict))
    return found


def _by_piece(pieces: Sequence[Piece], timings: Iterable[Timing]) -> list[list[Timing]]:
    """The words of each piece; a word over the border belongs where it begins."""
    ends = list(accumulate(len(piece.tokens) for piece in pieces))
    found: list[list[Timing]] = [[] for _ in pieces]
    at = 0
    for timing in timings:
        if timing["word"].strip():
            found[min(bisect_right(ends, at), len(ends) - 1)].append(timing)
        at += len(timing["tokens"])
    return found


def _said_once(pieces: list[list[Timing]]) -> list[list[Timing]]:
    """The words of the pieces; of a phrase that dominates them all only the first time it is said."""
    words = [(i, word) for i, piece in enumerate(pieces) for word in piece]
    loop = hallucination.loop([word["word"] for _, word in words])
    if loop is not None:
        words = words[: loop.first + loop.length] + words[loop.first + loop.length * loop.repeats :]
    return [[word for i, word in words if i == number] for number in range(len(pieces))]


def _speech(piece: Piece, spans: Sequence[Span]) -> float:
    length = max(piece.end_ms - piece.start_ms, STAMP_MS)
    end = piece.start_ms + length
    return sum(max(0, min(b, end) - max(a, piece.start_ms)) for a, b in spans) / length


def _inside(timing: Timing, spans: Sequence[Span], length_ms: int) -> Span:
    """Times of a word without the silence that alignment puts into it; they come as numpy floats."""
    start, end = (round(float(timing[edge]) * 1000) for edge in ("start", "end"))
    start, end = vad.clip(start, end, spans)
    start = max(0, min(start, length_ms - STAMP_MS))
    return start, min(max(end, start + STAMP_MS), length_ms)


def _word(timing: Timing, start_ms: int, end_ms: int, verdict: Verdict) -> Word:
    confidence = float(timing["probability"])
    if verdict.action == "doubt":
        confidence = min(confidence, hallucination.DOUBT)
    return Word(start_ms, end_ms, timing["word"].strip(), round(confidence, 3))
