"""Whether a recogniser heard what it wrote: pure decisions about text that nobody said.

Sequence models write fluent text where there is none to hear: a phrase over and over, a polite formula over music.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

MIN_SPEECH = 0.05
"""Share of speech, by voice activity, under which nothing was said."""
NO_SPEECH = 0.6
"""Probability of silence, by the recogniser itself, from which text that is unsure as well is dropped."""
LOW_LOGPROB = -1.0
"""Mean log-probability of a token under which text is a guess."""
MAX_COMPRESSION = 2.4
"""How much smaller text becomes when it is packed; prose stays under 2.4 (Whisper's own limit), loops do not."""
LOOP_REPEATS, LOOP_SHARE, LOOP_PHRASE = 5, 0.5, 12
"""A phrase of up to 12 words, said 5 times on end, that makes up half of the text, dominates it."""
DOUBT = 0.3
"""The most confidence a word of doubtful text can have: low enough to be named in the report."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """What a recogniser wrote for one piece of audio, and how sure it was."""

    text: str
    logprob: float
    """Mean natural log-probability of its tokens, <= 0."""
    no_speech: float
    """Probability that nobody speaks, 0..1."""


class Verdict(NamedTuple):
    """What becomes of a text."""

    action: Literal["keep", "doubt", "drop"]
    reason: str = ""
    """Why, as the end of a sentence."""


class Loop(NamedTuple):
    """Words that are said over and over."""

    first: int
    """Index of the word it begins with."""
    length: int
    """Words in the phrase."""
    repeats: int


def judge(decoding: Decoding, text: str, speech: float) -> Verdict:
    """Keep, doubt or drop `text`, a part of what was decoded; `speech` is the share of its time that is speech, 0..1."""
    if not any(character.isalnum() for character in text):
        return Verdict("drop", "there is no word in it")
    if speech < MIN_SPEECH:
        return Verdict("drop", f"only {speech:.0%} of its time is speech")
    unsure = decoding.logprob < LOW_LOGPROB
    if unsure and decoding.no_speech > NO_SPEECH:
        return Verdict("drop", f"silence is likely ({decoding.no_speech:.2f}) and the words are a guess")
    if unsure:
        return Verdict("doubt", f"the words are a guess (mean log-probability {decoding.logprob:.2f})")
    if repetitive(decoding.text):
        return Verdict("doubt", "it comes from a text that repeats itself")
    return Verdict("keep")


def repetitive(text: str) -> bool:
    """Whether a text says the same over and over."""
    return compression(text) > MAX_COMPRESSION or loop(text.split()) is not None


def compression(text: str) -> float:
    """Bytes of the text over bytes of the packed text."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))


def loop(words: Sequence[str]) -> Loop | None:
    """The phrase that dominates these words, if one does; case and punctuation aside."""
    plain = ["".join(c for c in word.casefold() if c.isalnum()) for word in words]
    best: Loop | None = None
    for length in range(1, min(LOOP_PHRASE, len(plain) // LOOP_REPEATS) + 1):
        first = 0
        for i in range(len(plain) - length + 1):
            if i + length < len(plain) and plain[i] == plain[i + length]:
                continue
            repeats = (i + length - first) // length
            if repeats >= LOOP_REPEATS and (best is None or repeats * length > best.repeats * best.length):
                best = Loop(first, length, repeats)
            first = i + 1
    return best if best and best.repeats * best.length >= LOOP_SHARE * len(plain) else None


def better(first: Decoding, second: Decoding) -> bool:
    """Whether a second try is to be preferred: it repeats itself less, or it is surer."""
    tired = repetitive(first.text), repetitive(second.text)
    return tired[0] if tired[0] != tired[1] else second.logprob > first.logprob
