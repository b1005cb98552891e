"""The guard against text that nobody said."""

from __future__ import annotations

import pytest

from dubbing.engines.hallucination import Decoding, Loop, better, judge, loop, repetitive

PROSE = "We went down to the harbour, where the boats come in, and waited for the morning."
THANKS = " ".join(["Thank you for watching."] * 12)


@pytest.mark.parametrize(
    ("text", "logprob", "no_speech", "speech", "action"),
    [
        (PROSE, -0.2, 0.01, 0.9, "keep"),
        (PROSE, -0.2, 0.95, 0.9, "keep"),
        (PROSE, -0.2, 0.01, 0.05, "keep"),
        (PROSE, -0.2, 0.01, 0.04, "drop"),
        (PROSE, -1.3, 0.7, 0.9, "drop"),
        (PROSE, -1.3, 0.2, 0.9, "doubt"),
        (THANKS, -0.1, 0.01, 0.9, "doubt"),
        (THANKS, -0.1, 0.01, 0.0, "drop"),
        ("♪ … ♪", -0.1, 0.01, 0.9, "drop"),
        ("", -0.1, 0.01, 0.9, "drop"),
        ("No, no, no, no!", -0.2, 0.01, 0.9, "keep"),
    ],
)
def test_what_was_not_said_is_dropped_and_what_may_not_have_been_is_doubted(
    text: str, logprob: float, no_speech: float, speech: float, action: str
) -> None:
    verdict = judge(Decoding(text, logprob, no_speech), text, speech)
    assert verdict.action == action
    assert bool(verdict.reason) is (action != "keep")


def test_a_part_of_a_text_that_repeats_itself_is_doubted_too() -> None:
    assert judge(Decoding(THANKS, -0.1, 0.0), "Thank you for watching.", 0.9).action == "doubt"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so so so so so", Loop(0, 1, 5)),
        ("so so so so", None),
        ("and then I said yes yes yes yes yes yes", Loop(4, 1, 6)),
        ("and then I went home and said yes yes yes yes yes", None),
        ("Thank you. Thank you! thank you, THANK YOU thank you", Loop(0, 2, 5)),
        ("well you know you know you know you know you know you", Loop(1, 2, 5)),
        ("one two three four five six seven eight nine ten", None),
        ("谢 谢 谢 谢 谢 谢", Loop(0, 1, 6)),
        ("", None),
    ],
)
def test_the_phrase_that_dominates_a_text_is_found(text: str, found: Loop | None) -> None:
    assert loop(text.split()) == found


@pytest.mark.parametrize(
    ("text", "tired"), [(PROSE, False), (THANKS, True), ("ha" * 60, True), ("ok", False), ("", False)]
)
def test_text_that_packs_too_well_repeats_itself(text: str, tired: bool) -> None:
    assert repetitive(text) is tired


@pytest.mark.parametrize(
    ("first", "second", "preferred"),
    [
        ((THANKS, -0.1), (PROSE, -0.9), True),
        ((PROSE, -0.9), (THANKS, -0.1), False),
        ((THANKS, -0.3), (THANKS, -0.2), True),
    ],
)
def test_a_second_try_is_preferred_when_it_repeats_itself_less_and_then_when_it_is_surer(
    first: tuple[str, float], second: tuple[str, float], preferred: bool
) -> None:
    one, other = (Decoding(text, logprob, 0.0) for text, logprob in (first, second))
    assert better(one, other) is preferred
