"""timing.py: plans and places, for any set of lines, in any script."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubbing import timing
from dubbing.timing import Calibration, Limits, Slot, Spoken

ROBOT = Limits.of_voice(natural=False, engine=(0.8, 1.8))
NATURAL = Limits.of_voice(natural=True, engine=(1.0, 1.0))
SCRIPTS = [
    "The quick brown fox",
    "Быстрая лиса",
    "素早い狐が犬を",
    "الثعلب السريع",
    "तेज़ लोमड़ी",
    "빠른 여우",
    "敏捷的狐狸",
]


@st.composite
def films(draw: st.DrawFn) -> tuple[list[tuple[int, int, str]], list[Spoken | None], int]:
    """Lines with any times (also overlapping, zero-length, past the end), clips of any length, some missing."""
    duration = draw(st.integers(500, 600_000))
    starts = sorted(draw(st.lists(st.integers(0, duration + 2_000), min_size=1, max_size=40)))
    times = [(start, start + draw(st.integers(0, 12_000)), draw(st.sampled_from("AB"))) for start in starts]
    clip = st.builds(Spoken, st.integers(1, 40_000), st.sampled_from([0.85, 1.0, 1.3, 1.8]))
    spoken = [draw(st.one_of(st.none(), clip)) for _ in times]
    return times, spoken, duration


@given(films(), st.sampled_from([ROBOT, NATURAL]))
@settings(max_examples=400, deadline=None)
def test_clips_never_overlap_and_stay_inside_the_timeline(
    film: tuple[list[tuple[int, int, str]], list[Spoken | None], int], limits: Limits
) -> None:
    times, spoken, duration = film

    placed = timing.fit(spoken, timing.slots(times, duration), limits, duration)

    present = [p for p in placed if p is not None]
    assert len(placed) == len(spoken)
    assert all(p.start_ms >= 0 and p.end_ms <= duration and p.duration_ms >= 1 for p in present)
    assert all(a.end_ms <= b.start_ms for a, b in zip(present, present[1:], strict=False))


@given(films(), st.sampled_from([ROBOT, NATURAL]))
@settings(max_examples=400, deadline=None)
def test_no_word_is_cut_and_what_breaks_a_limit_is_flagged(
    film: tuple[list[tuple[int, int, str]], list[Spoken | None], int], limits: Limits
) -> None:
    times, spoken, duration = film

    placed = timing.fit(spoken, timing.slots(times, duration), limits, duration)

    for clip, place in zip(spoken, placed, strict=True):
        assert (clip is None) == (place is None)
        if clip is None or place is None:
            continue
        assert place.duration_ms >= clip.duration_ms / place.stretch - 1.001
        assert place.rate == pytest.approx(clip.rate * place.stretch, abs=0.002)
        if place.rate > limits.ever + 0.02:
            assert "over_limit" in place.flags
        elif place.rate > limits.usual + 0.02:
            assert {"hurried", "over_limit"} & set(place.flags)
        if place.late_ms > 1000:
            assert "late" in place.flags


@given(films())
@settings(max_examples=200, deadline=None)
def test_limits_are_broken_only_when_everything_together_does_not_fit(
    film: tuple[list[tuple[int, int, str]], list[Spoken | None], int],
) -> None:
    times, spoken, duration = film

    placed = timing.fit(spoken, timing.slots(times, duration), ROBOT, duration)

    if any(p is not None and "over_limit" in p.flags and p.stretch > 1 for p in placed):
        least = sum(clip.duration_ms * clip.rate / ROBOT.ever for clip in spoken if clip is not None)
        assert least >= (duration - len(spoken)) * 0.5  # only a film that is nearly or more than full


@given(st.lists(st.tuples(st.integers(200, 15_000), st.integers(0, 3_000)), min_size=1, max_size=30))
@settings(deadline=None)
def test_lines_of_a_group_share_one_planned_rate(gaps: list[tuple[int, int]]) -> None:
    times, at = [], 0
    for length, gap in gaps:
        times.append((at, at + length, "A"))
        at += length + gap
    places = timing.slots(times, at)

    rates = timing.plan([length * 2 for length, _ in gaps], places, ROBOT, [None] * len(gaps))

    for group in {slot.group for slot in places}:
        assert len({rate for rate, slot in zip(rates, places, strict=True) if slot.group == group}) == 1
    assert all(ROBOT.engine[0] <= rate <= ROBOT.engine[1] for rate in rates)


def test_a_line_that_fits_is_not_touched() -> None:
    places = timing.slots([(1000, 4000, "A"), (6000, 9000, "A")], 10_000)

    placed = timing.fit([Spoken(3100, 1.0), Spoken(2900, 1.0)], places, NATURAL, 10_000)

    assert [(p.start_ms, p.stretch) for p in placed if p] == [(1000, 1.0), (6000, 1.0)]


def test_a_long_line_borrows_the_silence_after_it_before_it_is_hurried() -> None:
    places = timing.slots([(0, 2000, "A"), (5000, 7000, "A")], 10_000)

    placed = timing.fit([Spoken(4900, 1.0), Spoken(1900, 1.0)], places, NATURAL, 10_000)

    assert placed[0] is not None and placed[0].stretch == 1.0
    assert placed[1] is not None and placed[1].start_ms == 5000


def test_lateness_ends_at_the_next_pause() -> None:
    times = [(0, 1000, "A"), (1000, 2000, "A"), (2000, 3000, "A"), (12_000, 13_000, "A")]

    placed = timing.fit([Spoken(4000, 1.0)] * 3 + [Spoken(900, 1.0)], timing.slots(times, 20_000), NATURAL, 20_000)

    assert placed[2] is not None and placed[2].late_ms > 1000
    assert placed[3] is not None and placed[3].late_ms == 0


def test_an_edited_line_takes_the_rate_of_its_settled_neighbours() -> None:
    places = timing.slots([(0, 2000, "A"), (2100, 4000, "A"), (4100, 6000, "A")], 8000)

    rates = timing.plan([2000, 1500, 2000], places, ROBOT, [1.32, None, 1.32])

    assert rates == [1.32, 1.32, 1.32]


def test_a_robotic_voice_is_spoken_again_when_the_prediction_was_far_off() -> None:
    places = timing.slots([(0, 2000, "A"), (2100, 4000, "A")], 4200)

    again = timing.respeak([Spoken(3200, 1.0), Spoken(3000, 1.0)], places, ROBOT)

    assert all(rate is not None and rate > 1.3 for rate in again)
    assert timing.respeak([Spoken(1900, 1.0), Spoken(1900, 1.0)], places, ROBOT) == [None, None]


@pytest.mark.parametrize("text", SCRIPTS)
def test_every_script_has_a_length(text: str) -> None:
    assert timing.units(text) > len(text) * 0.6
    assert timing.units(text * 2) == pytest.approx(timing.units(text) * 2)


def test_calibration_replaces_the_prior_after_five_lines() -> None:
    calibration = Calibration(10.0)
    text = "twelve chars"
    for _ in range(4):
        calibration.learn(text, Spoken(1000, 2.0))
    assert calibration.units_per_second == 10.0

    calibration.learn(text, Spoken(1000, 2.0))

    assert calibration.units_per_second == pytest.approx(timing.units(text) / 2)


def test_the_length_budget_shrinks_with_the_slot() -> None:
    calibration = Calibration(14.0)
    wide, narrow = Slot(0, 4000, 5000, 0), Slot(0, 1000, 1200, 0)

    assert timing.budget_chars("some words here", wide, NATURAL, calibration) > timing.budget_chars(
        "some words here", narrow, NATURAL, calibration
    )
