"""report.json: what was made, from what, how well it fits, and where the time went. Only what was measured stands in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from dubbing import __version__
from dubbing.timing import Placement
from dubbing.trace import Trace
from dubbing.types import Line

SCHEMA_VERSION = 1
OVERLAP_GATE = 0.80
"""Median speech overlap under which a dub is called loose; dubs made by people reach about 0.70 on average."""
FAST = 1.2
_RATE_EDGES = (0.85, 0.95, 1.05, 1.15, 1.25, 1.35, 1.5, 1.7, 1.9)


@dataclass(frozen=True, slots=True)
class LineResult:
    """One line of one target, finished."""

    line: Line
    text: str
    """In the target language."""
    voice: str
    placement: Placement | None
    """None when the line is silent."""
    problems: tuple[str, ...]
    """Flags of translation, speech and timing."""


def overlap(line: Line, placement: Placement) -> float:
    """Time both speak, over time either speaks: 1.0 when the dub covers the source line exactly."""
    both = min(line.end_ms, placement.end_ms) - max(line.start_ms, placement.start_ms)
    either = max(line.end_ms, placement.end_ms) - min(line.start_ms, placement.start_ms)
    return max(0, both) / either if either > 0 else 0.0


def target_report(results: Sequence[LineResult], sound: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """The report of one target language."""
    spoken = [(r, r.placement) for r in results if r.placement is not None]
    overlaps = [overlap(r.line, p) for r, p in spoken]
    starts = sorted(p.start_ms - r.line.start_ms for r, p in spoken)
    rates = [p.rate for _, p in spoken]
    return {
        "lines": len(results),
        "spoken": len(spoken),
        "silent": [r.line.index + 1 for r in results if r.placement is None],
        "overlap": {
            "median": _round(median(overlaps)) if overlaps else None,
            "gate": OVERLAP_GATE,
            "passed": bool(overlaps) and median(overlaps) >= OVERLAP_GATE,
        },
        "rates": {
            "histogram": histogram(rates),
            "over_1.2": sum(rate > FAST + 0.001 for rate in rates),
            "stretched": sum(p.stretch != 1.0 for _, p in spoken),
        },
        "start_drift_ms": {
            "median": median(starts) if starts else None,
            "p95": starts[min(len(starts) - 1, round(0.95 * (len(starts) - 1)))] if starts else None,
            "worst": max(starts, key=abs) if starts else None,
        },
        "problems": dict(sorted(Counter(flag for r in results for flag in r.problems).items())),
        "sound": dict(sound),
        "worst_lines": [line_report(r) for r in sorted(results, key=_badness, reverse=True)[:10] if _badness(r) > 0],
        "files": list(files),
    }


def speakers(lines: Sequence[Line], targets: Mapping[str, Sequence[LineResult]]) -> dict[str, Any]:
    """Who speaks, in order of appearance: lines, speech, share of all speech (0..1), and the voice in each target."""
    total = sum(line.duration_ms for line in lines)
    voices = {(tag, result.line.speaker): result.voice for tag, results in targets.items() for result in results}
    found: dict[str, Any] = {}
    for label in dict.fromkeys(line.speaker for line in lines):
        own = [line.duration_ms for line in lines if line.speaker == label]
        found[label] = {
            "lines": len(own),
            "speech_ms": sum(own),
            "share": _round(sum(own) / total) if total else None,
            "voices": {tag: voices[tag, label] for tag in targets if (tag, label) in voices},
        }
    return found


def histogram(rates: Sequence[float]) -> dict[str, int]:
    """Lines by total speaking rate, relative to the voice's natural one."""
    counts: Counter[str] = Counter()
    for rate in rates:
        above = sum(rate >= edge for edge in _RATE_EDGES)
        low = f"{_RATE_EDGES[above - 1]}" if above else ""
        high = f"{_RATE_EDGES[above]}" if above < len(_RATE_EDGES) else ""
        counts[f"{low}-{high}" if low and high else (f"<{high}" if high else f">={low}")] += 1
    return dict(counts)


def time_report(trace: Trace, source_ms: int) -> dict[str, Any]:
    """Seconds by stage: `busy_s` at least one piece of work under way, `waiting_s` the rest between its first and last."""
    stages = list(dict.fromkeys(span.stage for span in sorted(trace.spans, key=lambda s: s.start_s)))
    busy = trace.busy_s()
    return {
        "total_s": _round(trace.elapsed_s()),
        "stages_s": _round(busy),
        "real_time_factor": _round(busy / (source_ms / 1000)) if source_ms else None,
        "by_stage": {
            stage: {
                "busy_s": _round(trace.busy_s(stage)),
                "waiting_s": _round(trace.window_s(stage) - trace.busy_s(stage)),
            }
            for stage in stages
        },
    }


def skeleton(job_id: str) -> dict[str, Any]:
    """The head of a report."""
    return {"schema": SCHEMA_VERSION, "program": f"dubbing-pipeline {__version__}", "job": job_id}


def _badness(result: LineResult) -> float:
    placement = result.placement
    if placement is None:
        return 100.0
    late = abs(placement.late_ms) / 1000
    return 3.0 * len(result.problems) + max(0.0, placement.rate - FAST) * 10 + (late if late > 0.25 else 0.0)


def line_report(result: LineResult) -> dict[str, Any]:
    """One line: what was said, what is said now, where, and what is wrong with it. `dub_*` are missing when silent."""
    placement = result.placement
    entry: dict[str, Any] = {
        "line": result.line.index + 1,
        "start_ms": result.line.start_ms,
        "end_ms": result.line.end_ms,
        "speaker": result.line.speaker,
        "source": result.line.text,
        "text": result.text,
        "voice": result.voice,
        "problems": list(result.problems),
    }
    if placement is not None:
        entry |= {
            "dub_start_ms": placement.start_ms,
            "dub_end_ms": placement.end_ms,
            "rate": placement.rate,
            "late_ms": placement.late_ms,
            "overlap": _round(overlap(result.line, placement)),
        }
    return entry


def _round(value: float) -> float:
    return round(value, 3)
