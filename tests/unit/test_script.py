"""script: words and cues become lines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dubbing.stages.script import MAX_MS, script, verbatim
from dubbing.types import Segment, Word


def words(text: str, start: int = 0, length: int = 300, gap: int = 50) -> list[Word]:
    found, at = [], start
    for word in text.split():
        found.append(Word(at, at + length, word, 0.9))
        at += length + gap
    return found


def segment(parts: list[Word], speaker: str | None = None) -> Segment:
    return Segment(parts[0].start_ms, parts[-1].end_ms, " ".join(w.text for w in parts), tuple(parts), speaker, 0.9)


def test_a_pause_parts_lines() -> None:
    first = words("we begin the first thought here")
    second = words("and another thought after a pause", start=first[-1].end_ms + 700)

    lines = script([segment([*first, *second])])

    assert [line.text for line in lines] == ["We begin the first thought here", "And another thought after a pause"]


def test_sentences_end_lines_once_they_are_long_enough() -> None:
    lines = script([segment(words("Yes. This is the first whole sentence. And here the second one begins, too."))])

    assert [line.text for line in lines] == [
        "Yes. This is the first whole sentence.",
        "And here the second one begins, too.",
    ]


def test_words_of_scripts_without_spaces_are_joined_without_spaces() -> None:
    chinese, mixed = words("你好 ， 世界 。"), words("我 用 Python 写 。", start=5000)

    lines = script([segment(chinese), segment(mixed)])

    assert [line.text for line in lines] == ["你好，世界。", "我用 Python 写。"]


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 900)), min_size=1, max_size=80))
@settings(deadline=None)
def test_every_word_is_kept_once_and_in_order(times: list[tuple[int, int]]) -> None:
    parts, at = [], 0
    for i, (length, gap) in enumerate(times):
        parts.append(Word(at, at + length, f"w{i}"))
        at += length + gap

    lines = script([segment(parts)])

    assert " ".join(line.text for line in lines).lower().split() == [w.text for w in parts]
    assert all(line.end_ms - line.start_ms <= MAX_MS for line in lines)
    assert [line.index for line in lines] == list(range(len(lines)))


def test_speakers_are_never_joined() -> None:
    lines = script([Segment(0, 800, "and then", speaker="ANN"), Segment(850, 1700, "he said", speaker="BOB")])

    assert [(line.speaker, line.text) for line in lines] == [("ANN", "and then"), ("BOB", "he said")]


def test_cues_that_break_a_sentence_are_joined() -> None:
    lines = script([Segment(0, 2000, "I am from Barcelona"), Segment(2100, 4000, "and I love this city.")])

    assert [line.text for line in lines] == ["I am from Barcelona and I love this city."]


def test_finished_cues_stay_as_they_are() -> None:
    cues = [Segment(0, 2000, "Good morning."), Segment(2100, 4000, "My name is Jordi.")]

    assert [(line.start_ms, line.text) for line in script(cues)] == [(0, "Good morning."), (2100, "My name is Jordi.")]


def test_a_long_cue_is_parted_between_its_sentences() -> None:
    lines = script([Segment(0, 12_000, "One thing is said here. Then another thing is said there.")])

    assert len(lines) == 2
    assert lines[0].end_ms == lines[1].start_ms and lines[1].end_ms == 12_000


def test_a_given_translation_is_taken_cue_by_cue() -> None:
    cues = [Segment(0, 500, "uno"), Segment(510, 900, "dos"), Segment(900, 950, " ")]

    assert [line.text for line in verbatim(cues)] == ["uno", "dos"]


def test_numbering_goes_on_from_earlier_chunks() -> None:
    assert script([Segment(0, 2000, "Hello there.")], first_index=7)[0].index == 7
