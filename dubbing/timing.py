"""Duration planning and fitting: pure decisions, no audio.

Before speaking, `plan` asks each group of neighbouring lines for one speaking rate that should fit. After speaking, `fit` places what was
really spoken. Invariants (property-tested): no clip is cut, none overlaps another, all lie inside the timeline, and whatever broke a
limit carries a flag. A timing problem never fails a job.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

GUARD_MS = 50
"""Silence kept before the next line."""
PAUSE_MS = 700
"""A source pause this long ends a group: lateness re-anchors there."""
GROUP_LINES = 8
"""Most lines that share one rate."""
LATE_MS = 250
"""A start this late is not noticed as out of sync."""
FREE_RATES = (0.85, 1.15)
"""Rates that nobody hears as slow or fast: no stretch inside them when the line already fits."""
RATE_STEP = 0.1
"""Largest change between neighbouring groups, where the slots allow it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a voice may be hurried, relative to its natural rate."""

    usual: float = 1.2
    """Without asking."""
    ever: float = 1.35
    """To stop lateness from growing; the line is flagged."""
    engine: tuple[float, float] = (1.0, 1.0)
    """What the engine's own rate control covers."""

    @classmethod
    def of_voice(cls, natural: bool, engine: tuple[float, float]) -> Limits:
        """Natural voices keep to 1.2 / 1.35; a robotic one may use all of its own rate control, and a fifth more."""
        return (
            cls(engine=engine)
            if natural
            else cls(usual=max(1.2, engine[1]), ever=max(1.2, engine[1]) * 1.2, engine=engine)
        )


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a line belongs."""

    start_ms: int
    end_ms: int
    """End of the source line."""
    limit_ms: int
    """End of the silence it may borrow: next line's start less the guard, or the end of the timeline."""
    group: int
    """Number of the group of lines that share a rate."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A line as it was spoken."""

    duration_ms: int
    """Of the clip, at `rate`."""
    rate: float
    """Engine rate relative to natural."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a clip goes."""

    start_ms: int
    duration_ms: int
    """After stretching."""
    stretch: float
    """Tempo factor applied to the clip: above 1 is faster."""
    rate: float
    """Total rate heard, relative to natural: engine rate times stretch."""
    late_ms: int
    """Start after the source's start; negative when it had to start early."""
    flags: tuple[str, ...] = ()
    """`hurried` above the usual limit, `late` beyond a second, `over_limit` beyond what a voice should ever do."""

    @property
    def end_ms(self) -> int:
        """End of the clip."""
        return self.start_ms + self.duration_ms


def slots(times: Sequence[tuple[int, int, str]], duration_ms: int) -> list[Slot]:
    """Slots of lines given as (start ms, end ms, speaker) in order of start, in a timeline of `duration_ms`."""
    found: list[Slot] = []
    group = size = 0
    for i, (start, end, speaker) in enumerate(times):
        if i:
            before = times[i - 1]
            if start - before[1] >= PAUSE_MS or speaker != before[2] or size >= GROUP_LINES:
                group, size = group + 1, 0
        size += 1
        following = times[i + 1][0] - GUARD_MS if i + 1 < len(times) else duration_ms
        inside = min(max(0, start), duration_ms)
        limit = min(max(following, inside), duration_ms)
        found.append(Slot(inside, min(max(end, inside), duration_ms), limit, group))
    return found


def units(text: str) -> float:
    """Length of a text in units of speaking time: one per letter of an alphabet, more for letters that carry a syllable."""
    total = 0.0
    for char in text:
        category = unicodedata.category(char)
        if category[0] not in "LN":
            total += 0.5 if category[0] in "ZP" else 0.0
        elif category == "Nd":
            total += 4.0  # a digit is spoken as a word
        else:
            total += _weight(ord(char))
    return max(total, 1.0)


def _weight(code: int) -> float:
    if 0x3040 <= code <= 0x30FF or 0xAC00 <= code <= 0xD7AF:
        return 2.2  # kana and Hangul: a mora or syllable each
    if 0x3400 <= code <= 0x9FFF or 0x20000 <= code <= 0x3FFFF:
        return 3.2  # Han: a syllable or more each
    if 0x0590 <= code <= 0x08FF:
        return 1.35  # Hebrew and Arabic leave most vowels out
    if 0x0900 <= code <= 0x0DFF:
        return 1.25  # Indic scripts: consonants carry an inherent vowel
    return 1.0


class Calibration:
    """Natural speaking speed of one voice, corrected by the median of what it really produced."""

    def __init__(self, units_per_second: float) -> None:
        self._prior = units_per_second
        self._seen: list[float] = []

    def learn(self, text: str, spoken: Spoken) -> None:
        """Take in one spoken line; very short ones say nothing about speed."""
        if spoken.duration_ms >= 600:
            self._seen.append(units(text) / (spoken.duration_ms / 1000 * spoken.rate))

    @property
    def units_per_second(self) -> float:
        """The prior until five lines were seen, then their median."""
        return median(self._seen) if len(self._seen) >= 5 else self._prior

    def natural_ms(self, text: str) -> int:
        """Predicted length at rate 1.0."""
        return round(units(text) / self.units_per_second * 1000)


def budget_chars(text: str, slot: Slot, limits: Limits, calibration: Calibration) -> int:
    """Most characters a translation may have to fit its slot at the usual limit, never below 12."""
    seconds = max(slot.limit_ms - slot.start_ms, 500) / 1000
    per_char = units(text) / max(len(text), 1)
    return max(12, int(seconds * calibration.units_per_second * limits.usual / max(per_char, 0.5)))


def plan(
    natural_ms: Sequence[int], places: Sequence[Slot], limits: Limits, settled: Sequence[float | None]
) -> list[float]:
    """One engine rate per line, equal within a group, from predicted natural lengths; settled lines keep theirs.

    A line planned among settled neighbours takes their rate unless its own slot needs more.
    """
    rates: list[float] = []
    before: float | None = None
    for members in _groups(places):
        needed = _group_rate([natural_ms[i] for i in members], [places[i] for i in members], limits)
        known = [rate for i in members if (rate := settled[i]) is not None]
        if known:
            needed = max(median(known), min(needed, limits.engine[1]))
        elif before is not None:
            needed = max(needed, min(before - RATE_STEP, FREE_RATES[1]))
        before = needed
        low, high = limits.engine
        for i in members:
            kept = settled[i]
            rates.append(kept if kept is not None else round(min(max(needed, low), high), 2))
    return rates


def _groups(places: Sequence[Slot]) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for i, slot in enumerate(places):
        members.setdefault(slot.group, []).append(i)
    return list(members.values())


def _group_rate(natural_ms: Sequence[int], places: Sequence[Slot], limits: Limits) -> float:
    """Smallest rate, in steps of 0.02, at which a group keeps its starts and ends in its silence."""
    rate = FREE_RATES[0] if limits.engine[0] < 1 else 1.0
    while rate < limits.usual and not _fits([round(n / rate) for n in natural_ms], places):
        rate += 0.02
    if rate < 1.0:  # slower than natural only to fill the source's own time, never to fill silence
        source = sum(slot.end_ms - slot.start_ms for slot in places)
        rate = min(1.0, max(rate, sum(natural_ms) / max(source, 1)))
    return min(rate, limits.usual)


def _fits(durations: Sequence[int], places: Sequence[Slot]) -> bool:
    cursor = 0
    for duration, slot in zip(durations, places, strict=True):
        start = max(slot.start_ms, cursor)
        if start - slot.start_ms > LATE_MS:
            return False
        cursor = start + duration
    return cursor <= max(places[-1].limit_ms, places[-1].end_ms)


def respeak(spoken: Sequence[Spoken], places: Sequence[Slot], limits: Limits) -> list[float | None]:
    """After a first speaking: the engine rate each line of a group should be spoken at instead, or None where it is right.

    Asked only when prediction was so wrong that stretching would be heard (more than 8 %) and the engine itself can go faster.
    """
    answer: list[float | None] = [None] * len(spoken)
    for members in _groups(places):
        natural = [round(spoken[i].duration_ms * spoken[i].rate) for i in members]
        needed = _group_rate(natural, [places[i] for i in members], limits)
        for i in members:
            rate = round(min(needed, limits.engine[1]), 2)
            if rate / spoken[i].rate > 1.08:
                answer[i] = rate
    return answer


def fit(
    spoken: Sequence[Spoken | None], places: Sequence[Slot], limits: Limits, duration_ms: int
) -> list[Placement | None]:
    """Place every clip; None stays None (a line that could not be spoken, flagged by its stage)."""
    factors: list[float] = [1.0] * len(spoken)
    for members in _groups(places):
        present = [i for i in members if spoken[i] is not None]
        if present:
            _stretch_group(present, spoken, places, limits, factors)
    placed = _place(spoken, places, limits, factors, duration_ms)
    return _pull_inside(placed, spoken, places, limits, duration_ms)


def _stretch_group(
    present: Sequence[int],
    spoken: Sequence[Spoken | None],
    places: Sequence[Slot],
    limits: Limits,
    factors: list[float],
) -> None:
    clips = [clip for i in present if (clip := spoken[i]) is not None]
    here = [places[i] for i in present]
    factor, fastest = 1.0, max(clip.rate for clip in clips)
    if not _fits([clip.duration_ms for clip in clips], here):
        while fastest * factor < limits.usual - 0.005:
            factor += 0.02
            if _fits([_shortened(clip.duration_ms, factor) for clip in clips], here):
                break
    for i in present:
        factors[i] = round(factor, 2)


def _shortened(duration_ms: int, factor: float) -> int:
    return max(1, -(-round(duration_ms * 1000) // round(factor * 1000)))


def _place(
    spoken: Sequence[Spoken | None], places: Sequence[Slot], limits: Limits, factors: Sequence[float], duration_ms: int
) -> list[Placement | None]:
    placed: list[Placement | None] = []
    cursor = 0
    for clip, slot, planned in zip(spoken, places, factors, strict=True):
        if clip is None:
            placed.append(None)
            continue
        start, factor = max(slot.start_ms, cursor), planned
        length = _shortened(clip.duration_ms, factor)
        behind = start + length - max(slot.limit_ms, slot.end_ms)
        if start - slot.start_ms > 1000 or behind > 1000:  # stop lateness from cascading through a dense passage
            room = max(slot.limit_ms - start, 1)
            wanted = min(max(factor, clip.duration_ms / room), limits.ever / clip.rate)
            factor = max(factor, round(wanted, 2))
            length = _shortened(clip.duration_ms, factor)
        placed.append(_placement(start, length, factor, clip, slot, limits))
        cursor = start + length
    return placed


def _placement(start: int, length: int, factor: float, clip: Spoken, slot: Slot, limits: Limits) -> Placement:
    late, rate = start - slot.start_ms, round(clip.rate * factor, 3)
    flags = []
    if rate > limits.usual + 0.011:
        flags.append("over_limit" if rate > limits.ever + 0.011 else "hurried")
    if late > 1000:
        flags.append("late")
    return Placement(start, length, factor, rate, late, tuple(flags))


def _pull_inside(
    placed: list[Placement | None],
    spoken: Sequence[Spoken | None],
    places: Sequence[Slot],
    limits: Limits,
    duration_ms: int,
) -> list[Placement | None]:
    """Move what runs past the end earlier; only when everything together is too long, hurry it beyond the limits."""
    total = sum(p.duration_ms for p in placed if p is not None)
    if total > duration_ms:
        return _squeeze(placed, spoken, places, limits, duration_ms)
    bound = duration_ms
    for i in range(len(placed) - 1, -1, -1):
        place = placed[i]
        if place is None:
            continue
        if place.end_ms <= bound:
            break
        start = bound - place.duration_ms
        placed[i] = replace(place, start_ms=start, late_ms=start - places[i].start_ms)
        bound = start
    return placed


def _squeeze(
    placed: Sequence[Placement | None],
    spoken: Sequence[Spoken | None],
    places: Sequence[Slot],
    limits: Limits,
    duration_ms: int,
) -> list[Placement | None]:
    count = sum(p is not None for p in placed)
    room = max(duration_ms - count, count)  # a millisecond a line for rounding up
    ratio = sum(p.duration_ms for p in placed if p is not None) / room
    squeezed: list[Placement | None] = []
    cursor = 0
    for place, clip, slot in zip(placed, spoken, places, strict=True):
        if place is None or clip is None:
            squeezed.append(None)
            continue
        factor = place.stretch * ratio
        length = max(1, int(clip.duration_ms / factor))
        entry = _placement(cursor, length, factor, clip, slot, limits)
        squeezed.append(entry)
        cursor += length
    return squeezed
