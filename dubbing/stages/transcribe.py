"""transcribe: who said what and when, by recognition or from what the user gave, streamed as segments."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from dubbing import subtitles
from dubbing.artifacts import Manifest, fingerprint
from dubbing.engines import vad
from dubbing.engines.base import AlignItem, EngineClient, TranscribeItem, Transcript
from dubbing.errors import MachineError, NoSpeechError, SpokenLanguageError
from dubbing.languages import native_name
from dubbing.media import wav
from dubbing.stages.context import Context, Meter, together
from dubbing.stages.ingest import Ingested
from dubbing.types import Int16Audio, Segment, Stage, Word

RATE = 16_000
"""Hz, of the audio that recognisers take."""
PIECE_MS = 300_000
"""Audio looked at by the voice-activity detector at once; the first lines are ready long before the last piece is read."""
WINDOW = 4
"""Chunks of one job in flight."""
LISTEN_MS = 30_000
"""Speech that is listened to before an assumed language counts as confirmed."""
Span = tuple[int, int]
LOW_CONFIDENCE = 0.6
"""Mean word posterior under which recognised text is more often wrong than useful."""
_NOT_SPEECH = re.compile(r"^\s*(\[[^]]*\]|\([^)]*\)|[♪♫#*].*|-+)\s*$")


class Stretch(NamedTuple):
    """A stretch of speech to recognise at once, ms from the start of the job's audio."""

    start: int
    end: int
    speech: tuple[Span, ...]
    """Where in it somebody speaks, ms from its own start."""


async def segments(context: Context, source: Ingested) -> AsyncIterator[list[Segment]]:
    """Lists of segments in order of time, as they become known. Raises NoSpeechError when there is none at all."""
    request = context.job.request
    found = 0
    if request.transcript is not None and not subtitles.is_plain_text(request.transcript):
        stream = _one(clip_to_range(subtitles.read_subtitles(request.transcript), source))
    elif request.transcript is not None:
        stream = _aligned(context, source, subtitles.read_text(request.transcript))
    else:
        stream = _recognised(context, source)
    async for batch in stream:
        spoken = [segment for segment in batch if not _NOT_SPEECH.match(segment.text)]
        found += len(spoken)
        if spoken:
            yield spoken
    if not found:
        raise NoSpeechError(name=request.source.name)


def clip_to_range(cues: Sequence[Segment], source: Ingested) -> list[Segment]:
    """Cues on the job's timeline: those outside it are dropped, those at its edges clipped."""
    moved = [replace(c, start_ms=c.start_ms - source.start_ms, end_ms=c.end_ms - source.start_ms) for c in cues]
    inside = [c for c in moved if c.end_ms > 0 and c.start_ms < source.duration_ms]
    return [replace(c, start_ms=max(0, c.start_ms), end_ms=min(c.end_ms, source.duration_ms)) for c in inside]


async def _one(batch: list[Segment]) -> AsyncIterator[list[Segment]]:
    yield batch


async def _recognised(context: Context, source: Ingested) -> AsyncIterator[list[Segment]]:
    engine, speech = context.engines.transcribe, source.speech
    await source.decoded()
    if engine is None or speech is None:
        raise MachineError(detail="no engine was chosen to recognise the speech")
    recognise = _Recognise(context, source, engine, speech)
    language = context.job.source_language
    chunks = _chunks(context, source)
    if context.job.language_assumed and engine.info.detects:
        for segments_of in await _confirmed(recognise, language, await _first(chunks)):
            yield segments_of
    running: list[asyncio.Task[Transcript]] = []
    try:
        async for stretch in chunks:
            running.append(asyncio.create_task(recognise(stretch, language)))
            while len(running) >= WINDOW:
                yield list((await running.pop(0)).segments)
        while running:
            yield list((await running.pop(0)).segments)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class _Recognise:
    """Recognises stretches of a job's speech, each once in the life of the job."""

    def __init__(
        self, context: Context, source: Ingested, engine: EngineClient[TranscribeItem, Transcript], speech: Path
    ) -> None:
        self.context, self._source, self._engine, self._speech = context, source, engine, speech
        self._done = Manifest(context.folder.work / "transcribe.jsonl")
        self._meter = Meter(context, Stage.TRANSCRIBE, None)

    async def __call__(self, stretch: Stretch, language: str) -> Transcript:
        """What is said in a stretch, in a language or in `auto`, one yet to be detected."""
        context, info = self.context, self._engine.info
        start, end, spans = stretch
        self._meter.total += 1
        key = fingerprint(
            source=context.job.source_id,
            track=context.job.request.audio_track,
            at=[self._source.start_ms + start, self._source.start_ms + end],
            asked=language,
            engine=[info.name, info.version],
        )
        if (known := self._done.get(key)) is not None:
            context.count("transcribe.kept")
        else:
            audio = await asyncio.to_thread(_samples, self._speech, start, end)
            with context.trace.span("transcribe", f"{start / 1000:.1f}-{end / 1000:.1f} s"):
                answer = await self._engine(TranscribeItem(audio, start, language, spans), lane=context.job.id)
            context.count("transcribe.called")
            known = {"language": answer.language, "probability": answer.probability, "segments": dump(answer)}
            self._done.put(key, known)
        self._meter.tick()
        return Transcript(tuple(load(known["segments"])), known["language"], known["probability"])


async def _first(chunks: AsyncIterator[Stretch]) -> list[Stretch]:
    """The first stretches of speech, enough of them to tell the language."""
    found: list[Stretch] = []
    async for stretch in chunks:
        found.append(stretch)
        if sum(one.end - one.start for one in found) >= LISTEN_MS:
            break
    return found


async def _confirmed(recognise: _Recognise, language: str, first: Sequence[Stretch]) -> list[list[Segment]]:
    """The segments of these stretches, if they are in the language that was assumed. Raises SpokenLanguageError.

    A stretch that was taken for another language, though most are not, is recognised again in the assumed one.
    """
    answers = await together(*(recognise(stretch, "auto") for stretch in first))
    heard = [(s.end - s.start, a.language, a.probability) for s, a in zip(first, answers, strict=True)]
    job, log = recognise.context.job, recognise.context.log
    other = other_language(language, heard)
    if other is not None:
        raise SpokenLanguageError(
            name=job.request.source.name,
            heard=f"{native_name(other)} ({other})",
            assumed=f"{native_name(language)} ({language})",
            tag=other,
            assumed_tag=language,
        )
    log.info("the track has no label: it is taken for %s, and what is said first does not contradict", language)
    stray = [i for i, answer in enumerate(answers) if answer.segments and not _same(answer.language, language)]
    again = await together(*(recognise(first[i], language) for i in stray))
    mended = dict(zip(stray, again, strict=True))
    return [list(mended.get(i, answer).segments) for i, answer in enumerate(answers)]


def other_language(assumed: str, heard: Sequence[tuple[int, str, float]]) -> str | None:
    """The language that is more likely spoken than not, if it is not the assumed one.

    `heard`: (ms of speech, tag, probability of it) of each stretch; a stretch counts for as much as it lasts.
    """
    weight: dict[str, float] = {}
    for length, tag, probability in heard:
        weight[tag] = weight.get(tag, 0.0) + length * probability
    likely = max(weight, key=lambda tag: weight[tag], default=assumed)
    if _same(likely, assumed) or weight[likely] * 2 <= sum(length for length, _, _ in heard):
        return None
    return likely


def _same(one: str, other: str) -> bool:
    return one.split("-", maxsplit=1)[0].lower() == other.split("-", maxsplit=1)[0].lower()


async def _chunks(context: Context, source: Ingested) -> AsyncIterator[Stretch]:
    """Stretches of speech of up to 30 s, by voice activity, looked for piece by piece."""
    speech = source.speech
    assert speech is not None
    total = wav.wav_info(speech).duration_ms
    at = 0
    while at < total:
        length = min(PIECE_MS, total - at)
        audio = await asyncio.to_thread(_samples, speech, at, at + length)
        with context.trace.span("transcribe", "voice activity"):
            likely = await asyncio.to_thread(vad.speech_probabilities, audio)
        spans = vad.chunks(vad.spans(likely, audio.size))
        close = vad.spans(likely, audio.size, **vad.CLOSE)
        last = at + length >= total
        if not last and spans and spans[-1][1] >= length - 500 and len(spans) > 1:
            spans, length = spans[:-1], spans[-1][0]  # speech goes on past the piece: look at it again, whole
        for start, end in spans:
            yield Stretch(at + start, at + end, vad.inside(close, start, end))
        at += length


def _samples(speech: Path, start_ms: int, end_ms: int) -> Int16Audio:
    info = wav.wav_info(speech)
    return wav.read_frames(info, start_ms * RATE // 1000, (end_ms - start_ms) * RATE // 1000).reshape(-1)


async def _aligned(context: Context, source: Ingested, text: str) -> AsyncIterator[list[Segment]]:
    """A plain text, timed against the audio."""
    engine = context.engines.align
    if engine is None or source.speech is None:
        raise MachineError(detail="no engine was chosen to time the transcript")
    meter = Meter(context, Stage.TRANSCRIBE, None, total=1)
    language = context.job.source_language
    key = fingerprint(
        source=context.job.source_id,
        track=context.job.request.audio_track,
        at=[source.start_ms, source.duration_ms],
        text=text,
        engine=[engine.info.name, engine.info.version],
    )
    if (known := context.folder.memo("align", key)) is None:
        await source.decoded()
        audio = await asyncio.to_thread(_samples, source.speech, 0, source.duration_ms)
        with context.trace.span("transcribe", "align"):
            answer = await engine(AlignItem(audio, 0, language, text), lane=context.job.id)
        context.count("align.called")
        known = dump(answer)
        context.folder.remember("align", key, known)
    meter.tick()
    yield load(known)


def dump(transcript: Transcript) -> list[dict[str, Any]]:
    """A transcript as plain data for a manifest."""
    return [asdict(segment) for segment in transcript.segments]


def load(rows: list[dict[str, Any]]) -> list[Segment]:
    """Segments from plain data."""
    return [Segment(**(row | {"words": tuple(Word(**word) for word in row["words"])})) for row in rows]
