"""What the speech API does: hear an upload, translate what was heard, speak a text - with the engines that jobs use."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from cluster import folders
from cluster.clients import deployed_engines, open_engines
from cluster.http_formats import Heard, pieces
from dubbing.engines import registry, vad
from dubbing.engines.base import CLONE, EngineClient, Kind, Located, SpeakItem, TranscribeItem, TranslateItem
from dubbing.engines.choose import RANK, Candidate, choose
from dubbing.errors import DubbingError, LanguageError
from dubbing.media import encode, extract, wav
from dubbing.media.resample import resample, stretch
from dubbing.stages.context import in_order
from dubbing.types import Int16Audio, Segment, Speech, Voice

AUTO = "auto"
"""The language of speech that nobody named."""
UNDETERMINED = "und"
"""The language of a recording in which nobody speaks."""
ALIASES: Mapping[str, Kind] = {
    "whisper-1": "transcribe",
    "gpt-4o-transcribe": "transcribe",
    "gpt-4o-mini-transcribe": "transcribe",
    "tts-1": "speak",
    "tts-1-hd": "speak",
    "gpt-4o-mini-tts": "speak",
}
"""Names that programs written for OpenAI send: the best engine of the kind answers."""
VOICES = (
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
)
"""OpenAI's voices stand for the engine's own, in turn."""
WINDOW = 4
"""Pieces of one request in flight, as of a job."""
PATIENCE_S = 120.0
"""For an engine that is being started: callers give up soon after, and find it there when they come again."""
PAUSE_MS = 200
"""Between two pieces of a spoken text."""
_STRETCH = (0.5, 2.0)


class RequestError(DubbingError):
    """{detail}."""

    code, hint, http_status = "invalid_value", "", 400

    @property
    def param(self) -> str | None:
        """The name of the field at fault."""
        return self.facts.get("param")


class ModelNotFoundError(RequestError):
    """The model {model} does not exist here or cannot do this."""

    code, http_status = "model_not_found", 404


@dataclass(frozen=True, slots=True)
class Desk:
    """Serves requests with the engines that are deployed."""

    commercial_safe: bool
    max_minutes: int
    """Longest upload."""

    async def models(self) -> list[tuple[str, str]]:
        """(name, kind) of every engine that a request can name."""
        deployed = await deployed_engines(patience_s=PATIENCE_S)
        return sorted((name, kind) for kind in ("transcribe", "speak") for name in deployed.get(kind, ()))

    async def hear(self, upload: IO[bytes], name: str, model: str, language: str | None, lane: str) -> Heard:
        """Recognise an upload. Raises BadInputError, ModelNotFoundError, LanguageError, or the engine's error."""
        engine = await self._engine("transcribe", model, language, language)
        wanted = language or _language_unasked(engine)
        async with _decoded(upload, name, self.max_minutes) as speech:
            duration_ms = wav.wav_info(speech).duration_ms
            audio, _ = await asyncio.to_thread(wav.read_wav, speech)
        spans = vad.chunks(await asyncio.to_thread(vad.speech_spans, audio))
        rest = spans

        async def one(span: tuple[int, int]) -> tuple[tuple[Segment, ...], str]:
            start, end = span
            item = TranscribeItem(audio[start * 16 : end * 16], start, wanted)
            told = await engine(item, lane=lane)
            return told.segments, told.language

        found: list[tuple[tuple[Segment, ...], str]] = []
        while wanted == AUTO and rest:
            # One language for the whole upload: the one that is heard first.
            found.append(await one(rest[0]))
            rest = rest[1:]
            wanted = found[-1][1] if found[-1][1] != UNDETERMINED else AUTO
        found += await in_order(one, rest, WINDOW)
        language = UNDETERMINED if wanted == AUTO else wanted
        return Heard(tuple(s for segments, _ in found for s in segments), language, duration_ms)

    async def to_english(self, heard: Heard, model: str | None, lane: str) -> Heard:
        """The same in English, segment by segment; words have no times any more. `model` None: the best translator."""
        if heard.language.split("-")[0] == "en" or not heard.segments:
            return replace(heard, language="en")
        engine = await self._engine("translate", model, heard.language, "en")
        texts = [segment.text for segment in heard.segments]

        async def one(i: int) -> Segment:
            item = TranslateItem(
                texts[i], heard.language, "en", tuple(texts[max(i - 2, 0) : i]), tuple(texts[i + 1 : i + 3])
            )
            return replace(heard.segments[i], text=(await engine(item, lane=lane)).text, words=())

        return Heard(tuple(await in_order(one, range(len(texts)), 4 * WINDOW)), "en", heard.duration_ms)

    async def speak(
        self, text: str, *, model: str, voice: str, language: str | None, speed: float, form: str, lane: str
    ) -> bytes:
        """Speak a text, encoded in one of `encode.FORMATS`. Raises as `hear` does, RequestError for an unknown voice."""
        engine = await self._engine("speak", model, language, language)
        chosen = await asyncio.to_thread(_voice, engine.info.name, voice, language)
        tag = language or (chosen.language if chosen.language != "mul" else "en")
        lowest, highest = engine.info.rate_range
        rate = min(max(speed, lowest), highest)

        async def one(piece: str) -> Speech:
            answer: Speech = await engine(SpeakItem(piece, tag, chosen.id, rate), lane=lane)
            return answer

        spoken = await in_order(one, pieces(text), WINDOW)
        audio, hertz = await asyncio.to_thread(_joined, spoken, speed)
        with folders.temporary(folders.API) as folder:
            return await encode.encode(audio, hertz, form, folder)

    async def _engine(
        self, kind: Kind, model: str | None, source: str | None, target: str | None
    ) -> EngineClient[Any, Any]:
        hosted = (await deployed_engines(patience_s=PATIENCE_S)).get(kind, set())
        candidates = [
            replace(c, located=Located(True))
            for c in await asyncio.to_thread(registry.survey, kind)
            if c.spec.name in hosted
        ]
        name = None if model is None or ALIASES.get(model) == kind else model
        if not candidates or (name is not None and name not in hosted):
            raise ModelNotFoundError(model=model or f"for {kind}", param="model")
        chosen = self._choose(candidates, kind, name, source, target)
        engines = await open_engines({kind: chosen}, ["any"], patience_s=PATIENCE_S)
        client = {"transcribe": engines.transcribe, "translate": engines.translate.get("any")}.get(
            kind, engines.speak.get("any")
        )
        assert client is not None
        return client

    def _choose(
        self, candidates: list[Candidate], kind: Kind, name: str | None, source: str | None, target: str | None
    ) -> str:
        if source is None or target is None:
            allowed = [c for c in candidates if c.spec.commercial_use or not self.commercial_safe]
            named = [c for c in allowed if c.spec.name == name or (name is None and not c.spec.hidden)]
            if not named:
                raise ModelNotFoundError(model=name or f"for {kind}", param="model")
            return max(named, key=lambda c: RANK[c.spec.quality]).spec.name
        safe = self.commercial_safe
        return choose(candidates, kind=kind, source=source, target=target, name=name, commercial_safe=safe).spec.name


def _language_unasked(engine: EngineClient[Any, Any]) -> str:
    """What an engine is told when nobody named the language. Raises LanguageError when it has to be named."""
    if engine.info.detects:
        return AUTO
    known = {source for source, _ in registry.spec(engine.info.name).languages().pairs}
    if len(known) == 1:
        return known.pop()
    raise LanguageError(detail=f"{engine.info.name} does not detect languages; send the field language")


def _voice(engine: str, wanted: str, language: str | None) -> Voice:
    """A voice by its own name, in any language, or one of OpenAI's names in `language` (default: English)."""
    spec = registry.spec(engine)
    if wanted in VOICES:
        # Nobody gave a recording that a voice could be cloned from.
        voices = [voice for voice in spec.voices(language or "en") if voice.id != CLONE]
        if not voices:
            raise LanguageError(detail=f"{engine} has no voice for {language or 'en'}")
        return voices[VOICES.index(wanted) % len(voices)]
    offered = spec.languages()
    tags = [language] if language else sorted({"en"} | {target for _, target in offered.pairs})
    for tag in tags:
        for voice in spec.voices(tag) if offered.can(tag, tag) else ():
            if voice.id == wanted != CLONE:
                return voice
    raise RequestError(
        detail=f"{engine} has no voice {wanted}; `dub voices {language or 'en'}` lists them", param="voice"
    )


def _joined(spoken: list[Speech], speed: float) -> tuple[Int16Audio, int]:
    """All pieces one after the other, at the speed that was asked for, with a pause between."""
    rate = spoken[0].sample_rate
    pause = np.zeros(rate * PAUSE_MS // 1000, np.int16)
    parts: list[Int16Audio] = []
    for speech in spoken:
        audio, left = resample(speech.audio, speech.sample_rate, rate), speed / speech.rate
        while abs(left - 1) > 0.01:
            step = min(max(left, _STRETCH[0]), _STRETCH[1])
            audio, left = stretch(audio, rate, step), left / step
        parts += [audio, pause]
    return np.concatenate(parts[:-1]), rate


@asynccontextmanager
async def _decoded(upload: IO[bytes], name: str, max_minutes: int) -> AsyncIterator[Path]:
    """The upload's sound as a 16 kHz mono WAV of our own: ffmpeg reads it under the guard, in a process of its own."""
    with folders.temporary(folders.API) as folder:
        # Nothing of a stranger's file name but its ending reaches the disk.
        suffix = Path(name).suffix if Path(name).suffix[1:].isalnum() else ""
        source, speech = folder / f"upload{suffix[:8]}", folder / "speech.wav"
        await asyncio.to_thread(_store, upload, source)
        await extract.extract(source, speech=speech, max_minutes=max_minutes)
        yield speech


def _store(upload: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(upload, file, 1 << 20)
