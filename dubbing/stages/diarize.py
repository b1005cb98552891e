"""diarize: who speaks when. The engine hears the whole job at once, while its speech is being recognised."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from dubbing.artifacts import fingerprint
from dubbing.engines import vad
from dubbing.engines.base import DiarizeItem, EngineClient, Turns
from dubbing.media import wav
from dubbing.stages.context import Context, Feed
from dubbing.stages.ingest import Ingested
from dubbing.types import Segment, Stage, Word

VERSION = 1
"""Part of the fingerprint: a change here asks again."""
RATE = 16_000
LOOK_MS = 300_000
"""Audio looked at by the voice-activity detector at once, so that memory does not grow with the film."""
SCRAP_MS = 400
"""Words of one speaker that last less than this, close to another's, are the edge of a turn that was placed badly."""
CLOSE_MS = 300

Turn = tuple[int, int, str]


def begin(context: Context, source: Ingested) -> asyncio.Task[list[Turn]] | None:
    """Start to tell the speakers apart if the job has an engine for it; the caller ends the task."""
    engine, speech = context.engines.diarize, source.speech
    if engine is None or speech is None:
        return None
    return asyncio.create_task(_turns(context, source, engine, speech))


async def _turns(
    context: Context, source: Ingested, engine: EngineClient[DiarizeItem, Turns], speech: Path
) -> list[Turn]:
    """Turns (start ms, end ms, label) of the job, in order of start."""
    request = context.job.request
    key = fingerprint(
        v=VERSION,
        source=context.job.source_id,
        track=request.audio_track,
        at=[source.start_ms, request.end_ms],
        engine=[engine.info.name, engine.info.version],
        most=request.speakers,
    )
    context.report_stage(Stage.DIARIZE, 0, 100)
    known = context.folder.memo("diarize", key)
    if known is None:
        await source.decoded()
        with context.trace.span("diarize", "voice activity"):
            spans = await asyncio.to_thread(_speech_spans, wav.wav_info(speech))
        with context.trace.span("diarize", "turns"):
            answer = await engine(DiarizeItem(speech, tuple(spans), request.speakers), lane=context.job.id)
        context.count("diarize.called")
        known = [list(turn) for turn in answer.turns]
        context.folder.remember("diarize", key, known)
    else:
        context.count("diarize.kept")
    context.report_stage(Stage.DIARIZE, 100, 100)
    found = sorted((int(start), int(end), str(label)) for start, end, label in known)
    context.log.info("%d speakers in %d turns", len({label for *_, label in found}), len(found))
    return found


def _speech_spans(info: wav.WavInfo) -> list[tuple[int, int]]:
    total = info.duration_ms
    found: list[tuple[int, int]] = []
    for at in range(0, total, LOOK_MS):
        audio = wav.read_frames(info, at * RATE // 1000, LOOK_MS * RATE // 1000).reshape(-1)
        found += [(at + start, min(at + end, total)) for start, end in vad.speech_spans(audio)]
    return found


async def told_apart(
    batches: AsyncIterator[list[Segment]], known: asyncio.Task[list[Turn]]
) -> AsyncGenerator[list[Segment], None]:
    """The batches with speakers, as soon as the turns are known; what comes before is kept, so nobody waits for us."""
    heard: Feed[list[Segment]] = Feed()

    async def listen() -> None:
        try:
            async for batch in batches:
                heard.extend([batch])
        finally:
            heard.close()

    listening = asyncio.ensure_future(listen())
    try:
        await asyncio.wait({known, listening}, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()  # what went wrong with the words is told now, not when the turns are known
        turns = await asyncio.shield(known)
        async for batch in heard:
            yield assign(batch, turns)
        await listening
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def assign(segments: Sequence[Segment], turns: Sequence[Turn]) -> list[Segment]:
    """The segments with their speakers, parted where the speaker changes; names that somebody gave are left alone."""
    if not turns or any(segment.speaker is not None for segment in segments):
        return list(segments)
    clock = _Clock(turns)
    found: list[Segment] = []
    for segment in segments:
        if segment.words:
            found += _parted(segment, clock)
        else:
            found.append(replace(segment, speaker=clock.speaker(segment.start_ms, segment.end_ms)))
    return found


class _Clock:
    """Whose turn it is at any time."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = sorted(turns)
        self._starts = [start for start, _, _ in self._turns]
        self._longest = max((end - start for start, end, _ in self._turns), default=0)
        self._ended: list[Turn] = []
        """Of each turn and those before it, the one that ends last."""
        for turn in self._turns:
            later = not self._ended or turn[1] >= self._ended[-1][1]
            self._ended.append(turn if later else self._ended[-1])

    def speaker(self, start: int, end: int, before: str | None = None) -> str:
        """Who speaks most between `start` and `end`, `before` going first among equals; the nearest where nobody does."""
        first = bisect.bisect_left(self._starts, start - self._longest)
        last = bisect.bisect_left(self._starts, max(end, start + 1))
        spoken: dict[str, int] = {}
        for low, high, label in self._turns[first:last]:
            shared = min(high, max(end, start + 1)) - max(low, start)
            if shared > 0:
                spoken[label] = spoken.get(label, 0) + shared
        if spoken:
            return max(spoken, key=lambda label: (spoken[label], label == before))
        near = [*self._ended[max(last - 1, 0) : last], *self._turns[last : last + 1]]
        return min(near, key=lambda turn: max(turn[0] - end, start - turn[1]))[2]


def _parted(segment: Segment, clock: _Clock) -> list[Segment]:
    runs: list[tuple[str, list[Word]]] = []
    for word in segment.words:
        label = clock.speaker(word.start_ms, word.end_ms, runs[-1][0] if runs else None)
        if runs and runs[-1][0] == label:
            runs[-1][1].append(word)
        else:
            runs.append((label, [word]))
    runs = _at_pauses(_without_scraps(runs))
    if len(runs) == 1:
        return [replace(segment, speaker=runs[0][0])]
    return [_of_words(segment, label, words) for label, words in runs]


def _without_scraps(runs: list[tuple[str, list[Word]]]) -> list[tuple[str, list[Word]]]:
    """Runs too short to be somebody's words join the closest neighbour they touch."""
    kept = list(runs)
    while len(kept) > 1:
        scraps = [i for i, (_, words) in enumerate(kept) if words[-1].end_ms - words[0].start_ms < SCRAP_MS]
        joins = [
            (gap, i, other) for i in scraps for other in (i - 1, i + 1) if (gap := _gap(kept, i, other)) < CLOSE_MS
        ]
        if not joins:
            break
        _, i, other = min(joins)
        label, low, high = kept[other][0], min(i, other), max(i, other)
        kept[low : high + 1] = [(label, kept[low][1] + kept[high][1])]
        for at in range(len(kept) - 1, 0, -1):
            if kept[at][0] == kept[at - 1][0]:
                kept[at - 1 : at + 1] = [(kept[at][0], kept[at - 1][1] + kept[at][1])]
    return kept


def _at_pauses(runs: Sequence[tuple[str, list[Word]]]) -> list[tuple[str, list[Word]]]:
    """The same runs, each border moved by up to a scrap to the widest pause: people change in pauses, not in phrases."""
    kept = [(label, list(words)) for label, words in runs]
    for (_, left), (_, right) in zip(kept, kept[1:], strict=False):
        words, border = left + right, len(left)

        def pause(at: int, words: list[Word] = words) -> int:
            return words[at].start_ms - words[at - 1].end_ms

        places = [at for at in range(1, len(words)) if at == border or _may_move(words, border, at)]
        best = max(places, key=lambda at: (pause(at), at == border))
        left[:], right[:] = words[:best], words[best:]
    return kept


def _may_move(words: Sequence[Word], border: int, at: int) -> bool:
    """Whether so little changes hands that the turn may have been placed badly, and whether both keep enough."""
    low, high = min(border, at), max(border, at)
    moved = words[high - 1].end_ms - words[low].start_ms
    left, right = words[at - 1].end_ms - words[0].start_ms, words[-1].end_ms - words[at].start_ms
    return moved < SCRAP_MS <= min(left, right)


def _gap(runs: Sequence[tuple[str, list[Word]]], i: int, other: int) -> float:
    if not 0 <= other < len(runs):
        return float("inf")
    low, high = min(i, other), max(i, other)
    return runs[high][1][0].start_ms - runs[low][1][-1].end_ms


def _of_words(segment: Segment, label: str, words: Sequence[Word]) -> Segment:
    known = [word.confidence for word in words if word.confidence is not None]
    return Segment(
        words[0].start_ms,
        words[-1].end_ms,
        " ".join(word.text for word in words),
        tuple(words),
        label,
        fmean(known) if known else segment.confidence,
    )
