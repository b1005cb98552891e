"""A user's glossary: how terms are to be translated, and which stay as they are."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from dubbing.errors import EmptyFileError, FileMissingError, GlossaryError

MAX_BYTES = 1 << 20
MAX_TERMS = 5000
MAX_CHARS = 100
"""Of a term: a glossary holds words and names, not sentences."""
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF))
"""Scripts that put no space between words: Thai, Lao, Burmese, Khmer, Han, kana, and Hangul with its particles."""

Terms = tuple[tuple[str, str], ...]
"""(source term, target term); equal ones are kept as they are."""


def read(path: Path) -> Terms:
    """Terms of a CSV or TSV file: `source,target` a line, or a term alone that is kept; `#` begins a comment.

    Raises FileMissingError, EmptyFileError or GlossaryError.
    """
    if not path.is_file():
        raise FileMissingError(name=str(path))
    if path.stat().st_size > MAX_BYTES:
        raise GlossaryError(name=path.name, detail="it is larger than 1 MiB")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise GlossaryError(name=path.name, detail="it is not UTF-8 text") from error
    found: dict[str, str] = {}
    for number, cells in _rows(path, lines):
        source, target = (*cells, cells[0])[:2]
        if len(cells) > 2 or not source or max(map(len, (source, target))) > MAX_CHARS:
            raise GlossaryError(name=path.name, detail=f"line {number} is not `source,target` or one term alone")
        if found.setdefault(source, target) != target:
            raise GlossaryError(name=path.name, detail=f"line {number} translates {source!r} a second time, otherwise")
    if not found:
        raise EmptyFileError(name=path.name)
    if len(found) > MAX_TERMS:
        raise GlossaryError(name=path.name, detail=f"it has more than {MAX_TERMS} terms")
    return tuple(found.items())


def occurring(terms: Terms, text: str) -> Terms:
    """The terms that stand in a text as words of their own, whatever their case."""
    folded = text.casefold()
    return tuple(term for term in terms if _stands(term[0].casefold(), folded))


def unmet(terms: Iterable[tuple[str, str]], translated: str) -> list[str]:
    """Target terms that a translation lacks, whatever their case; endings may follow."""
    folded = translated.casefold()
    return [target for _, target in terms if target.casefold() not in folded]


def _rows(path: Path, lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    first = next((line for line in lines if line.strip()), "")
    delimiter = "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","
    try:
        for number, row in enumerate(csv.reader(lines, delimiter=delimiter, strict=True), 1):
            cells = [" ".join(cell.split()) for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            header = number == 1 and [cell.casefold() for cell in cells] == ["source", "target"]
            if cells and not cells[0].startswith("#") and not header:
                yield number, cells
    except csv.Error as error:
        raise GlossaryError(name=path.name, detail=str(error)) from error


def _stands(term: str, text: str) -> bool:
    at = text.find(term)
    while at >= 0:
        end = at + len(term)
        if not (_joined(text[at - 1 : at], term[:1]) or _joined(term[-1:], text[end : end + 1])):
            return True
        at = text.find(term, at + 1)
    return False


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word."""
    return left.isalnum() and right.isalnum() and not (_unspaced(left) or _unspaced(right))


def _unspaced(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _UNSPACED)
