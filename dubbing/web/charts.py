"""The dub over the original on a time axis, its lines and its loudness, laid out for an SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dubbing.web import words
from dubbing.web.catalogues import decimal, gettext
from dubbing.web.results import Results

WIDTH = 320.0
"""Of a strip, in the SVG's own units; a phone shows about one pixel each."""
SHORTEST_MS = 60_000
STRIPS = 8
"""A dub is cut into at most so many strips, each a minute or longer."""
STEPS_S = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)
TICKS = 6
LARGEST = 64 * 2**20
"""Bytes of a file of lines that are read; a day of speech takes less."""


LOUDNESS_HEIGHT = 100.0
LOUDNESS_LUFS = (-50.0, -5.0)
"""Bottom and top of the chart; quieter is drawn at the bottom."""
LEVELS = (-50, -40, -30, -20, -10)
POINTS = 160
"""Most points of a curve: one for two pixels of a phone."""
SILENCE_LUFS = -70.0
"""What silence is written as."""
Lufs = Annotated[float, Field(ge=SILENCE_LUFS, le=30, allow_inf_nan=False)]


class _Measured(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = Field(validation_alias="schema")
    every_s: int = Field(ge=1)
    source: tuple[Lufs, ...]
    targets: dict[str, tuple[Lufs, ...]]


@dataclass(frozen=True, slots=True)
class Curve:
    """How loud one sound is over time."""

    points: str
    """Of a polyline."""
    low: float | None
    """Loudness that a tenth of what can be heard stays under, LUFS; None when nothing can be heard."""
    middle: float | None
    """Half of it."""
    high: float | None
    """Nine tenths of it."""


@dataclass(frozen=True, slots=True)
class Loudness:
    """Short-term loudness of a dub over that of the original."""

    original: Curve
    dub: Curve
    ticks: list[tuple[float, float]]
    """(x, seconds) of the labels under it."""
    levels: list[tuple[float, int]]
    """(y, LUFS) of the labels beside it."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    line: int
    start_ms: int
    end_ms: int
    problems: tuple[str, ...]
    dub_start_ms: int | None = None
    dub_end_ms: int | None = None


class _Lines(BaseModel):
    lines: tuple[_Line, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """One line, or the part of it that lies in a strip."""

    x: float
    width: float
    title: str
    """Number and time, and what is wrong with it."""
    troubled: bool = False


@dataclass(frozen=True, slots=True)
class Strip:
    """A part of the time axis with two rows."""

    original: list[Span]
    dub: list[Span]
    ticks: list[tuple[float, float]]
    """(x, seconds) of the labels under it."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A whole dub."""

    strips: list[Strip]
    lines: int
    troubled: int
    """Lines with problems."""
    silent: int
    """Lines that are not said."""


def timeline(results: Results, tag: str) -> Timeline | None:
    """The chart of a language; None when the job has no lines of it that can be read."""
    file = results.files.get(f"lines.{tag}.json")
    if file is None or file.size > LARGEST:
        return None
    try:
        lines = _Lines.model_validate_json(file.path.read_bytes()).lines
    except ValidationError:
        return None
    end_ms = max((max(line.end_ms, line.dub_end_ms or 0) for line in lines), default=0)
    if end_ms <= 0:
        return None
    step_ms = _step_ms(end_ms)
    strips = [_strip(lines, at, step_ms) for at in range(0, end_ms, step_ms)]
    silent = sum(line.dub_start_ms is None for line in lines)
    return Timeline(strips, len(lines), sum(bool(line.problems) for line in lines), silent)


def loudness(results: Results, tag: str) -> Loudness | None:
    """The chart of a language; None when its loudness was not measured, or cannot be read."""
    file = results.files.get("loudness.json")
    if file is None or file.size > LARGEST:
        return None
    try:
        measured = _Measured.model_validate_json(file.path.read_bytes())
    except ValidationError:
        return None
    dub = measured.targets.get(tag)
    if not dub or not measured.source:
        return None
    count = max(len(dub), len(measured.source))
    levels = [(_height(level), level) for level in LEVELS]
    ticks = list(_ticks(0, count * measured.every_s * 1000))
    return Loudness(_curve(measured.source, count), _curve(dub, count), ticks, levels)


def _curve(values: Sequence[float], count: int) -> Curve:
    """A curve over `count` values' time; several values in one point are shown by the energy they have together."""
    each = math.ceil(count / POINTS)
    points = []
    for at in range(0, len(values), each):
        part = values[at : at + each]
        mean = 10 * math.log10(sum(10 ** (value / 10) for value in part) / len(part))
        points.append(f"{(at + len(part) / 2) * WIDTH / count:.1f},{_height(mean):.1f}")
    heard = sorted(value for value in values if value > SILENCE_LUFS)
    low, middle, high = (heard[int(len(heard) * share)] if heard else None for share in (0.1, 0.5, 0.9))
    return Curve(" ".join(points), low, middle, high)


def _height(lufs: float) -> float:
    """Where a loudness lies, from the top."""
    bottom, top = LOUDNESS_LUFS
    return round((top - min(max(lufs, bottom), top)) / (top - bottom) * LOUDNESS_HEIGHT, 1)


def _step_ms(end_ms: int) -> int:
    """Length of a strip: whole minutes, so that a line is found by its time."""
    return max(SHORTEST_MS, math.ceil(end_ms / STRIPS / 60_000) * 60_000)


def _strip(lines: Sequence[_Line], at_ms: int, step_ms: int) -> Strip:
    original: list[Span] = []
    dub: list[Span] = []
    for line in lines:
        original += _span(line.start_ms, line.end_ms, at_ms, step_ms, line.line)
        if line.dub_start_ms is not None and line.dub_end_ms is not None:
            dub += _span(line.dub_start_ms, line.dub_end_ms, at_ms, step_ms, line.line, line.problems)
    return Strip(original, dub, list(_ticks(at_ms, step_ms)))


def _span(
    start_ms: int, end_ms: int, at_ms: int, step_ms: int, number: int, problems: Sequence[str] = ()
) -> Iterator[Span]:
    low, high = max(start_ms, at_ms), min(end_ms, at_ms + step_ms)
    if low < high:
        scale = WIDTH / step_ms
        wrong = f": {', '.join(map(words.problem, problems))}" if problems else ""
        facts = {"number": number, "start": decimal(start_ms / 1000, 1), "end": decimal(end_ms / 1000, 1)}
        title = gettext("line %(number)s, %(start)s to %(end)s s") % facts + wrong
        yield Span(round((low - at_ms) * scale, 2), round(max((high - low) * scale, 0.5), 2), title, bool(problems))


def _ticks(at_ms: int, step_ms: int) -> Iterator[tuple[float, float]]:
    step_s = next(step for step in STEPS_S if step * TICKS * 1000 >= step_ms or step == STEPS_S[-1])
    for offset in range(0, step_ms, step_s * 1000):
        yield round(offset * WIDTH / step_ms, 2), (at_ms + offset) / 1000
