"""Lines on a time axis: nothing is lost between strips, and what is wrong is told apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dubbing.artifacts import JobFolder
from dubbing.web.charts import LOUDNESS_HEIGHT, POINTS, STRIPS, WIDTH, Loudness, Timeline, loudness, timeline
from dubbing.web.results import read


def line(number: int, start: int, end: int, dub: tuple[int, int] | None = None, *problems: str) -> dict[str, Any]:
    placed = {"dub_start_ms": dub[0], "dub_end_ms": dub[1]} if dub else {}
    return {"line": number, "start_ms": start, "end_ms": end, "problems": list(problems)} | placed


def chart(output: Path, *lines: dict[str, Any], text: str | None = None) -> Timeline | None:
    folder = JobFolder.open(output, "talk", "talk").path
    (folder / "lines.es.json").write_text(json.dumps({"schema": 1, "lines": lines}) if text is None else text)
    return timeline(read(folder), "es")


def test_lines_lie_where_they_are_spoken(tmp_path: Path) -> None:
    found = chart(tmp_path, line(1, 0, 30_000, (15_000, 45_000)))

    assert found is not None
    (strip,) = found.strips
    assert [(span.x, span.width) for span in strip.original] == [(0, WIDTH / 2)]
    assert [(span.x, span.width) for span in strip.dub] == [(WIDTH / 4, WIDTH / 2)]
    assert strip.ticks[0] == (0, 0)
    assert strip.ticks[-1][0] < WIDTH


def test_a_line_over_the_end_of_a_strip_goes_on_in_the_next(tmp_path: Path) -> None:
    found = chart(tmp_path, line(1, 50_000, 70_000, (50_000, 80_000)))

    assert found is not None
    assert len(found.strips) == 2
    widths = [sum(span.width for span in strip.dub) for strip in found.strips]
    assert sum(widths) == pytest.approx(30_000 / 60_000 * WIDTH, abs=0.02)
    assert widths[0] == pytest.approx(10_000 / 60_000 * WIDTH, abs=0.02)


def test_problems_are_named_and_silence_is_counted(tmp_path: Path) -> None:
    found = chart(tmp_path, line(1, 0, 1000, (0, 1000), "over_limit", "late"), line(2, 2000, 3000, None, "silent"))

    assert found is not None
    (span,) = found.strips[0].dub
    assert span.troubled
    assert span.title == "line 1, 0.0 to 1.0 s: over limit, late"
    assert not any(span.troubled for span in found.strips[0].original)
    assert (found.lines, found.troubled, found.silent) == (2, 2, 1)


@pytest.mark.parametrize("hours", [1, 3, 20])
def test_long_films_keep_to_a_few_strips(tmp_path: Path, hours: int) -> None:
    end = hours * 3_600_000
    found = chart(tmp_path, line(1, end - 1000, end, (end - 1000, end)))

    assert found is not None
    assert len(found.strips) <= STRIPS
    assert [span.x + span.width <= WIDTH + 0.5 for span in found.strips[-1].dub] == [True]
    assert all(2 <= len(strip.ticks) <= 20 for strip in found.strips)


@pytest.mark.parametrize("text", ["", "[]", '{"lines": [{"line": "x"}]}', '{"lines": []}'])
def test_what_cannot_be_read_makes_no_chart(tmp_path: Path, text: str) -> None:
    assert chart(tmp_path, text=text) is None


def curves(
    output: Path, source: list[float], dub: list[float], changes: Mapping[str, Any] | None = None
) -> Loudness | None:
    folder = JobFolder.open(output, "talk", "talk").path
    made = {"schema": 1, "every_s": 1, "source": source, "targets": {"es": dub}} | dict(changes or {})
    (folder / "loudness.json").write_text(json.dumps(made))
    return loudness(read(folder), "es")


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in text.split())]


def test_louder_is_higher_and_silence_lies_at_the_bottom(tmp_path: Path) -> None:
    found = curves(tmp_path, [-70.0, -30.0, -10.0, 3.0], [-16.0] * 4)

    assert found is not None
    heights = [y for _, y in points(found.original.points)]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (LOUDNESS_HEIGHT, 0)
    assert [level for _, level in found.levels] == sorted(level for _, level in found.levels)
    assert [y for y, _ in found.levels] == sorted((y for y, _ in found.levels), reverse=True)
    assert (found.original.low, found.original.high) == (-30.0, 3.0), "silence is not heard"
    assert found.dub.middle == -16.0


def test_a_shorter_sound_ends_before_the_end_of_the_axis(tmp_path: Path) -> None:
    found = curves(tmp_path, [-20.0] * 100, [-16.0] * 50)

    assert found is not None
    assert points(found.original.points)[-1][0] > 0.99 * WIDTH
    assert points(found.dub.points)[-1][0] < WIDTH / 2


def test_a_loud_moment_of_a_long_film_is_still_seen(tmp_path: Path) -> None:
    source = [-40.0] * 7200
    source[3600] = -5.0
    found = curves(tmp_path, source, source)

    assert found is not None
    heights = [y for _, y in points(found.dub.points)]
    assert len(heights) <= POINTS
    assert heights.count(min(heights)) == 1 and max(heights) - min(heights) > 0.2 * LOUDNESS_HEIGHT


def test_nothing_to_hear_has_no_figures(tmp_path: Path) -> None:
    found = curves(tmp_path, [-70.0], [-16.0])

    assert found is not None
    assert (found.original.low, found.original.middle, found.original.high) == (None, None, None)


@pytest.mark.parametrize(
    "changes",
    [{"schema": 2}, {"targets": {"ca": [-16.0]}}, {"source": []}, {"source": [1e9]}, {"source": "x"}, {"every_s": 0}],
)
def test_loudness_that_cannot_be_read_makes_no_chart(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert curves(tmp_path, [-20.0], [-16.0], changes) is None
