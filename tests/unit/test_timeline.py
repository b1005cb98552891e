"""The chart of the benchmarks, and how they count what comes a batch at a time."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from scripts.bench.autoscaling import rate
from scripts.timeline import Panel, chart

SVG = "{http://www.w3.org/2000/svg}"


def test_a_chart_names_its_panels_and_events_and_is_well_formed() -> None:
    panels = [Panel("nodes", [(0, 0), (5, 2), (10, 0)], steps=True), Panel("a < b", [(0, 0), (10, 1.5)], steps=False)]
    root = ElementTree.fromstring(chart("Up & down", panels, [(5.0, "load")]))
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"Up & down", "nodes", "a < b", "load", "0 s", "10 s", "2", "1.5"} <= texts


def test_a_value_of_steps_holds_until_the_next() -> None:
    stepped = chart("one", [Panel("n", [(0, 0), (5, 2), (10, 0)], steps=True)], [])
    straight = chart("one", [Panel("n", [(0, 0), (5, 2), (10, 0)], steps=False)], [])
    corners = [path.attrib["d"].count("L") for path in map(_curve, (stepped, straight))]
    assert corners == [4, 2]


def _curve(svg: str) -> ElementTree.Element:
    (found,) = [path for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if path.attrib.get("fill") == "none"]
    return found


@pytest.mark.parametrize("cut", range(8))
def test_the_rate_of_batches_does_not_depend_on_where_the_window_cuts_them(cut: int) -> None:
    """Two replicas answer four lines each every two seconds, half a second apart: four lines a second."""
    answers = sorted(
        [2.0 * n for n in range(9) for _ in range(4)] + [2.0 * n + 0.5 for n in range(9) for _ in range(4)]
    )
    assert rate(answers[cut : cut + 48], in_round=8) == pytest.approx(4.0)
