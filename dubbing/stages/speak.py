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


@dataclass(frozen=True, slots=True)
class Take:
    """Which reading of a line is wanted."""

    redo: int = 0
    """Each number is another reading."""
    clip: str = ""
    """Fingerprint of the clip that a locked line keeps, whatever engine speaks now."""
    slot: tuple[int, int] | None = None
    """Start and end that the user gave the line, ms: its rate is settled anew for them."""


class Speak:
    """The speak stage of one target language."""

    def __init__(self, context: Context, target: str, engine: EngineClient[SpeakItem, Speech], meter: Meter) -> None:
        self._context, self._target, self._engine, self._meter = context, target, engine, meter
        self._folder = context.folder.target(target)
        self._done = Manifest(self._folder / "speak.jsonl")
        self._rates = Manifest(self._folder / "rates.jsonl")
        self.failed: dict[int, str] = {}
        """Line index -> why it is silent."""

    def settled(self, text: str, voice: Voice, take: Take) -> float | None:
        """The rate a line with this text got in a finished group of an earlier run."""
        locked = self._locked(take)
        rate = locked.spoken.rate if locked else self._rates.get(self._rate_key(text, voice, take))
        return float(rate) if rate is not None else None

    def settle(
        self, texts: Sequence[str], voices: Sequence[Voice], takes: Sequence[Take], clips: Sequence[Clip | None]
    ) -> None:
        """Keep the rates of a finished group, so that an edit elsewhere in it does not speak these lines again."""
        for text, voice, take, clip in zip(texts, voices, takes, clips, strict=True):
            if clip is not None and self.settled(text, voice, take) is None:
                self._rates.put(self._rate_key(text, voice, take), clip.spoken.rate)

    async def __call__(
        self,
        indices: Sequence[int],
        texts: Sequence[str],
        voices: Sequence[Voice],
        rates: Sequence[float],
        takes: Sequence[Take],
    ) -> list[Clip | None]:
        """Clips in order; None for a line that could not be spoken (see `failed`)."""

        async def one(entry: tuple[int, str, Voice, float, Take]) -> Clip | None:
            clip = await self._one(*entry)
            self._meter.tick()
            return clip

        return await in_order(one, list(zip(indices, texts, voices, rates, takes, strict=True)), WINDOW)

    def _line_key(self, text: str, voice: Voice, take: Take) -> str:
        info = self._engine.info
        again = {"redo": take.redo} if take.redo else {}
        return fingerprint(text=text, language=self._target, voice=voice.id, engine=[info.name, info.version], **again)

    def _rate_key(self, text: str, voice: Voice, take: Take) -> str:
        key = self._line_key(text, voice, take)
        return fingerprint(line=key, slot=take.slot) if take.slot else key

    def _locked(self, take: Take) -> Clip | None:
        known, path = self._done.get(take.clip), self._folder / "speech" / f"{take.clip}.wav"
        if not take.clip or known is None or not path.exists():
            return None
        return Clip(path, Spoken(known["ms"], known["rate"]), known["dbfs"])

    async def _one(self, index: int, text: str, voice: Voice, rate: float, take: Take) -> Clip | None:
        locked = self._locked(take)
        if locked is not None:
            self._context.count("speak.kept")
            return locked
        key = fingerprint(line=self._line_key(text, voice, take), rate=round(rate, 2))
        path = self._folder / "speech" / f"{key}.wav"
        known = self._done.get(key)
        if known is not None and path.exists():
            self._context.count("speak.kept")
            return Clip(path, Spoken(known["ms"], known["rate"]), known["dbfs"])
        try:
            with self._context.trace.span("speak", f"line {index + 1}"):
                item = SpeakItem(text, self._target, voice.id, rate, seed=take.redo)
                speech = await self._engine(item, lane=self._context.job.id)
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
