"""Draft voices: espeak-ng, robotic, instant, with exact control of rate, in more than a hundred languages.

espeak-ng is GPL: it is run as a program. Text goes in by standard input, because a leading `-` would be an option.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dubbing.engines import probing
from dubbing.engines.base import EngineInfo, EngineSpec, Languages, Located, SpeakItem
from dubbing.engines.programs import run_once
from dubbing.errors import BadInputError, EngineError, LanguageError
from dubbing.types import Int16Audio, Speech, Voice

PROGRAM = "espeak-ng"
INSTALL = "apt-get install -y --no-install-recommends espeak-ng"
SAMPLE_RATE = 22_050
NATURAL_WPM = 175
"""espeak-ng's own default, which is what rate 1.0 means."""
RATE_RANGE = (0.8, 1.8)
VARIANTS = ("klatt", "f2", "m3", "klatt4", "f4", "")
"""Voice variants, the ones a recogniser understands best first; the plain voice last."""
GUARD_MS = 20
"""Silence left before and after the words."""
QUIET = 64
"""Samples below this are silence, about -54 dBFS; espeak's own pauses are digital zeros."""
WAV_HEADER = 44
TIMEOUT_S = 30.0
PROBE = SpeakItem("radio", "en", "en-us")

_SUBSTITUTES = {
    "zh": "cmn",
    "zh-yue": "yue",
    "zh-hk": "yue",
    "no": "nb",
    "nn": "nb",
    "es-mx": "es-419",
    "es-us": "es-419",
    "en": "en-us",
    "iw": "he",
    "in": "id",
}
_LATIN_AMERICA = frozenset(re.findall(r"\w+", "ar bo cl co cr cu do ec gt hn mx ni pa pe pr py sv us uy ve"))


@dataclass(frozen=True, slots=True)
class _Listed:
    language: str
    """espeak-ng's own code, lower case."""
    name: str


class EspeakEngine:
    """One espeak-ng process per line, two lines at a time."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options`: `threads` (2), lines spoken at the same time. Raises EngineError when the program does not run."""
        self.info = EngineInfo(
            name="espeak-ng",
            kind="speak",
            version=_version(),
            licence="GPL-3.0-or-later",
            rate_range=RATE_RANGE,
            max_batch=16,
            note="A robotic draft voice: good for checking a dub, not for showing it.",
        )
        self._threads = ThreadPoolExecutor(int(options.get("threads", 2)), thread_name_prefix="espeak")

    def run(self, items: Sequence[SpeakItem]) -> list[Speech]:
        """Speak each line. Raises BadInputError for text without words, LanguageError for no such voice."""
        return list(self._threads.map(_speak, items))

    def bucket(self, item: SpeakItem) -> Hashable:
        """Any mix will do: each line is a process of its own."""
        return None

    def probe(self) -> None:
        """Speak a word. Raises EngineBrokenError."""
        with probing.probing(self.info.name):
            _speak(PROBE)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown()


def voice_code(language: str) -> str:
    """espeak-ng's code for a BCP-47 tag: es -> es, es-MX -> es-419, zh -> cmn. Raises LanguageError."""
    code = _code(language)
    if code is None:
        raise LanguageError(detail=f"espeak-ng has no voice for {language}")
    return code


def voices(language: str) -> list[Voice]:
    """Voices for a language, the more intelligible first. Raises LanguageError when there is none."""
    code = voice_code(language)
    name = next(listed.name for listed in _listed() if listed.language == code)
    return [
        Voice(
            id=f"{code}+{variant}" if variant else code,
            engine="espeak-ng",
            language=language,
            name=f"{name} ({variant or 'plain'})",
            natural=False,
        )
        for variant in VARIANTS
    ]


def trim(audio: Int16Audio, sample_rate: int = SAMPLE_RATE) -> Int16Audio:
    """Cut silence at both ends down to 20 ms; empty when there is nothing but silence."""
    loud = np.flatnonzero(np.abs(audio.astype(np.int32)) > QUIET)
    if loud.size == 0:
        return audio[:0]
    guard = GUARD_MS * sample_rate // 1000
    return audio[max(int(loud[0]) - guard, 0) : int(loud[-1]) + 1 + guard]


def _code(language: str) -> str | None:
    known = {listed.language for listed in _listed()}
    tag = language.replace("_", "-").lower()
    primary, _, region = tag.partition("-")
    tries = [_SUBSTITUTES.get(tag, tag)]
    if primary == "es" and region in _LATIN_AMERICA:
        tries.append("es-419")
    tries += [_SUBSTITUTES.get(primary, primary), f"{primary}-{primary}"]
    return next((code for code in tries if code in known), None)


def _speak(item: SpeakItem) -> Speech:
    text = _harmless(item.text)
    if not any(character.isalnum() for character in text):
        raise BadInputError(name=repr(item.text), detail="there is no word in it to speak")
    rate = min(max(item.rate, RATE_RANGE[0]), RATE_RANGE[1])
    arguments = [PROGRAM, "-v", item.voice or voices(item.language)[0].id, "-s", str(round(NATURAL_WPM * rate))]
    try:
        wav = run_once("espeak-ng", [*arguments, "-b", "1", "--stdin", "--stdout"], text, TIMEOUT_S)
    except EngineError as error:
        if "voice does not exist" in str(error):
            raise LanguageError(detail=f"espeak-ng has no voice {item.voice}") from error
        raise
    samples = np.frombuffer(wav[WAV_HEADER : len(wav) - len(wav) % 2], np.int16)
    audio = trim(samples)
    if audio.size == 0:
        raise BadInputError(name=repr(item.text), detail=f"espeak-ng cannot pronounce it with the voice {item.voice}")
    return Speech(audio, SAMPLE_RATE, rate)


def _harmless(text: str) -> str:
    """`[[` would begin phoneme codes; control characters would end the text or command the voice."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    return re.sub(r"\[\[+|\]\]+", " ", text).strip() + "\n"


@lru_cache(maxsize=1)
def _listed() -> tuple[_Listed, ...]:
    """What `espeak-ng --voices` lists, without the MBROLA voices, whose data are another program's."""
    if shutil.which(PROGRAM) is None:
        return ()
    table = run_once("espeak-ng", [PROGRAM, "--voices"], "", TIMEOUT_S).decode(errors="replace")
    rows = [line.split() for line in table.splitlines()[1:]]
    return tuple(
        _Listed(row[1].lower(), row[3].replace("_", " ").strip())
        for row in rows
        if len(row) >= 5 and not row[4].startswith("mb/")
    )


def _version() -> str:
    words = run_once("espeak-ng", [PROGRAM, "--version"], "", TIMEOUT_S).decode(errors="replace")
    found = re.search(r"\d+(\.\d+)+", words)
    if not found:
        raise EngineError(name="espeak-ng", detail=f"{PROGRAM} --version answered {words.strip()!r}")
    return found.group()


def _locate() -> Located:
    if shutil.which(PROGRAM) is None:
        return Located(False, "the program espeak-ng is not installed", INSTALL)
    return Located(True)


def _languages() -> Languages:
    tags = {tag.split("-")[0] for tag in (*(listed.language for listed in _listed()), *_SUBSTITUTES)}
    return Languages(frozenset((tag, tag) for tag in tags if _code(tag) is not None))


SPEAK = EngineSpec(
    name="espeak-ng",
    kind="speak",
    quality="draft",
    summary="Robotic voices for more than a hundred languages, instantly.",
    licence="GPL-3.0-or-later",
    commercial_use=True,
    locate=_locate,
    languages=_languages,
    load=EspeakEngine,
    voices=voices,
)
