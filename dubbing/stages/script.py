"""script: words or cues become lines that one speaker says in one breath.

Aim: 1.5 s at least, about 4.5 s, 9 s at most, sentence-like, never across speakers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from statistics import fmean

from dubbing.types import Line, Segment, Word

MIN_MS, IDEAL_MS, MAX_MS = 1500, 4500, 9000
PAUSE_MS = 600
"""A silence this long ends a line wherever it falls."""
BREATH_MS = 200
"""A silence at which a long line may be parted."""
JOIN_MS = 300
"""Cues or fragments closer than this may become one line."""
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]]*$")
_CLAUSE_END = re.compile(r"[,;:—–،，、；：][\"'”’»)\]]*$")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
"""Thai, Lao, Burmese, Khmer, Chinese and Japanese, whose words stand without spaces."""
_SENTENCES = re.compile(r"(?<=[.!?…。！？])[\"'”’»)\]]*\s+|(?<=[。！？])")


def script(segments: Iterable[Segment], first_index: int = 0) -> list[Line]:
    """Lines of these segments, numbered from `first_index`."""
    pieces: list[Segment] = []
    for segment in segments:
        if not segment.text.strip():
            continue
        pieces.extend(_from_words(segment) if segment.words else _from_cue(segment))
    return [_line(first_index + i, piece) for i, piece in enumerate(_join(pieces))]


def verbatim(segments: Iterable[Segment]) -> list[Line]:
    """One line a cue: for a translation whose author already decided what a line is."""
    return [_line(i, segment) for i, segment in enumerate(s for s in segments if s.text.strip())]


def _line(index: int, piece: Segment) -> Line:
    text = " ".join(piece.text.split())
    text = _cased(text) if piece.words else text
    return Line(index, piece.start_ms, piece.end_ms, text, piece.speaker or "S1", piece.confidence)


def _cased(text: str) -> str:
    """A recogniser that knows no capitals gets one at the start: readers expect it and translators read better with it."""
    return text[:1].upper() + text[1:] if text == text.lower() else text


def _from_words(segment: Segment) -> list[Segment]:
    parts: list[list[Word]] = [[]]
    for word, following in zip(segment.words, (*segment.words[1:], None), strict=True):
        part = parts[-1]
        part.append(word)
        if following is not None and _ends_line(part, word, following):
            parts.append([])
    halves = [half for part in parts for half in _halve(part)]
    return [_of_words(segment, half) for half in halves]


def _ends_line(part: Sequence[Word], word: Word, following: Word) -> bool:
    length, gap = word.end_ms - part[0].start_ms, following.start_ms - word.end_ms
    if gap >= PAUSE_MS:
        return True
    if _SENTENCE_END.search(word.text):
        return length >= MIN_MS
    return length >= IDEAL_MS and (gap >= BREATH_MS or bool(_CLAUSE_END.search(word.text)))


def _halve(words: list[Word]) -> list[list[Word]]:
    """Part a line that is too long at its widest gap near the middle."""
    if len(words) < 2 or words[-1].end_ms - words[0].start_ms <= MAX_MS:
        return [words]
    middle = (words[0].start_ms + words[-1].end_ms) / 2
    span = words[-1].end_ms - words[0].start_ms

    def cost(i: int) -> float:
        gap = words[i].start_ms - words[i - 1].end_ms
        clause = 300 if _CLAUSE_END.search(words[i - 1].text) else 0
        return abs(words[i].start_ms - middle) / span * 1000 - gap - clause

    cut = min(range(1, len(words)), key=cost)
    return [*_halve(words[:cut]), *_halve(words[cut:])]


def _of_words(segment: Segment, words: Sequence[Word]) -> Segment:
    known = [w.confidence for w in words if w.confidence is not None]
    return Segment(
        words[0].start_ms,
        words[-1].end_ms,
        reduce(_spaced, (w.text for w in words)),
        tuple(words),
        segment.speaker,
        fmean(known) if known else segment.confidence,
    )


def _from_cue(segment: Segment) -> list[Segment]:
    """A cue of several sentences that is too long is parted between sentences, its time shared by length of text."""
    if segment.end_ms - segment.start_ms <= MAX_MS:
        return [segment]
    sentences = [s.strip() for s in _SENTENCES.split(segment.text) if s and s.strip()]
    total = sum(map(len, sentences))
    pieces, at = [], float(segment.start_ms)
    for sentence in sentences:
        end = at + (segment.end_ms - segment.start_ms) * len(sentence) / total
        pieces.append(replace(segment, start_ms=round(at), end_ms=round(end), text=sentence))
        at = end
    return pieces


def _join(pieces: Sequence[Segment]) -> list[Segment]:
    """Join unfinished sentences and fragments with what follows, within one speaker and 9 s."""
    joined: list[Segment] = []
    for piece in sorted(pieces, key=lambda p: (p.start_ms, p.end_ms)):
        if joined and _belongs(joined[-1], piece):
            joined[-1] = _merged(joined[-1], piece)
        else:
            joined.append(piece)
    return joined


def _belongs(left: Segment, right: Segment) -> bool:
    gap, length = right.start_ms - left.end_ms, max(left.end_ms, right.end_ms) - left.start_ms
    if left.speaker != right.speaker or gap > JOIN_MS or length > MAX_MS:
        return False
    finished = bool(_SENTENCE_END.search(left.text))
    if left.words and right.words:  # recognised: fragments only, pauses already decided the rest
        return min(_length(left), _length(right)) < MIN_MS and not finished
    return not finished or _length(left) < MIN_MS


def _spaced(left: str, right: str) -> str:
    """Two texts as one, with a space between them if their script writes one."""
    return f"{left}{right}" if _UNSPACED.match(left[-1:]) and _UNSPACED.match(right[:1]) else f"{left} {right}"


def _length(piece: Segment) -> int:
    return piece.end_ms - piece.start_ms


def _merged(left: Segment, right: Segment) -> Segment:
    known = [c for c in (left.confidence, right.confidence) if c is not None]
    return Segment(
        left.start_ms,
        max(left.end_ms, right.end_ms),
        _spaced(left.text, right.text),
        (*left.words, *right.words),
        left.speaker,
        fmean(known) if known else None,
    )
