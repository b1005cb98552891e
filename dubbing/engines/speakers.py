"""How many people speak: pure rules that never invent a speaker, and what diarizers share."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubbing.engines.base import Turns
from dubbing.types import Int16Audio

MIN_SPEECH_MS = 6_000
"""Somebody heard for less than this is more often a mistake than a person."""
LEAST_SPEECH_MS = 2_000
"""The same for short recordings, where a quarter of the speech is enough: under this a voice cannot be judged at all."""
SAME_VOICE = 0.7
"""Cosine between the voice prints of two clusters from which they are one person."""
JOIN_MS = 300
"""Turns of one speaker closer than this are one turn."""

FloatArray = npt.NDArray[np.floating[Any]]
Stretch = tuple[int, int]


@dataclass
class _Group:
    members: list[int]
    speech_ms: int
    total: npt.NDArray[np.float64]
    """Sum of its members' unit voice prints, each weighted by its speech."""

    def likeness(self, other: _Group) -> float:
        """Cosine of both voice prints; 0 where one has none."""
        lengths = float(np.linalg.norm(self.total) * np.linalg.norm(other.total))
        return float(self.total @ other.total) / lengths if lengths > 0 else 0.0

    def take(self, other: _Group) -> None:
        self.members += other.members
        self.speech_ms += other.speech_ms
        self.total = self.total + other.total


def settle(speech_ms: Sequence[int], prints: FloatArray, most: int | None = None) -> list[int]:
    """Which clusters are one person: for each cluster the number of the cluster that stands for its person.

    `prints` holds a voice print for each cluster, shape (clusters, dimensions). Clusters with too little speech, and those
    that sound alike, join the nearest; then the most alike join until at most `most` are left. One person is a fine answer.
    """
    groups = _groups(speech_ms, prints)
    needed = min(MIN_SPEECH_MS, max(LEAST_SPEECH_MS, sum(speech_ms) // 4))
    while len(groups) > 1:
        smallest = min(groups, key=lambda group: (group.speech_ms, group.members[0]))
        if smallest.speech_ms < needed:
            nearest = max((g for g in groups if g is not smallest), key=lambda g: (smallest.likeness(g), g.speech_ms))
            pair = (nearest, smallest)
        else:
            likeness, pair = _most_alike(groups)
            if likeness < SAME_VOICE and (most is None or len(groups) <= max(most, 1)):
                break
        pair[0].take(pair[1])
        groups.remove(pair[1])
    person = [0] * len(speech_ms)
    for group in groups:
        head = max(group.members, key=lambda member: (speech_ms[member], -member))
        for member in group.members:
            person[member] = head
    return person


def _groups(speech_ms: Sequence[int], prints: FloatArray) -> list[_Group]:
    known = np.nan_to_num(np.asarray(prints, np.float64).reshape(len(speech_ms), -1), posinf=0.0, neginf=0.0)
    lengths = np.linalg.norm(known, axis=1, keepdims=True)
    unit = known / np.where(lengths > 0, lengths, 1.0)
    return [_Group([i], speech_ms[i], unit[i] * max(speech_ms[i], 1)) for i in range(len(speech_ms))]


def _most_alike(groups: Sequence[_Group]) -> tuple[float, tuple[_Group, _Group]]:
    pairs = ((a.likeness(b), (a, b)) for i, a in enumerate(groups) for b in groups[i + 1 :])
    return max(pairs, key=lambda found: found[0])


def named(turns: Iterable[tuple[int, int, int]]) -> Turns:
    """Turns (start ms, end ms, person) with labels S1, S2, ... in order of appearance; a speaker's close turns are one."""
    labels: dict[int, str] = {}
    latest: dict[str, int] = {}
    found: list[tuple[int, int, str]] = []
    for start, end, person in sorted(turn for turn in turns if turn[1] > turn[0]):
        label = labels.setdefault(person, f"S{len(labels) + 1}")
        at = latest.get(label)
        if at is not None and start - found[at][1] < JOIN_MS:
            found[at] = (found[at][0], max(found[at][1], end), label)
        else:
            latest[label] = len(found)
            found.append((start, end, label))
    return Turns(tuple(found))


class Speech:
    """The speech of a recording alone, in one piece, and the way back to the recording's own clock."""

    def __init__(self, path: Path, stretches: Sequence[Stretch], gap_ms: int = 500) -> None:
        """Read `stretches` (start, end in ms) of a mono 16-bit WAV, with `gap_ms` of silence between them."""
        parts: list[Int16Audio] = []
        self._places: list[tuple[int, int, int]] = []
        at = 0
        with wave.open(str(path), "rb") as file:
            self.rate = file.getframerate()
            """Hz."""
            gap = np.zeros(gap_ms * self.rate // 1000, np.int16)
            for start, end in stretches:
                first = min(start * self.rate // 1000, file.getnframes())
                file.setpos(first)
                audio = np.frombuffer(file.readframes(end * self.rate // 1000 - first), "<i2")
                self._places.append((at, at + len(audio), first))
                parts += [audio, gap]
                at += len(audio) + len(gap)
        self.audio: Int16Audio = np.concatenate(parts) if parts else np.zeros(0, np.int16)
        """Mono, shape (samples,)."""

    def back(self, start_s: float, end_s: float) -> list[Stretch]:
        """Where a stretch of `audio` lies in the recording, ms; several pieces when it spans several stretches."""
        first, last = round(start_s * self.rate), round(end_s * self.rate)
        return [
            ((max(first, low) - low + origin) * 1000 // self.rate, (min(last, high) - low + origin) * 1000 // self.rate)
            for low, high, origin in self._places
            if max(first, low) < min(last, high)
        ]
