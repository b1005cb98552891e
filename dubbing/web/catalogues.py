"""The language of the pages: English is what the code says, gettext catalogues (`locale/TAG.po`) say the same in others.

The language is settled once for each request (interpreter.py); everything that is written while the request is answered,
in threads too, follows it. Outside of requests it is English.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

from babel import Locale
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

from dubbing.languages import native_name

FOLDER = Path(__file__).parent / "locale"
SOURCE = "en"
"""The language of the code."""
LANGUAGES = {tag: native_name(tag) for tag in (SOURCE, *sorted(path.stem for path in FOLDER.glob("*.po")))}
"""Every language of the pages by its BCP-47 tag, as its speakers call it."""
FACT = "fact"
"""Context of what is filled into sentences of errors."""
_language: ContextVar[str] = ContextVar("language", default=SOURCE)


@cache
def catalogue(tag: str) -> NullTranslations:
    """The catalogue of one of LANGUAGES."""
    if tag == SOURCE:
        return NullTranslations()
    compiled = io.BytesIO()
    write_mo(compiled, _read(tag))
    compiled.seek(0)
    return GNUTranslations(compiled)


@cache
def facts(tag: str) -> tuple[str, ...]:
    """The messages of a catalogue in the context FACT that have places, as `job {job_id}` has."""
    if tag == SOURCE:
        return ()
    return tuple(str(one.id) for one in _read(tag) if one.context == FACT and "{" in str(one.id))


@cache
def _read(tag: str) -> Catalog:
    with (FOLDER / f"{tag}.po").open("rb") as file:
        return read_po(file, locale=Locale.parse(tag, sep="-"))


def language() -> str:
    """The tag of the language that is answered in now."""
    return _language.get()


def gettext(message: str) -> str:
    """A sentence in the language of the request."""
    return catalogue(language()).gettext(message)


def ngettext(one: str, many: str, count: int) -> str:
    """A sentence about `count` things in the language of the request."""
    return catalogue(language()).ngettext(one, many, count)


def pgettext(context: str, message: str) -> str:
    """A word that means several things, in the language of the request."""
    return catalogue(language()).pgettext(context, message)


def noop(message: str) -> str:
    """Marks a sentence for the catalogues that is translated later, when it is written."""
    return message


def decimal(value: float, digits: int = 0) -> str:
    """A number with so many places behind the point of the language, and a true minus sign."""
    shown: str = format_decimal(round(value, digits), "0." + "0" * digits, Locale.parse(language(), sep="-"))
    return shown.replace("-", "−")


class Words(Mapping[str, str]):
    """Sentences by name, each marked by `noop`; reading one gives it in the language of the request."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words

    def __getitem__(self, name: str) -> str:
        return gettext(self._words[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)


@contextmanager
def speaking(tag: str) -> Iterator[None]:
    """Write in one of LANGUAGES while the block lasts."""
    before = _language.set(tag)
    try:
        yield
    finally:
        _language.reset(before)
