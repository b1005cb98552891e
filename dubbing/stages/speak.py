"""speak: every line with its speaker's voice, at the rate the plan asks for; what was spoken once is never spoken again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dubbing.artifacts import Manifest, fingerprint
from dubbing.engines.base import EngineClient, SpeakItem
from dubbing.engines.rates import units_per_second
from dubbing.errors import BadInputError, EngineBrokenError, EngineError
from dubbing.media import wav
from dubbing.stages.context import Context, Meter, in_order
from dubbing.stages.levels import level_dbfs, looped
from dubbing.stages.reference import Reference
from dubbing.timing import Spoken, units
from dubbing.types import Speech, Voice

WINDOW = 32
SILENT_DBFS = -55.0
"""Speech quieter than this is none."""
READINGS = 3
"""How often a line is asked for until a reading is good."""
RUNAWAY, LOOPED, TRUNCATED = 2.5, 1.3, 0.4
"""Times the usual length of such a text from which, or under which, a reading is suspicious."""
SPARE_MS = 1000
"""Short texts vary by so much without anything being wrong."""
TROUBLES = ("truncated", "looped", "runaway")
"""From the one that is easiest to listen to."""


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

    def __init__(
        self,
        context: Context,
        target: str,
        engine: EngineClient[SpeakItem, Speech],
        meter: Meter,
        reference: Callable[[Voice], Reference | None],
    ) -> None:
        """`reference` says what a voice is cloned from."""
        self._context, self._target, self._engine, self._meter = context, target, engine, meter
        self._reference = reference
        self._folder = context.folder.target(target)
        self._done = Manifest(self._folder / "speak.jsonl")
        self._rates = Manifest(self._folder / "rates.jsonl")
        self.failed: dict[int, str] = {}
        """Line index -> why it is silent."""
        self.doubtful: dict[int, str] = {}
        """Line index -> what is wrong with the best of all readings: truncated, looped or runaway."""

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
        info, reference = self._engine.info, self._reference(voice)
        more: dict[str, Any] = {"reference": reference.identity} if reference else {}
        more |= {"redo": take.redo} if take.redo else {}
        return fingerprint(text=text, language=self._target, voice=voice.id, engine=[info.name, info.version], **more)

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
        else:
            reference = self._reference(voice)
            item = SpeakItem(text, self._target, voice.id, rate)
            if reference is not None:
                item = replace(item, reference=reference.path, speaker=reference.speaker)
            speech, trouble = await self._best(index, item, take.redo)
            if speech is None:
                self._fail(index, trouble)
                return None
            await asyncio.to_thread(wav.write_wav, path, speech.audio, speech.sample_rate)
            level = round(level_dbfs(speech.audio, speech.sample_rate), 2)
            known = {"text": text, "ms": speech.duration_ms, "rate": speech.rate, "dbfs": level}
            known |= {"trouble": trouble} if trouble else {}
            self._done.put(key, known)
        self._note(index, known.get("trouble", ""))
        return Clip(path, Spoken(known["ms"], known["rate"]), known["dbfs"])

    async def _best(self, index: int, item: SpeakItem, redo: int) -> tuple[Speech | None, str]:
        """The first good reading, else the least bad one with its trouble, else None and why.

        An engine that draws lots is asked up to three times, each time with another seed; `redo` asks for seeds that were not heard before.
        """
        best: tuple[Speech | None, str] = (None, "no reading could be had")
        first = redo * READINGS
        for seed in range(first, first + (1 if self._engine.info.deterministic else READINGS)):
            try:
                with self._context.trace.span("speak", f"line {index + 1}"):
                    speech = await self._engine(replace(item, seed=seed), lane=self._context.job.id)
            except EngineBrokenError:
                raise
            except BadInputError as error:  # no seed mends the text or the reference
                return None, str(error)
            except EngineError as error:
                best = best if best[0] else (None, str(error))
                continue
            finally:
                self._context.count("speak.called")
            trouble = self._trouble(item.text, speech)
            if not trouble:
                return speech, ""
            if trouble == "silent":
                best = best if best[0] else (None, "the voice answered with silence")
            elif best[0] is None or TROUBLES.index(trouble) < TROUBLES.index(best[1]):
                best = (speech, trouble)
        return best

    def _trouble(self, text: str, speech: Speech) -> str:
        """What can be heard to be wrong; of a deterministic engine, whose readings are all alike, only silence counts."""
        if level_dbfs(speech.audio, speech.sample_rate) < SILENT_DBFS:
            return "silent"
        if self._engine.info.deterministic:
            return ""
        usual_ms = units(text) / units_per_second(self._target) * 1000 / speech.rate
        if speech.duration_ms > RUNAWAY * usual_ms + SPARE_MS:
            return "runaway"
        if speech.duration_ms > LOOPED * usual_ms + SPARE_MS and looped(speech.audio, speech.sample_rate):
            return "looped"
        return "truncated" if usual_ms > SPARE_MS and speech.duration_ms < TRUNCATED * usual_ms else ""

    def _note(self, index: int, trouble: str) -> None:
        self.doubtful.pop(index, None)
        if trouble:
            self._context.log.warning("line %d is %s in its best reading", index + 1, trouble)
            self.doubtful[index] = trouble

    def _fail(self, index: int, why: str) -> None:
        self._context.log.warning("line %d was not spoken: %s", index + 1, why)
        self.failed[index] = why
