"""A chart of what happened when: panels over one time axis, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP = 860, 130, 20, 74
PANEL, GAP, BOTTOM = 84, 22, 40
COLOURS = ("#1f5fa8", "#b5471f", "#2d7a3a", "#7a3d8f")
TICKS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


@dataclass(frozen=True)
class Panel:
    """One quantity over time."""

    name: str
    points: Sequence[tuple[float, float]]
    """(seconds, value), in order."""
    steps: bool
    """Whether a value holds until the next, or lies on a line to it."""


def chart(title: str, panels: Sequence[Panel], events: Sequence[tuple[float, str]]) -> str:
    """The panels below one another; each event is a dashed line through all of them."""
    end_s = max(point[0] for panel in panels for point in panel.points)
    across = (WIDTH - LEFT - RIGHT) / end_s
    height = TOP + len(panels) * (PANEL + GAP) + BOTTOM
    floor = height - BOTTOM - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" fill="#111">{escape(title)}</text>',
    ]
    for number, (at_s, what) in enumerate(events):
        x, y = LEFT + at_s * across, TOP - 26 + 13 * (number % 2)
        parts.append(f'<path d="M{x:.1f} {y + 3}V{floor}" stroke="#999" stroke-dasharray="3 3"/>')
        anchor = "end" if x > WIDTH - 100 else "start"
        parts.append(
            f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-size="11" fill="#444">{escape(what)}</text>'
        )
    for number, panel in enumerate(panels):
        parts += _panel(panel, TOP + number * (PANEL + GAP), across, COLOURS[number % len(COLOURS)])
    tick = next((tick for tick in TICKS if end_s / tick <= 12), TICKS[-1])
    for at_s in range(0, int(end_s) + 1, tick):
        x = LEFT + at_s * across
        parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle" fill="#444">{at_s} s</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, top: int, across: float, colour: str) -> list[str]:
    most = max(value for _, value in panel.points) or 1
    base = top + PANEL

    def place(at_s: float, value: float) -> str:
        return f"{LEFT + at_s * across:.1f} {base - value / most * PANEL:.1f}"

    path = f"M{place(*panel.points[0])}"
    for before, (at_s, value) in zip(panel.points, panel.points[1:], strict=False):
        if panel.steps and value == before[1] and (at_s, value) != panel.points[-1]:
            continue
        path += (f"L{place(at_s, before[1])}" if panel.steps else "") + f"L{place(at_s, value)}"
    label = f"{most:.0f}" if most == round(most) else f"{most:.1f}"
    return [
        f'<path d="M{LEFT} {base}H{WIDTH - RIGHT}M{LEFT} {top}H{WIDTH - RIGHT}" stroke="#ddd"/>',
        f'<text x="{LEFT - 8}" y="{base}" text-anchor="end" fill="#444">0</text>',
        f'<text x="{LEFT - 8}" y="{top + 10}" text-anchor="end" fill="#444">{label}</text>',
        f'<text x="8" y="{top + PANEL // 2}" fill="{colour}">{escape(panel.name)}</text>',
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>',
    ]
