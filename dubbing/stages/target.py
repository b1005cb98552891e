"""One target language from lines to placed clips: translate, plan, speak, in blocks that follow one another closely."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dubbing import timing
from dubbing.engines.rates import units_per_second
from dubbing.errors import EngineError, MachineError
from dubbing.stages.casting import Casting
from dubbing.stages.context import Context, Feed, Meter, together
from dubbing.stages.edits import Edits
from dubbing.stages.fit import Placed, fit
from dubbing.stages.speak import Clip, Speak, Take
from dubbing.stages.translate import CONTEXT_LINES, Translate, Translated
from dubbing.types import Line, Stage, Voice

BLOCK_LINES = 16
"""Lines planned together: two full batches of a model, and what the voice's speed is learned from."""
BLOCKS_AHEAD = 3
"""Blocks in flight: one translated, one spoken, one waiting, so that neither model idles."""


@dataclass
class Block:
    """Neighbouring lines, ending where a group of lines ends."""

    lines: list[Line]
    places: list[timing.Slot]
    earlier: list[Line]
    """The last lines before them, for context."""
    later: list[Line]
    """The first lines after them, as far as they are known: one at least, unless these are the last."""
    texts: list[Translated] = field(default_factory=list)
    voices: list[Voice] = field(default_factory=list)
    takes: list[Take] = field(default_factory=list)
    clips: list[Clip | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Dubbed:
    """All lines of one target, placed."""

    lines: list[Line]
    texts: list[Translated]
    voices: list[Voice]
    placed: list[Placed | None]
    silent: dict[int, str]
    """Line index -> why it is silent."""
    doubtful: dict[int, str]
    """Line index -> what is wrong with the best reading that could be had."""
    edits: list[dict[str, Any]]
    """What the user asked of each line in the edits file."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The lines that are spoken without a gap from the first one on."""

    clips: list[Clip | None]
    places: list[timing.Slot]
    until_ms: int
    """Where the first line begins that is not spoken yet, or the last one ends."""


class Target:
    """The road of one target language."""

    def __init__(self, context: Context, tag: str, duration_ms: int, sound: Callable[[], Awaitable[Path]]) -> None:
        """`sound` waits for the WAV in which the speakers are heard best, for voices that are cloned."""
        self._context, self.tag, self._duration_ms, self._sound = context, tag, duration_ms, sound
        engine = context.engines.speak.get(tag)
        if engine is None:
            raise MachineError(detail=f"no engine was chosen to speak {tag}")
        self._clones = engine.info.clones
        self._casting = Casting(context, tag, self._clones)
        natural = all(voice.natural for voice in context.job.voices[tag])
        self.limits = timing.Limits.of_voice(natural, engine.info.rate_range)
        self._meters = {stage: Meter(context, stage, tag) for stage in (Stage.TRANSLATE, Stage.SPEAK)}
        self._speak = Speak(context, tag, engine, self._meters[Stage.SPEAK], self._casting.reference)
        self._translate = self._translator()
        self._blocks: list[Block] = []
        self._listening: asyncio.Task[None] | None = None

    def _translator(self) -> Translate | None:
        engine = self._context.engines.translate.get(self.tag)
        return Translate(self._context, self.tag, engine, self._meters[Stage.TRANSLATE]) if engine else None

    async def run(self, lines: Feed[Line], edits: Edits, spoken: Callable[[], None]) -> Dubbed:
        """Take lines as they come, until the feed closes; `spoken` is called after every block that is spoken."""
        window = asyncio.Semaphore(BLOCKS_AHEAD)
        done: list[asyncio.Task[None]] = []
        if self._clones:
            self._listening = asyncio.create_task(self._listen(lines, edits))
        else:
            self._cast(edits)
        try:
            async for block in _blocks(edits.lines(lines), self._duration_ms):
                await window.acquire()
                number = len(self._blocks)
                self._blocks.append(block)
                for meter in self._meters.values():
                    meter.total += len(block.lines)
                earlier = done[number - 2] if number >= 2 else None
                task = asyncio.create_task(self._block(number, block, edits, earlier))
                task.add_done_callback(lambda _: window.release())
                task.add_done_callback(lambda ended: None if ended.cancelled() or ended.exception() else spoken())
                done.append(task)
                for finished in done:
                    if finished.done():
                        finished.result()  # a failure ends the job now, not after the last line
            await together(*done)
        finally:
            ending = [*done, self._listening] if self._listening else done
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
        return await self._placed(edits)

    async def _listen(self, lines: Feed[Line], edits: Edits) -> None:
        await self._casting.listen(lines, self._sound)
        self._cast(edits)

    def _cast(self, edits: Edits) -> None:
        """Give the voices in the order of earlier runs: a line given to somebody else changes nobody's turn."""
        for speaker in edits.speakers:
            self._casting.of(speaker)

    async def _block(self, number: int, block: Block, edits: Edits, earlier: asyncio.Task[None] | None) -> None:
        block.voices = [edits.voice(line, self._casting.of(line.speaker)) for line in block.lines]
        block.takes = [edits.take(line) for line in block.lines]
        prior = self._calibrations(number)
        budgets = [
            timing.budget_chars(line.text, slot, self.limits, prior[voice.id])
            for line, slot, voice in zip(block.lines, block.places, block.voices, strict=True)
        ]
        if self._translate is None:
            block.texts = [Translated(line.text) for line in block.lines]
        else:
            block.texts = await self._translate(block.lines, budgets, block.earlier, block.later)
        block.texts = [edits.of(line, text) for line, text in zip(block.lines, block.texts, strict=True)]
        if self._listening is not None:
            await asyncio.shield(self._listening)  # a voice is made of all that its speaker says
            block.voices = [edits.voice(line, self._casting.of(line.speaker)) for line in block.lines]
        if earlier is not None:
            await asyncio.wait(
                [earlier]
            )  # the plan of a block learns from blocks that are surely done: same input, same plan
        await self._say(block, self._calibrations(number))
        edits.keep(block.lines, block.texts, block.voices, block.clips)

    async def _say(self, block: Block, calibrations: dict[str, timing.Calibration]) -> None:
        texts = [text.text for text in block.texts]
        indices = [line.index for line in block.lines]
        natural = [calibrations[v.id].natural_ms(t) for t, v in zip(texts, block.voices, strict=True)]
        settled = [self._speak.settled(t, v, k) for t, v, k in zip(texts, block.voices, block.takes, strict=True)]
        rates = timing.plan(natural, block.places, self.limits, settled)
        clips = await self._speak(indices, texts, block.voices, rates, block.takes)
        again = self._again(block, clips, settled)
        if again:
            self._meters[Stage.SPEAK].total += len(again)
            second = await self._speak(
                [indices[i] for i in again],
                [texts[i] for i in again],
                [block.voices[i] for i in again],
                list(again.values()),
                [block.takes[i] for i in again],
            )
            for i, clip in zip(again, second, strict=True):
                clips[i] = clip or clips[i]
        block.clips = clips
        self._speak.settle(texts, block.voices, block.takes, clips)

    def _again(self, block: Block, clips: Sequence[Clip | None], settled: Sequence[float | None]) -> dict[int, float]:
        """Lines whose prediction was so wrong that they are better spoken again, faster, than stretched."""
        present = [i for i, clip in enumerate(clips) if clip is not None]
        spoken = [clip.spoken for clip in clips if clip is not None]
        rates = timing.respeak(spoken, [block.places[i] for i in present], self.limits)
        return {i: rate for i, rate in zip(present, rates, strict=True) if rate is not None and settled[i] is None}

    def _calibrations(self, number: int) -> dict[str, timing.Calibration]:
        """Speed of each voice, from the blocks that are surely done before block `number` is planned."""
        voices = {voice.id for block in self._blocks[: number + 1] for voice in block.voices}
        prior = units_per_second(self.tag)
        found = {voice: timing.Calibration(prior) for voice in voices}
        for block in self._blocks[max(0, number - 14) : max(0, number - 1)]:
            for text, voice, clip in zip(block.texts, block.voices, block.clips, strict=False):
                if clip is not None:
                    found[voice.id].learn(text.text, clip.spoken)
        return found

    def beginning(self) -> Beginning:
        """What is spoken so far, as far as it has no gap."""
        blocks = list(itertools.takewhile(lambda block: block.clips, self._blocks))
        lines = [line for block in blocks for line in block.lines]
        following = blocks[-1].later[:1] if blocks else []
        times = [(line.start_ms, line.end_ms, line.speaker) for line in (*lines, *following)]
        until_ms = following[0].start_ms if following else lines[-1].end_ms if lines else 0
        places = timing.slots(times, self._duration_ms)[: len(lines)]
        return Beginning([clip for block in blocks for clip in block.clips], places, until_ms)

    async def _placed(self, edits: Edits) -> Dubbed:
        lines = [line for block in self._blocks for line in block.lines]
        clips = [clip for block in self._blocks for clip in block.clips]
        if lines and not any(clips):
            why = next(iter(self._speak.failed.values()), "no line could be spoken")
            raise EngineError(stage="speak", name=self._context.engines.speak[self.tag].info.name, detail=why)
        places = timing.slots([(line.start_ms, line.end_ms, line.speaker) for line in lines], self._duration_ms)
        placed = await fit(self._context, self.tag, clips, places, self.limits, self._duration_ms)
        stretched = sum(p is not None and p.placement.stretch != 1.0 for p in placed)
        self._context.log.info(
            "%s: %d lines, %d silent, %d stretched", self.tag, len(lines), clips.count(None), stretched
        )
        return Dubbed(
            lines,
            [text for block in self._blocks for text in block.texts],
            [voice for block in self._blocks for voice in block.voices],
            placed,
            dict(self._speak.failed),
            dict(self._speak.doubtful),
            [edits.made(line) for line in lines],
        )


async def _blocks(lines: AsyncIterable[Line], duration_ms: int) -> AsyncIterator[Block]:
    """Blocks of about BLOCK_LINES lines, cut between groups; the line after a block bounds its last slot."""
    waiting: list[Line] = []
    earlier: list[Line] = []
    async for line in lines:
        waiting.append(line)
        if len(waiting) > BLOCK_LINES + timing.GROUP_LINES:
            places = timing.slots([(w.start_ms, w.end_ms, w.speaker) for w in waiting], duration_ms)
            cut = max(i for i in range(1, len(places)) if places[i].group != places[i - 1].group)
            yield Block(waiting[:cut], places[:cut], earlier, waiting[cut : cut + CONTEXT_LINES])
            earlier, waiting = waiting[max(0, cut - CONTEXT_LINES) : cut], waiting[cut:]
    if waiting:
        places = timing.slots([(w.start_ms, w.end_ms, w.speaker) for w in waiting], duration_ms)
        yield Block(waiting, places, earlier, [])
