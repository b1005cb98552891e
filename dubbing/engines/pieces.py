"""A line as the sentences that a sentence-trained model takes one by one: given several, such models drop all but the first."""

from __future__ import annotations

import re
from collections.abc import Callable

from dubbing.engines.sentences import split
from dubbing.engines.translation_languages import spaced

_IDEOGRAPHIC_END = re.compile(r"(?<=[。！？])(?![。！？」』）”’])")
_CLAUSE = re.compile(r"[,;:—–،、；，：]\s*")
_SPACE = re.compile(r"\s+")


def pieces(text: str, source: str, fits: Callable[[str], bool]) -> list[str]:
    """Sentences of a line in `source` (BCP-47), in order; one that does not fit is parted at clauses, then at words."""
    whole = [sentence.lead + sentence.text + sentence.end for sentence in split(text, source)]
    sentences = [part.strip() for sentence in whole for part in _IDEOGRAPHIC_END.split(sentence) if part.strip()]
    return [piece for sentence in sentences for piece in _fitting(sentence, fits)]


def join(parts: list[str], target: str) -> str:
    """Translated pieces as one line in `target` (BCP-47)."""
    return (" " if spaced(target) else "").join(part.strip() for part in parts if part.strip())


def _fitting(text: str, fits: Callable[[str], bool]) -> list[str]:
    if fits(text) or len(text) < 2:
        return [text]
    cut = _border(text)
    return [part for half in (text[:cut].strip(), text[cut:].strip()) if half for part in _fitting(half, fits)]


def _border(text: str) -> int:
    """Where a text is best parted: at the clause nearest the middle, else at the space, else in the middle."""
    middle = len(text) // 2
    for border in (_CLAUSE, _SPACE):
        ends = [found.end() for found in border.finditer(text)]
        inner = [end for end in ends if len(text) // 5 <= end <= len(text) * 4 // 5]
        if inner:
            return min(inner, key=lambda end: abs(end - middle))
    return middle
