"""translation_checks.check: what is wrong with a translation, seen without knowing the languages."""

from __future__ import annotations

import pytest

from dubbing.engines.translation_checks import check


@pytest.mark.parametrize(
    ("text", "translated", "source", "target", "problems"),
    [
        ("Good morning my friends", "Buenos días, amigos", "en", "es", []),
        ("Good morning my friends", "good morning, my friends!", "en", "es", ["echo"]),
        ("OK", "OK", "en", "es", []),
        ("Good morning", "  ", "en", "es", ["empty"]),
        ("...", "...", "en", "es", []),
        ("Hello", "blah " * 40, "en", "es", ["too_long"]),
        ("Good morning", "Dobroye utro", "en", "ru", ["wrong_script"]),
        ("Good morning", "Доброе утро", "en", "ru", []),
        ("Good morning", "おはよう、皆さん", "en", "ja", []),
        ("Read the colour of the lift now", "Read the colour of the lift now", "en-GB", "en-US", []),
    ],
)
def test_checks(text: str, translated: str, source: str, target: str, problems: list[str]) -> None:
    assert check(text, translated, source, target) == problems
