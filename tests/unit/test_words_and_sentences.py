from __future__ import annotations

import pytest

from dubbing.engines.pronounce import letter_to_sound, spoken_words
from dubbing.engines.sentences import finish, split


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("Well-known,", "well known"),
        ("don\u2019t", "don't"),
        ("—", ""),
        ("café", "cafe"),
        ("3.5", "three point five"),
        ("1,234", "one thousand two hundred thirty four"),
        ("1984", "nineteen eighty four"),
        ("1905", "nineteen oh five"),
        ("1900", "nineteen hundred"),
        ("2005", "two thousand five"),
        ("2024", "twenty twenty four"),
        ("100%", "one hundred percent"),
        ("0", "zero"),
        ("$20", "dollars twenty"),
        ("12345678901234", "one two three four five six seven eight nine zero one two three four"),
        ("привет", ""),
    ],
)
def test_a_written_token_becomes_the_words_that_are_said(token: str, words: str) -> None:
    assert " ".join(spoken_words(token)) == words


@pytest.mark.parametrize(
    ("word", "sounds"),
    [("churl", "CH ER L"), ("glutton", "G L AH T AA N"), ("make", "M AE K"), ("ship's", "SH IH P S")],
)
def test_a_word_that_no_dictionary_has_gets_sounds_from_its_spelling(word: str, sounds: str) -> None:
    assert " ".join(letter_to_sound(word)) == sounds


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three?", ["One", "Two", "Three"]),
        ("Mr. Smith is here. He waits.", ["Mr. Smith is here", "He waits"]),
        ("J. R. Tolkien wrote it.", ["J. R. Tolkien wrote it"]),
        ("It costs 3.50 now.", ["It costs 3.50 now"]),
        ("Wait... what?", ["Wait... what"]),
        ("in 5 min. maybe", ["in 5 min. maybe"]),
        ("“Stop!” he said.", ["Stop", "he said"]),
        ("I AM HERE", ["I am here"]),
        ("So am I. You too.", ["So am I", "You too"]),
        ("USA", ["USA"]),
        ("", []),
    ],
)
def test_a_line_is_parted_into_sentences(text: str, parts: list[str]) -> None:
    assert [sentence.text for sentence in split(text)] == parts


@pytest.mark.parametrize("text", ["One. Two!", "- Yes, no... “Well?”", "Really?! (No.)", "♪ la ♪", "a\u2026 b"])
def test_sentences_that_are_not_changed_come_back_as_they_were(text: str) -> None:
    assert finish(split(text), "en") == text


def test_spanish_opens_its_questions_once() -> None:
    assert finish(split("Where? Here! Who?!"), "es") == "¿Where? ¡Here! ¿¡Who?!"
    assert finish(split("¿Where?"), "es") == "¿Where?"
    assert finish(split("¿Where?"), "en") == "Where?"


def test_the_space_before_a_french_question_mark_stays_in_french() -> None:
    assert finish(split("Où est-il ? Ici.", "fr"), "es") == "¿Où est-il? Ici."
    assert finish(split("Où est-il ? Ici.", "fr"), "fr") == "Où est-il ? Ici."
