"""What is wrong with a translation, as far as that can be seen without knowing the languages."""

from __future__ import annotations

import unicodedata

_SCRIPTS = {
    "CYRILLIC": ("ru", "uk", "bg", "mk", "be", "kk", "ky", "mn"),
    "GREEK": ("el",),
    "ARABIC": ("ar", "fa", "ur"),
    "HEBREW": ("he", "yi"),
    "DEVANAGARI": ("hi", "mr", "ne"),
    "HANGUL": ("ko",),
    "CJK": ("zh",),
    "THAI": ("th",),
}
_SCRIPT_OF = {language: script for script, languages in _SCRIPTS.items() for language in languages}


def check(text: str, translated: str, source: str, target: str) -> list[str]:
    """`empty`, `echo`, `too_long`, `wrong_script`: what is wrong with `translated`; nothing, mostly."""
    ours, theirs = translated.strip(), text.strip()
    if not any(c.isalnum() for c in ours):
        return ["empty"] if any(c.isalnum() for c in theirs) else []
    problems = []
    same = source.split("-", maxsplit=1)[0] == target.split("-", maxsplit=1)[0]
    if not same and len(theirs.split()) > 3 and _plain(ours) == _plain(theirs):
        problems.append("echo")
    if len(ours) > 3 * len(theirs) + 40:
        problems.append("too_long")
    expected = _SCRIPT_OF.get(target.split("-", maxsplit=1)[0])
    letters = [c for c in ours if c.isalpha()]
    if expected and len(letters) > 3 and sum(expected in unicodedata.name(c, "") for c in letters) < len(letters) / 2:
        problems.append("wrong_script")
    return problems


def _plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
