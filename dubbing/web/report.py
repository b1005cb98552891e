"""report.json as the pages read it: only what they show, checked field by field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dubbing.web.catalogues import decimal, gettext

_BIN = re.compile(r"(?:<(?P<below>[\d.]+)|>=(?P<above>[\d.]+)|(?P<low>[\d.]+)-(?P<high>[\d.]+))")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Source(_Part):
    """What was dubbed."""

    name: str
    language: str
    """BCP-47 tag."""
    duration_ms: int


class EngineUsed(_Part):
    """An engine that worked on the job."""

    kind: str
    """transcribe, align, translate, speak, separate or diarize."""
    target: str | None
    """BCP-47 tag; None for work done once per job."""
    name: str
    version: str
    quality: str
    licence: str
    weights_licence: str | None
    commercial_use: bool
    note: str | None
    reason: str


class Overlap(_Part):
    """Time both speak over time either speaks, 0..1."""

    median: float | None
    gate: float
    passed: bool


class Rates(_Part):
    """Speaking rates of the lines, relative to the voice's natural one."""

    histogram: dict[str, int]
    """`0.95-1.05`, `<0.85` or `>=1.9` to the number of lines."""
    hurried: int = Field(validation_alias="over_1.2")
    """Lines spoken more than 1.2 times as fast."""


class Drift(_Part):
    """How late lines start, ms."""

    median: float | None
    p95: float | None
    worst: float | None


class Sound(_Part):
    """The finished sound track, as measured."""

    lufs: float | None
    true_peak_dbtp: float | None
    note: str | None


class WorstLine(_Part):
    """A line to listen to."""

    line: int
    """1-based."""
    start_ms: int
    source: str
    text: str
    problems: tuple[str, ...]
    dub_start_ms: int | None = None
    """None when the line is silent."""
    rate: float | None = None

    @property
    def seek_s(self) -> float:
        """Where to begin to listen: half a second before the line is said, or would be, in seconds."""
        start_ms = self.start_ms if self.dub_start_ms is None else self.dub_start_ms
        return max(0, start_ms - 500) / 1000


class Target(_Part):
    """How one language came out."""

    lines: int
    spoken: int
    overlap: Overlap
    rates: Rates
    start_drift_ms: Drift
    sound: Sound
    worst_lines: tuple[WorstLine, ...]


class Report(_Part):
    """A whole report."""

    version: Literal[1] = Field(validation_alias="schema")
    state: Literal["done", "done_with_warnings"]
    source: Source
    engines: tuple[EngineUsed, ...]
    targets: dict[str, Target]
    """By BCP-47 tag, in the order they were asked for."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram."""

    label: str
    count: int
    share: float
    """Of the longest bar, 0..1."""


def bars(histogram: dict[str, int]) -> list[Bar]:
    """Bars from slow to fast; entries that are no range of rates are left out."""
    found: list[tuple[float, str, int]] = []
    for key, count in histogram.items():
        if (match := _BIN.fullmatch(key)) and count > 0:
            low, label = _edge(match)
            found.append((low, label, count))
    longest = max((count for _, _, count in found), default=1)
    return [Bar(label, count, count / longest) for _, label, count in sorted(found)]


def _edge(match: re.Match[str]) -> tuple[float, str]:
    if match["below"]:
        return 0.0, gettext("under %(rate)s") % {"rate": _rate(match["below"])}
    if match["above"]:
        return float(match["above"]), gettext("%(rate)s and over") % {"rate": _rate(match["above"])}
    return float(match["low"]), gettext("%(low)s to %(high)s") % {
        "low": _rate(match["low"]),
        "high": _rate(match["high"]),
    }


def _rate(written: str) -> str:
    return decimal(float(written), len(written.partition(".")[2]))
