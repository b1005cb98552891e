"""How many people speak: clusters become people by rules that never invent one."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dubbing.engines.speakers import MIN_SPEECH_MS, SAME_VOICE, Speech, named, settle

ANNA, BEN, CARL = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
LIKE_ANNA = [0.9, 0.3, 0.0]


@pytest.mark.parametrize(
    ("speech_ms", "prints", "most", "people"),
    [
        ([60_000], [ANNA], None, [0]),
        ([60_000, 40_000], [ANNA, BEN], None, [0, 1]),
        ([60_000, 40_000], [ANNA, LIKE_ANNA], None, [0, 0]),
        ([60_000, 40_000, 5_900], [ANNA, BEN, CARL], None, [0, 1, 0]),
        ([40_000, 60_000, 3_000], [ANNA, BEN, LIKE_ANNA], None, [0, 1, 0]),
        ([20_000, 60_000, 30_000], [ANNA, BEN, LIKE_ANNA], None, [2, 1, 2]),
        ([60_000, 40_000, 30_000], [ANNA, BEN, CARL], 2, [0, 1, 1]),
        ([60_000, 40_000], [ANNA, BEN], 1, [0, 0]),
        ([60_000, 40_000], [ANNA, BEN], 5, [0, 1]),
        ([2_500, 2_500], [ANNA, BEN], None, [0, 1]),
        ([4_000, 1_500], [ANNA, BEN], None, [0, 0]),
        ([10_000, 8_000], [[0.0] * 3, [0.0] * 3], None, [0, 1]),
        ([10_000, 1_000], [ANNA, [float("nan")] * 3], None, [0, 0]),
    ],
    ids=[
        "one is fine",
        "two voices are two people",
        "voices that sound alike are one person",
        "too little speech is nobody new",
        "too little speech goes to the nearest voice",
        "who speaks more stands for both",
        "no more than were announced",
        "one was announced",
        "fewer than announced is fine",
        "a short recording needs less",
        "but never next to nothing",
        "without voice prints nothing is alike",
        "a broken voice print is none",
    ],
)
def test_clusters_become_people(
    speech_ms: list[int], prints: list[list[float]], most: int | None, people: list[int]
) -> None:
    found = settle(speech_ms, np.array(prints), most)
    if most == 2:
        assert len(set(found)) == 2
    else:
        assert found == people


def clusters() -> st.SearchStrategy[tuple[list[int], np.ndarray]]:
    def with_prints(speech: list[int]) -> st.SearchStrategy[tuple[list[int], np.ndarray]]:
        numbers = st.floats(-1, 1, width=32) | st.just(float("nan"))
        return st.tuples(st.just(speech), arrays.arrays(np.float32, (len(speech), 3), elements=numbers))

    return st.lists(st.integers(0, 120_000), min_size=1, max_size=7).flatmap(with_prints)


@given(clusters(), st.none() | st.integers(1, 4))
def test_nobody_is_invented(found: tuple[list[int], np.ndarray], most: int | None) -> None:
    speech, prints = found
    people = settle(speech, prints, most)

    heads = set(people)
    assert all(people[head] == head for head in heads), "who stands for a person is one of that person's clusters"
    assert most is None or len(heads) <= most
    spoken = {head: sum(ms for ms, person in zip(speech, people, strict=True) if person == head) for head in heads}
    if len(heads) > 1 and sum(speech) >= 4 * MIN_SPEECH_MS:
        assert min(spoken.values()) >= MIN_SPEECH_MS
    if len(heads) == len(speech) > 1:
        known = np.nan_to_num(prints.astype(np.float64))
        lengths = np.linalg.norm(known, axis=1, keepdims=True)
        unit = known / np.where(lengths > 0, lengths, 1)
        likeness = unit @ unit.T - 2 * np.eye(len(speech))
        assert likeness.max() < SAME_VOICE + 1e-9


@given(clusters())
def test_the_order_of_the_clusters_does_not_matter(found: tuple[list[int], np.ndarray]) -> None:
    speech, prints = found
    if len({*speech}) < len(speech):
        return  # among equals the first is taken
    forwards = settle(speech, prints)
    backwards = settle(speech[::-1], prints[::-1])[::-1]

    assert len(set(forwards)) == len(set(backwards))


def test_labels_follow_the_order_of_appearance_and_close_turns_are_one() -> None:
    turns = named([(9_000, 9_500, 4), (0, 1_000, 7), (1_200, 3_000, 7), (4_000, 4_000, 9), (3_100, 8_000, 4)])

    assert turns.turns == ((0, 3_000, "S1"), (3_100, 8_000, "S2"), (9_000, 9_500, "S2"))


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 2_000), st.integers(0, 3)), max_size=12))
def test_turns_are_in_order_and_cover_what_was_given(rows: list[tuple[int, int, int]]) -> None:
    given_turns = [(start, start + length, person) for start, length, person in rows]
    found = named(given_turns).turns

    assert [start for start, _, _ in found] == sorted(start for start, _, _ in found)
    first_seen = list(dict.fromkeys(label for _, _, label in found))
    assert first_seen == [f"S{i + 1}" for i in range(len(first_seen))]
    for start, end, _ in given_turns:
        if end > start:
            assert any(low <= start and end <= high for low, high, _ in found)


def test_speech_alone_finds_its_way_back_to_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "none"))
        file.writeframes(np.arange(16_000 * 3, dtype="<i2").tobytes())

    speech = Speech(path, [(500, 1_000), (2_000, 2_500), (2_900, 9_000)])

    assert len(speech.audio) == 16 * (500 + 500 + 500 + 500 + 100 + 500)
    assert speech.audio[0] == 8_000
    assert speech.back(0.1, 0.4) == [(600, 900)]
    assert speech.back(0.4, 1.2) == [(900, 1_000), (2_000, 2_200)]
    assert speech.back(0.6, 0.9) == [], "a pause is nobody's"
    assert speech.back(1.9, 5.0) == [(2_900, 3_000)]
