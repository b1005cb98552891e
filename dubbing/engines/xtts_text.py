"""Text as XTTS v2 can read it: languages, spelled digits, and pieces no longer than the model was trained on. No torch."""

from __future__ import annotations

import importlib.util
import re

LANGUAGES = frozenset(
    ["ar", "cs", "de", "en", "es", "fr", "hi", "hu", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh"]
)
"""BCP-47 primary languages of the published model."""
READERS = {"zh": "pypinyin", "ja": "cutlet"}
"""Language -> the module its text is read with, an optional part of coqui-tts."""
_HINDI_DIGITS = ("शून्य", "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ")
_HINDI = dict(zip("0123456789०१२३४५६७८९", _HINDI_DIGITS * 2, strict=True))
_BORDERS = (
    re.compile(r"""[.!?…।]["'”’»)\]]*\s+|[。！？][」』”]*"""),
    re.compile(r"""[,;:،—–]["'”’»)\]]*\s+|[、，；：]"""),
    re.compile(r"\s+"),
)
"""Where a text is parted: after sentences, else after clauses, else between words."""
_EDGE = 0.15
"""A piece shorter than this share of the text is not worth a border."""


def primary(tag: str) -> str:
    """The primary language of a BCP-47 tag, lower case."""
    return tag.replace("_", "-").partition("-")[0].lower()


def languages() -> frozenset[str]:
    """Primary languages that can be spoken with what is installed here."""
    return frozenset(tag for tag in LANGUAGES if tag not in READERS or importlib.util.find_spec(READERS[tag]))


def readable(text: str, language: str) -> str:
    """One line without control characters; in Hindi, whose numbers coqui-tts cannot spell, digits become words one by one."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    if primary(language) == "hi":
        text = re.sub(r"(?<=\d)[.,](?=\d)", " ", text)
        text = re.sub(r"\d", lambda digit: f" {_HINDI[digit[0]]} " if digit[0] in _HINDI else digit[0], text)
    return re.sub(r"\s+", " ", text).strip()


def pieces(text: str, limit: int) -> list[str]:
    """Parts of at most `limit` characters, parted near the middle at the best border there is."""
    text = text.strip()
    if len(text) <= limit:
        return [text] if text else []
    middle, edge = len(text) // 2, max(1, int(len(text) * _EDGE))
    cut = middle
    for border in _BORDERS:
        ends = [found.end() for found in border.finditer(text) if edge <= found.end() <= len(text) - edge]
        if ends:
            cut = min(ends, key=lambda end: abs(end - middle))
            break
    return [*pieces(text[:cut], limit), *pieces(text[cut:], limit)]
