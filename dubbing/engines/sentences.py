"""Sentences of a line: parted for an engine that sees one at a time, and put together again as they were written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_END = re.compile(r"""(?P<end>[.!?…]+["'”\u2019»)\]]*)(?P<glue>\s+)(?=["'“\u2018«(\[¿¡-]*\s*[^\W_])""")
_TAIL = re.compile(r"""(?P<core>.*?)(?P<end>[.!?…:;,]*["'”\u2019»)\]]*[^\w]*)$""", re.DOTALL)
_LEAD = re.compile(r"[^\w]*")
_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "etc", "e.g", "i.e", "no", "vol", "fig", "approx"]
)
OPENED = frozenset({"es", "ast"})
"""Languages that open questions and exclamations."""
_NOT_OPENED = str.maketrans("", "", "¿¡")
_FRENCH_SPACE = re.compile(r"^\s+(?=[?!:;])")
_SHOUT = 0.8
"""Share of capitals among the letters from which a sentence counts as shouted."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence without what surrounds it."""

    text: str
    """The words with their inner punctuation, one line, in sentence case."""
    lead: str = ""
    """Quotes, dashes and such before the first word."""
    end: str = ""
    """Punctuation after the last word."""
    glue: str = ""
    """White space up to the next sentence."""
    capital: bool = False
    """True when it begins with a capital."""

    def with_text(self, text: str) -> Sentence:
        """The same sentence with other words; the first letter follows the original."""
        text = text.strip()
        if self.capital:
            text = text[:1].upper() + text[1:]
        elif text[1:2].islower() and self.text[:1].islower():
            text = text[:1].lower() + text[1:]
        return replace(self, text=text)


def split(text: str, source: str = "en") -> list[Sentence]:
    """Part a text into sentences; initials and common abbreviations do not end one."""
    pieces, start = [], 0
    for found in _END.finditer(text):
        word = text[start : found.start()].rsplit(maxsplit=1)[-1:] or [""]
        bare = word[0].strip("\"'“\u2018«([").lower()
        if found["end"][0] in ".…" and text[found.end() :].lstrip("\"'“\u2018«(")[:1].islower():
            continue
        if found["end"] == "." and (bare in _ABBREVIATIONS or (len(bare) == 1 and bare.isalpha() and bare != "i")):
            continue
        pieces.append((text[start : found.start("glue")], found["glue"]))
        start = found.end()
    pieces.append((text[start:], ""))
    return [_sentence(piece, glue, source) for piece, glue in pieces if piece.strip()]


def finish(sentences: Sequence[Sentence], target: str) -> str:
    """Put sentences together; in Spanish and Asturian questions and exclamations get their opening mark."""
    parts = []
    for s in sentences:
        lead = s.lead + _opening(s) if target in OPENED else s.lead.translate(_NOT_OPENED)
        end = s.end if target == "fr" else _FRENCH_SPACE.sub("", s.end)
        parts += [lead, s.text, end, s.glue]
    return "".join(parts).strip()


def _sentence(piece: str, glue: str, source: str) -> Sentence:
    piece = piece.strip()
    lead = _LEAD.match(piece)
    start = lead.end() if lead else 0
    tail = _TAIL.match(piece[start:])
    core, end = (tail["core"], tail["end"]) if tail else (piece[start:], "")
    core = re.sub(r"\s+", " ", core)
    letters = [c for c in core if c.isalpha()]
    capital = bool(core) and core[0].isupper()
    if len(core.split()) > 1 and sum(c.isupper() for c in letters) > _SHOUT * len(letters) and len(letters) > 4:
        core = _sentence_case(core, source)
    return Sentence(core, piece[:start], end, glue, capital)


def _sentence_case(text: str, source: str) -> str:
    text = text.lower()
    if source.startswith("en"):
        text = re.sub(r"\bi\b", "I", text)
    return text[0].upper() + text[1:]


def _opening(sentence: Sentence) -> str:
    asked, shouted = "?" in sentence.end, "!" in sentence.end
    return ("¿" if asked and "¿" not in sentence.lead else "") + ("¡" if shouted and "¡" not in sentence.lead else "")
