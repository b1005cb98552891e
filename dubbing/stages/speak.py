"""speak: every line with its speaker's voice, at the rate the plan asks for; what was spoken once is never spoken again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dubbing.artifacts import Manifest, fingerprint
from dubbing.engines.base import EngineClient, SpeakItem
from dubbing.errors import EngineBrokenError, EngineError
from dubbing.media import wav
from dubbing.stages.context import Context, Meter, in_order
from dubbing.timing import Spoken
from dubbing.types import Int16Audio, Speech, Voice

WINDOW = 32
SILENT_DBFS = -55.0
"""Speech quieter than this is none."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A spoken line on disk."""

    path: Path
    """Mono WAV."""
    spoken: Spoken
    level_dbfs: float
    """Level of its loud parts (RMS of the frames within 20 dB of the loudest), dBFS."""


class Speak:
    """The speak stage of one target language."""

    def __init__(self, context: Context, target: str, engine: EngineClient[SpeakItem, Speech], meter: Meter) -> None:
        self._context, self._target, self._engine, self._meter = context, target, engine, meter
        self._folder = context.folder.target(target)
        self._done = Manifest(self._folder / "speak.jsonl")
        self._rates = Manifest(self._folder / "rates.jsonl")
        self.failed: dict[int, str] = {}
        """Line index -> why it is silent."""

    def settled(self, text: str, voice: Voice) -> float | None:
        """The rate a line with this text got in a finished group of an earlier run."""
        rate = self._rates.get(self._line_key(text, voice))
        return float(rate) if rate is not None else None

    def settle(self, texts: Sequence[str], voices: Sequence[Voice], clips: Sequence[Clip | None]) -> None:
        """Keep the rates of a finished group, so that an edit elsewhere in it does not speak these lines again."""
        for text, voice, clip in zip(texts, voices, clips, strict=True):
            if clip is not None and self.settled(text, voice) is None:
                self._rates.put(self._line_key(text, voice), clip.spoken.rate)

    async def __call__(
        self, indices: Sequence[int], texts: Sequence[str], voices: Sequence[Voice], rates: Sequence[float]
    ) -> list[Clip | None]:
        """Clips in order; None for a line that could not be spoken (see `failed`)."""

        async def one(entry: tuple[int, str, Voice, float]) -> Clip | None:
            clip = await self._one(*entry)
            self._meter.tick()
            return clip

        return await in_order(one, list(zip(indices, texts, voices, rates, strict=True)), WINDOW)

    def _line_key(self, text: str, voice: Voice) -> str:
        info = self._engine.info
        return fingerprint(text=text, language=self._target, voice=voice.id, engine=[info.name, info.version])

    async def _one(self, index: int, text: str, voice: Voice, rate: float) -> Clip | None:
        key = fingerprint(line=self._line_key(text, voice), rate=round(rate, 2))
        path = self._folder / "speech" / f"{key}.wav"
        known = self._done.get(key)
        if known is not None and path.exists():
            self._context.count("speak.kept")
            return Clip(path, Spoken(known["ms"], known["rate"]), known["dbfs"])
        try:
            with self._context.trace.span("speak", f"line {index + 1}"):
                speech = await self._engine(SpeakItem(text, self._target, voice.id, rate), lane=self._context.job.id)
        except EngineBrokenError:
            raise
        except EngineError as error:
            self._fail(index, str(error))
            return None
        finally:
            self._context.count("speak.called")
        level = level_dbfs(speech.audio, speech.sample_rate)
        if level < SILENT_DBFS:
            self._fail(index, "the voice answered with silence")
            return None
        await asyncio.to_thread(wav.write_wav, path, speech.audio, speech.sample_rate)
        entry: dict[str, Any] = {"text": text, "ms": speech.duration_ms, "rate": speech.rate, "dbfs": round(level, 2)}
        self._done.put(key, entry)
        return Clip(path, Spoken(speech.duration_ms, speech.rate), entry["dbfs"])

    def _fail(self, index: int, why: str) -> None:
        self._context.log.warning("line %d was not spoken: %s", index + 1, why)
        self.failed[index] = why


def level_dbfs(audio: Int16Audio, sample_rate: int) -> float:
    """RMS over the 50 ms frames within 20 dB of the loudest one, dBFS; -120 for silence or no audio."""
    frame = max(1, sample_rate // 20)
    count = -(-len(audio) // frame)
    if count == 0:
        return -120.0
    padded = np.zeros(count * frame, np.float32)
    padded[: len(audio)] = audio
    power = np.mean(padded.reshape(count, frame) ** 2, axis=1)
    loud = power[power >= power.max() / 100]
    return float(10 * np.log10(loud.mean() / 32768.0**2 + 1e-12))
