"""Draft translation: apertium's rules, kept running, one pipeline per step, through a third language where needed.

Apertium is GPL: its programs are run, never linked. NUL parts the lines, the only barrier its programs respect.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import zlib
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dubbing.engines import probing
from dubbing.engines.base import EngineInfo, EngineSpec, Languages, Located, TranslateItem, Translation
from dubbing.engines.programs import Pipeline, run_once
from dubbing.engines.sentences import Sentence, finish, split
from dubbing.errors import EngineBrokenError, EngineError, LanguageError

PROGRAM = "apertium"
INSTALL = "apt-get install -y --no-install-recommends apertium apertium-eng-spa"
MODES = Path("/usr/share/apertium/modes")
TIMEOUT_S = 20.0
PROBE = "radio"

_CODES = dict(
    re.findall(
        r"(\w+):(\w+)",
        "eng:en spa:es cat:ca por:pt fra:fr ita:it oci:oc arg:an ast:ast glg:gl epo:eo eus:eu ron:ro isl:is mkd:mk "
        "hbs:sh srd:sc deu:de nld:nl swe:sv dan:da nob:nb nno:nn bul:bg afr:af cym:cy bre:br gle:ga hin:hi urd:ur "
        "rus:ru ukr:uk bel:be pol:pl ces:cs slv:sl",
    )
)
"""ISO 639-3 as mode names have it -> BCP-47; two-letter names are themselves."""
_ESCAPED = re.compile(r"([\\^$@<>{}\[\]/])")

log = logging.getLogger(__name__)

Route = tuple[Path, ...]


class ApertiumEngine:
    """Persistent pipelines, started when a pair is first asked for."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options`: `modes` (folder of `.mode` files), `timeout_s` (longest wait for one line), `pairs` to start now."""
        self._modes = Path(options.get("modes", MODES))
        self._timeout_s = float(options.get("timeout_s", TIMEOUT_S))
        self._pipelines: dict[Path, Pipeline] = {}
        self._routes = _routes(self._modes)
        self.info = EngineInfo(
            name="apertium",
            kind="translate",
            version=_version(self._modes),
            licence="GPL-2.0-or-later",
            weights_licence="GPL-2.0-or-later",
            max_batch=32,
            note="A draft translator by rules: readable, often clumsy.",
        )
        for source, target in options.get("pairs", ()):
            for mode in self._routes.get((primary(source), primary(target)), ()):
                self._pipeline(mode)

    def run(self, items: Sequence[TranslateItem]) -> list[Translation]:
        """Translate lines. Raises LanguageError without a route, EngineError when a pipeline fails twice."""
        return [Translation(self._translate(item)) for item in items]

    def bucket(self, item: TranslateItem) -> Hashable:
        """One language pair per batch."""
        return primary(item.source), primary(item.target)

    def probe(self) -> None:
        """Send a word through each pipeline that runs, the first of all if none does yet. Raises EngineBrokenError."""
        with probing.probing(self.info.name):
            for mode in list(self._pipelines) or [route[0] for route in list(self._routes.values())[:1]]:
                if not self._step(mode, PROBE):
                    raise EngineBrokenError(name=self.info.name, detail=f"{mode.stem} makes nothing of a word")

    def close(self) -> None:
        """End all pipelines; calling twice is fine."""
        while self._pipelines:
            self._pipelines.popitem()[1].close()

    def _translate(self, item: TranslateItem) -> str:
        pair = primary(item.source), primary(item.target)
        if pair not in self._routes:
            raise LanguageError(detail=f"apertium has no route from {item.source} to {item.target} here")
        sentences = split(item.text, pair[0])
        return finish([self._sentence(sentence, pair) for sentence in sentences], pair[1])

    def _sentence(self, sentence: Sentence, pair: tuple[str, str]) -> Sentence:
        text = sentence.text
        if not any(character.isalpha() for character in text):
            return sentence
        for mode in self._routes[pair]:
            text = self._step(mode, text)
        return sentence.with_text(text)

    def _step(self, mode: Path, text: str) -> str:
        # A full stop gives the tagger its sentence; lt-proc misses a NUL right after a word, hence the line feed.
        request = _ESCAPED.sub(r"\\\1", text.replace("\0", " ")).encode() + b".\n\0"
        try:
            answer = self._ask(mode, request)
        except EngineError as error:
            log.warning("%s; starting it once more", error.message)
            answer = self._ask(mode, request)
        return _clean(answer.decode(errors="replace"))

    def _ask(self, mode: Path, request: bytes) -> bytes:
        pipeline = self._pipeline(mode)
        try:
            return pipeline.ask(request, b"\0", self._timeout_s)
        except EngineError:
            self._pipelines.pop(mode).close()
            raise

    def _pipeline(self, mode: Path) -> Pipeline:
        if mode not in self._pipelines:
            self._pipelines[mode] = Pipeline("apertium", _commands(mode))
        return self._pipelines[mode]


def primary(tag: str) -> str:
    """The primary language of a BCP-47 tag in lower case."""
    return tag.replace("_", "-").split("-", maxsplit=1)[0].lower()


def _clean(text: str) -> str:
    """Drop the escapes, and the full stop that was lent."""
    return re.sub(r"\s+", " ", re.sub(r"\s*\.\s*$", "", re.sub(r"\\(.)", r"\1", text))).strip()


def _commands(mode: Path) -> list[list[str]]:
    """The programs of a mode with NUL flushing; `$1` is the generator's option (-n leaves unknown words unmarked)."""
    commands = []
    for part in mode.read_text().strip().split("|"):
        program, *arguments = shlex.split(part.replace("$1", "-n").replace("$2", ""))
        commands.append([program, "-z", *arguments])
    return commands


@lru_cache(maxsize=4)
def _modes(folder: Path) -> dict[tuple[str, str], Path]:
    """Installed modes by language pair; regional ones (`spa-eng_US`) give way to the plain one."""
    modes: dict[tuple[str, str], Path] = {}
    for file in sorted(folder.glob("*.mode"), key=lambda f: ("_" in f.stem, f.stem)):
        codes = file.stem.split("_", maxsplit=1)[0].split("-")
        if len(codes) == 2 and all(code.isalpha() for code in codes):
            modes.setdefault((_CODES.get(codes[0], codes[0]), _CODES.get(codes[1], codes[1])), file)
    return modes


def _routes(folder: Path) -> dict[tuple[str, str], Route]:
    """The modes to run for each pair: one, or two through a third language (Spanish first, the best-tended hub)."""
    modes = _modes(folder)
    routes: dict[tuple[str, str], Route] = {pair: (file,) for pair, file in modes.items()}
    hubs = sorted({b for _, b in modes}, key=lambda code: (code != "es", code != "ca", code))
    for hub in hubs:
        for (a, b), first in modes.items():
            for (c, d), second in modes.items():
                if b == c == hub and a != d:
                    routes.setdefault((a, d), (first, second))
    return routes


def _version(folder: Path) -> str:
    """The version of lttoolbox and a fingerprint of the installed modes and their data: what decides a translation."""
    found = re.search(r"\d+(\.\d+)+", run_once("apertium", ["lt-proc", "--version"], "", TIMEOUT_S).decode())
    data = [Path(word) for mode in _modes(folder).values() for word in shlex.split(mode.read_text()) if word[0] == "/"]
    sizes = sorted({(file.name, file.stat().st_size) for file in data if file.is_file()})
    return f"{found.group() if found else 'unknown'}+{zlib.crc32(repr(sizes).encode()):08x}"


def _locate() -> Located:
    if shutil.which(PROGRAM) is None or shutil.which("lt-proc") is None:
        return Located(False, "the program apertium is not installed", INSTALL)
    if not _modes(MODES):
        return Located(False, "apertium has no language pair installed", INSTALL)
    return Located(True)


TRANSLATE = EngineSpec(
    name="apertium",
    kind="translate",
    quality="draft",
    summary="Translation by rules between the installed pairs, 4 ms a sentence, no downloads.",
    licence="GPL-2.0-or-later",
    commercial_use=True,
    locate=_locate,
    languages=lambda: Languages(frozenset(_routes(MODES))),
    load=ApertiumEngine,
)
