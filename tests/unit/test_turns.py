"""Words get the speaker whose turn it is, and a segment is parted where the speaker changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.stages.diarize import SCRAP_MS, Turn, assign, told_apart
from dubbing.stages.script import script
from dubbing.types import Segment, Word

TURNS: list[Turn] = [(0, 2_000, "S1"), (2_000, 4_000, "S2"), (6_000, 8_000, "S1")]


def segment(*words: tuple[int, int, str]) -> Segment:
    spoken = tuple(Word(start, end, text, 0.5) for start, end, text in words)
    return Segment(words[0][0], words[-1][1], " ".join(text for *_, text in words), spoken, confidence=0.5)


def told(segments: list[Segment]) -> list[tuple[str | None, str]]:
    return [(s.speaker, s.text) for s in segments]


def test_a_segment_is_parted_where_the_speaker_changes() -> None:
    one = segment((100, 900, "Are"), (1_000, 1_900, "you?"), (2_100, 2_900, "Yes,"), (3_000, 3_800, "me."))

    found = assign([one], TURNS)

    assert told(found) == [("S1", "Are you?"), ("S2", "Yes, me.")]
    assert [(s.start_ms, s.end_ms, s.confidence) for s in found] == [(100, 1_900, 0.5), (2_100, 3_800, 0.5)]


def test_lines_never_cross_speakers() -> None:
    words = [(i * 300, i * 300 + 280, f"w{i}") for i in range(26)]

    lines = script(assign([segment(*words)], TURNS))

    assert {line.speaker for line in lines} == {"S1", "S2"}
    for line in lines:
        middle = (line.start_ms + line.end_ms) // 2
        nearest = min(TURNS, key=lambda turn: max(turn[0] - middle, middle - turn[1], 0))
        assert line.speaker == nearest[2]


def test_a_scrap_at_the_edge_of_a_turn_stays_with_its_sentence() -> None:
    one = segment((100, 900, "This"), (950, 1_900, "is"), (1_950, 2_250, "it."), (3_000, 3_900, "Good."))

    assert told(assign([one], TURNS)) == [("S1", "This is it."), ("S2", "Good.")]


def test_a_short_answer_between_pauses_is_the_other_speakers() -> None:
    turns = [(0, 2_000, "S1"), (2_300, 2_700, "S2"), (3_200, 5_000, "S1")]
    one = segment((100, 1_900, "Ready?"), (2_350, 2_650, "Yes."), (3_300, 4_900, "Good."))

    assert told(assign([one], turns)) == [("S1", "Ready?"), ("S2", "Yes."), ("S1", "Good.")]


def test_a_word_outside_all_turns_goes_to_the_nearest() -> None:
    found = assign(
        [segment((4_200, 4_900, "late")), segment((5_500, 5_800, "early")), segment((9_000, 9_900, "end"))], TURNS
    )

    assert [s.speaker for s in found] == ["S2", "S1", "S1"]


def test_a_cue_without_words_is_its_main_speakers() -> None:
    assert told(assign([Segment(1_500, 3_500, "Hello.")], TURNS)) == [("S2", "Hello.")]


def test_names_somebody_gave_win_over_turns() -> None:
    cues = [Segment(0, 1_000, "Hello.", speaker="ANNA"), Segment(2_500, 3_000, "Hi.")]

    assert assign(cues, TURNS) == cues


def test_without_turns_nothing_changes() -> None:
    cues = [segment((0, 900, "Hello."))]

    assert assign(cues, []) == cues


words = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 900)), min_size=1, max_size=20)
some_turns = st.lists(
    st.tuples(st.integers(0, 20_000), st.integers(1, 8_000), st.sampled_from(["S1", "S2", "S3"])),
    min_size=1,
    max_size=8,
)


@given(words, some_turns)
def test_no_word_is_lost_or_doubled_and_all_speakers_are_known(
    gaps: list[tuple[int, int]], rows: list[tuple[int, int, str]]
) -> None:
    turns = [(start, start + length, label) for start, length, label in rows]
    at, spoken = 0, []
    for gap, length in gaps:
        spoken.append((at + gap, at + gap + length, f"w{len(spoken)}"))
        at += gap + length
    one = segment(*spoken)

    found = assign([one], turns)

    assert [word for part in found for word in part.words] == list(one.words)
    assert {part.speaker for part in found} <= {label for *_, label in turns}
    assert all(a.speaker != b.speaker for a, b in zip(found, found[1:], strict=False))
    assert all(part.start_ms == part.words[0].start_ms and part.end_ms == part.words[-1].end_ms for part in found)
    for part, following in zip(found, found[1:], strict=False):
        if part.end_ms - part.start_ms < SCRAP_MS:
            assert following.start_ms - part.end_ms >= 300


@given(words, some_turns)
def test_a_word_inside_one_turn_alone_is_that_speakers(
    gaps: list[tuple[int, int]], rows: list[tuple[int, int, str]]
) -> None:
    turns = [(start, start + length, label) for start, length, label in rows]
    at = 0
    for gap, length in gaps:
        start, at = at + gap, at + gap + length
        owners = {label for low, high, label in turns if low < at and high > start}
        [found] = assign([segment((start, at, "word"))], turns)
        if owners:
            assert found.speaker in owners
        else:
            distance = {
                label: min(max(low - at, start - high) for low, high, who in turns if who == label)
                for *_, label in turns
            }
            assert distance[found.speaker or ""] == min(distance.values())


async def _batches(batches: list[list[Segment]], heard: list[int]) -> AsyncIterator[list[Segment]]:
    for batch in batches:
        heard.append(len(heard))
        yield batch
        await asyncio.sleep(0)


def test_words_are_recognised_while_the_turns_are_still_unknown() -> None:
    async def scenario() -> tuple[list[int], list[tuple[str | None, str]]]:
        heard: list[int] = []
        gate = asyncio.Event()

        async def turns() -> list[Turn]:
            await gate.wait()
            return TURNS

        batches = [[segment((i * 2_000, i * 2_000 + 1_900, f"w{i}"))] for i in range(4)]
        known = asyncio.ensure_future(turns())
        found: list[Segment] = []

        async def read() -> None:
            async for batch in told_apart(_batches(batches, heard), known):
                found.extend(batch)

        reading = asyncio.ensure_future(read())
        while len(heard) < 4:
            await asyncio.sleep(0)
        before = list(found)
        gate.set()
        await reading
        assert before == [], "no line is told before its speaker is known"
        return heard, told(found)

    heard, found = asyncio.run(scenario())
    assert heard == [0, 1, 2, 3]
    assert found == [("S1", "w0"), ("S2", "w1"), ("S2", "w2"), ("S1", "w3")]


def test_what_goes_wrong_with_the_words_does_not_wait_for_the_turns() -> None:
    async def broken() -> AsyncIterator[list[Segment]]:
        raise ValueError("no words")
        yield []

    async def scenario() -> None:
        never: asyncio.Task[list[Turn]] = asyncio.ensure_future(asyncio.Event().wait())  # type: ignore[arg-type]
        try:
            async for _ in told_apart(broken(), never):
                pass
        finally:
            never.cancel()

    with pytest.raises(ValueError, match="no words"):
        asyncio.run(asyncio.wait_for(scenario(), 10))


def test_what_goes_wrong_with_the_turns_ends_the_listening() -> None:
    async def endless() -> AsyncIterator[list[Segment]]:
        while True:
            await asyncio.sleep(0)
            yield []

    async def scenario() -> None:
        async def turns() -> list[Turn]:
            await asyncio.sleep(0)
            raise ValueError("no turns")

        async for _ in told_apart(endless(), asyncio.ensure_future(turns())):
            pass

    with pytest.raises(ValueError, match="no turns"):
        asyncio.run(asyncio.wait_for(scenario(), 10))
