"""report.py and trace.py: figures that can be checked by hand."""

from __future__ import annotations

import json

import pytest

from dubbing import report
from dubbing.report import LineResult
from dubbing.timing import Placement
from dubbing.trace import Span, Trace
from dubbing.types import Line


def result(
    index: int, source: tuple[int, int], dub: tuple[int, int] | None, rate: float = 1.0, *flags: str
) -> LineResult:
    placement = None
    if dub is not None:
        placement = Placement(dub[0], dub[1] - dub[0], 1.0, rate, dub[0] - source[0], flags)
    return LineResult(Line(index, *source, "text"), "texto", "es", placement, flags if dub else ("silent",))


def test_overlap_is_the_share_of_time_both_speak() -> None:
    line = Line(0, 1000, 3000, "x")

    assert report.overlap(line, Placement(1000, 2000, 1.0, 1.0, 0)) == 1.0
    assert report.overlap(line, Placement(2000, 2000, 1.0, 1.0, 1000)) == pytest.approx(1 / 3)
    assert report.overlap(line, Placement(5000, 100, 1.0, 1.0, 4000)) == 0.0


def test_a_target_report_counts_what_happened() -> None:
    found = report.target_report(
        [
            result(0, (0, 2000), (0, 2000)),
            result(1, (3000, 5000), (3100, 5100), 1.3, "hurried"),
            result(2, (6000, 7000), None),
        ],
        {"lufs": -16.1},
        ["a.mp4"],
    )

    assert (found["lines"], found["spoken"], found["silent"]) == (3, 2, [3])
    assert found["overlap"]["median"] == pytest.approx((1 + 1900 / 2100) / 2, abs=0.001)
    assert found["rates"] == {"histogram": {"0.95-1.05": 1, "1.25-1.35": 1}, "over_1.2": 1, "stretched": 0}
    assert found["start_drift_ms"]["worst"] == 100
    assert found["problems"] == {"hurried": 1, "silent": 1}
    assert [line["line"] for line in found["worst_lines"]] == [3, 2]


def test_a_target_without_speech_passes_no_gate() -> None:
    found = report.target_report([result(0, (0, 2000), None)], {}, [])

    assert found["overlap"] == {"median": None, "gate": 0.8, "passed": False}


def test_busy_time_counts_overlapping_spans_once() -> None:
    trace = Trace(
        [
            Span("speak", "a", 0.0, 2.0),
            Span("speak", "b", 1.0, 3.0),
            Span("speak", "c", 5.0, 6.0),
            Span("mix", "m", 2.5, 4.0),
        ]
    )

    assert trace.busy_s("speak") == 4.0
    assert trace.window_s("speak") == 6.0
    assert trace.busy_s() == 5.0


def test_the_timeline_is_a_chrome_trace_whose_lanes_do_not_overlap() -> None:
    trace = Trace([Span("speak", "a", 0.0, 2.0), Span("speak", "b", 1.0, 3.0), Span("speak", "c", 2.5, 4.0)])

    events = json.loads(trace.chrome())["traceEvents"]

    assert [(e["name"], e["tid"]) for e in events] == [("a", "speak"), ("b", "speak 1"), ("c", "speak")]
    assert events[0] | {"ts": 0, "dur": 2_000_000, "ph": "X"} == events[0]
