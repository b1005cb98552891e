"""Deterministic doubles of every kind, shipped: for tests, for load drills and for trying the road without a model.

Options of each: `base_ms` and `item_ms` (a batch of n costs base_ms + n * item_ms, really slept), `poison` (a text
whose item fails), `out_of_memory_above` (batches larger than this raise MemoryError), `calls_log` (a file that gets one
JSON line per item), `max_batch`, `seed_version` (changes the version, as new weights would), `sick_if` (a path: while
there is a file, probes fail), `waits_for` (a path: calls last until there is no file), and of speak: `clones` (speakers'
references are logged) and `draws_lots` (the poison is gone with another seed).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np

from dubbing.engines import speakers
from dubbing.engines.base import (
    AlignItem,
    DiarizeItem,
    EngineInfo,
    EngineSpec,
    Kind,
    Languages,
    Located,
    SeparateItem,
    SpeakItem,
    Stems,
    TranscribeItem,
    Transcript,
    TranslateItem,
    Translation,
    Turns,
)
from dubbing.errors import EngineError
from dubbing.types import Int16Audio, Segment, Speech, Voice, Word

In = TypeVar("In")
Out = TypeVar("Out")

SAMPLE_RATE = 16_000
CHARS_PER_SECOND = 15.0
TONE_HZ = 220.0
RATE_RANGE = (0.8, 1.8)
WORD_MS = 400
WAIT_S = 0.02
PITCHES_HZ = (70, 350)
HIGH_HZ = 155
"""Between the pitch of most men's voices and most women's."""


class _Fake(Generic[In, Out]):
    """What all doubles share: cost, poison, memory limit and the log of calls."""

    def __init__(self, kind: Kind, options: Mapping[str, Any]) -> None:
        self.info = EngineInfo(
            name=f"fake-{kind}",
            kind=kind,
            version=str(options.get("seed_version", "1")),
            licence="Apache-2.0",
            max_batch=int(options.get("max_batch", 16)),
            rate_range=RATE_RANGE if kind == "speak" else (1.0, 1.0),
            clones=bool(options.get("clones", False)),
            deterministic=not options.get("draws_lots", False),
            note="A double for tests, not an engine.",
        )
        self._base_s = float(options.get("base_ms", 0)) / 1000
        self._item_s = float(options.get("item_ms", 0)) / 1000
        self._poison = options.get("poison")
        self._room = options.get("out_of_memory_above")
        self._calls_log = options.get("calls_log")
        self._sick_if = options.get("sick_if")
        self._waits_for = options.get("waits_for")

    def run(self, items: Sequence[In]) -> list[Out]:
        """Answer a batch after its cost in time. Raises EngineError for poison, MemoryError when it is too large."""
        time.sleep(self._base_s + self._item_s * len(items))
        while self._waits_for is not None and os.path.exists(self._waits_for):  # noqa: PTH110 - as in `probe`
            time.sleep(WAIT_S)
        if self._room is not None and len(items) > int(self._room):
            raise MemoryError(f"{len(items)} items do not fit, {self._room} would")
        for item in items:
            if self._poison is not None and self._poison in self._text(item) and not getattr(item, "seed", 0):
                raise EngineError(name=self.info.name, detail=f"poisoned by {self._poison!r}")
        if self._calls_log:
            self._log(items)
        return [self._answer(item) for item in items]

    def bucket(self, item: In) -> Hashable:
        """Any mix will do."""
        return None

    def probe(self) -> None:
        """Take as long as one item. Raises EngineError while the file `sick_if` is there."""
        time.sleep(self._base_s + self._item_s)
        if self._sick_if is not None and os.path.exists(self._sick_if):  # noqa: PTH110 - an option, maybe of another type
            raise EngineError(name=self.info.name, detail=f"{self._sick_if} says it is sick")

    def close(self) -> None:
        """Nothing to let go of."""

    def _facts(self, item: In) -> dict[str, Any]:
        return {"text": self._text(item)}

    def _text(self, item: In) -> str:
        raise NotImplementedError

    def _answer(self, item: In) -> Out:
        raise NotImplementedError

    def _log(self, items: Sequence[In]) -> None:
        record = {"engine": self.info.name, "batch": len(items), "pid": os.getpid()}
        lines = "".join(json.dumps(record | self._facts(item)) + "\n" for item in items)
        # One write to a file opened for appending is not interleaved with those of other processes.
        descriptor = os.open(str(self._calls_log), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, lines.encode())
        finally:
            os.close(descriptor)


class FakeTranscribe(_Fake[TranscribeItem, Transcript]):
    """Hears one numbered word per 400 ms of audio that is not silent, `w<start in ms>`.

    With the option `hears`, a list of (tag, probability), it detects languages: the first in the first piece it is asked
    about, and so on; the last holds for all that follow.
    """

    def __init__(self, kind: Kind, options: Mapping[str, Any]) -> None:
        super().__init__(kind, options)
        self._hears: list[tuple[str, float]] = [(tag, likely) for tag, likely in options.get("hears", ())]
        self.info = replace(self.info, detects=bool(self._hears))

    def _text(self, item: TranscribeItem) -> str:
        return f"audio@{item.offset_ms} {item.language}"

    def _answer(self, item: TranscribeItem) -> Transcript:
        language, probability = item.language, 1.0
        if language == "auto" and self._hears:
            language, probability = self._hears.pop(0) if len(self._hears) > 1 else self._hears[0]
        if not item.audio.size or not np.any(item.audio):
            return Transcript((), language, probability)
        length_ms = item.audio.size * 1000 // 16_000
        starts = range(item.offset_ms, item.offset_ms + max(length_ms - WORD_MS // 2, 1), WORD_MS)
        end = item.offset_ms + length_ms
        words = tuple(Word(start, min(start + WORD_MS - 50, end), f"w{start}", 0.9) for start in starts)
        text = " ".join(word.text for word in words)
        segment = Segment(words[0].start_ms, words[-1].end_ms, text, words, confidence=0.9)
        return Transcript((segment,), language, probability)


class FakeAlign(_Fake[AlignItem, Transcript]):
    """Spreads the words evenly over the audio, one segment per paragraph."""

    def _text(self, item: AlignItem) -> str:
        return item.text

    def _answer(self, item: AlignItem) -> Transcript:
        paragraphs = [line.split() for line in item.text.splitlines() if line.strip()]
        count = sum(map(len, paragraphs))
        length_ms = item.audio.size * 1000 // 16_000
        edges = [item.offset_ms + length_ms * i // max(count, 1) for i in range(count + 1)]
        segments, at = [], 0
        for paragraph in paragraphs:
            words = tuple(Word(edges[at + i], edges[at + i + 1], text) for i, text in enumerate(paragraph))
            segments.append(Segment(words[0].start_ms, words[-1].end_ms, " ".join(paragraph), words))
            at += len(paragraph)
        return Transcript(tuple(segments), item.language)


class FakeTranslate(_Fake[TranslateItem, Translation]):
    """Puts the target's tag before the text: `Hello.` to es is `[es] Hello.`; keeps to `max_chars` if given."""

    def bucket(self, item: TranslateItem) -> Hashable:
        """One pair per batch, like the real ones."""
        return item.source, item.target

    def _text(self, item: TranslateItem) -> str:
        return item.text

    def _answer(self, item: TranslateItem) -> Translation:
        return Translation(f"[{item.target}] {item.text}"[: item.max_chars])


class FakeSpeak(_Fake[SpeakItem, Speech]):
    """A 220 Hz tone, as long as the text would take at 15 characters per second and the rate asked for."""

    def _text(self, item: SpeakItem) -> str:
        return item.text

    def _facts(self, item: SpeakItem) -> dict[str, Any]:
        reference = {"reference": str(item.reference), "speaker": item.speaker} if item.reference else {}
        return {"text": item.text, "voice": item.voice, "seed": item.seed} | reference

    def _answer(self, item: SpeakItem) -> Speech:
        if not item.text.strip():
            raise EngineError(name=self.info.name, detail="there is nothing to speak")
        rate = min(max(item.rate, RATE_RANGE[0]), RATE_RANGE[1])
        samples = round(len(item.text) / CHARS_PER_SECOND / rate * SAMPLE_RATE)
        tone = np.sin(np.arange(samples, dtype=np.float64) * (2 * np.pi * TONE_HZ / SAMPLE_RATE)) * 8000
        return Speech(tone.astype(np.int16), SAMPLE_RATE, rate)


class FakeSeparate(_Fake[SeparateItem, Stems]):
    """Calls voice what both channels share, and background what they do not."""

    def _text(self, item: SeparateItem) -> str:
        return f"{len(item.audio)} frames, sum {int(item.audio.astype(np.int64).sum())}"

    def _answer(self, item: SeparateItem) -> Stems:
        shared = item.audio.astype(np.int32).sum(axis=1, keepdims=True) // 2
        vocals = np.repeat(shared, 2, axis=1)
        background = np.clip(item.audio - vocals, -32768, 32767)
        return Stems((item.audio - background).astype(np.int16), background.astype(np.int16))


class FakeDiarize(_Fake[DiarizeItem, Turns]):
    """Takes each stretch of speech for one turn, of a speaker with a low voice or of one with a high voice."""

    def _text(self, item: DiarizeItem) -> str:
        return f"{item.audio.name}, {len(item.speech)} stretches"

    def _answer(self, item: DiarizeItem) -> Turns:
        def high(stretch: tuple[int, int]) -> bool:
            return item.most != 1 and pitch_hz(speakers.Speech(item.audio, [stretch]).audio) >= HIGH_HZ

        return speakers.named((start, end, int(high((start, end)))) for start, end in item.speech)


def pitch_hz(audio: Int16Audio) -> float:
    """Median pitch of 16 kHz speech by autocorrelation, Hz; 0.0 where no voice is heard."""
    size = 1024
    frames = audio[: len(audio) // size * size].reshape(-1, size).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(frames - frames.mean(axis=1, keepdims=True), 2 * size)) ** 2
    likeness = np.fft.irfft(spectrum)[:, : SAMPLE_RATE // PITCHES_HZ[0]]
    shortest = SAMPLE_RATE // PITCHES_HZ[1]
    lags = shortest + np.argmax(likeness[:, shortest:], axis=1) if len(frames) else np.zeros(0, np.int64)
    best = likeness[np.arange(len(lags)), lags]
    voiced = (best > 0.5 * likeness[:, 0]) & (likeness[:, 0] > likeness[:, 0].max(initial=0.0) / 100)
    return float(np.median(SAMPLE_RATE / lags[voiced])) if voiced.any() else 0.0


def _spec(kind: Kind, double: type[_Fake[Any, Any]]) -> EngineSpec:
    def voices(language: str) -> list[Voice]:
        return [Voice(f"tone-{n}", "fake-speak", "mul", f"Tone {n}", natural=False) for n in (1, 2)]

    return EngineSpec(
        name=f"fake-{kind}",
        kind=kind,
        quality="draft",
        summary=(double.__doc__ or "").splitlines()[0],
        licence="Apache-2.0",
        commercial_use=True,
        locate=lambda: Located(True),
        languages=lambda: Languages(any=True),
        load=lambda options: double(kind, options),
        voices=voices if kind == "speak" else (lambda language: []),
        hidden=True,
    )


TRANSCRIBE = _spec("transcribe", FakeTranscribe)
ALIGN = _spec("align", FakeAlign)
TRANSLATE = _spec("translate", FakeTranslate)
SPEAK = _spec("speak", FakeSpeak)
SEPARATE = _spec("separate", FakeSeparate)
DIARIZE = _spec("diarize", FakeDiarize)
