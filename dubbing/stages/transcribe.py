"""transcribe: who said what and when, by recognition or from what the user gave, streamed as segments."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dubbing import subtitles
from dubbing.artifacts import Manifest, fingerprint
from dubbing.engines import vad
from dubbing.engines.base import AlignItem, TranscribeItem, Transcript
from dubbing.errors import MachineError, NoSpeechError
from dubbing.media import wav
from dubbing.stages.context import Context, Meter
from dubbing.stages.ingest import Ingested
from dubbing.types import Int16Audio, Segment, Stage, Word

RATE = 16_000
"""Hz, of the audio that recognisers take."""
PIECE_MS = 300_000
"""Audio looked at by the voice-activity detector at once; the first lines are ready long before the last piece is read."""
WINDOW = 4
"""Chunks of one job in flight."""
LOW_CONFIDENCE = 0.6
"""Mean word posterior under which recognised text is more often wrong than useful."""
_NOT_SPEECH = re.compile(r"^\s*(\[[^]]*\]|\([^)]*\)|[♪♫#*].*|-+)\s*$")


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
    done = Manifest(context.folder.work / "transcribe.jsonl")
    meter = Meter(context, Stage.TRANSCRIBE, None)
    language = context.job.source_language
    running: list[asyncio.Task[list[Segment]]] = []

    async def one(start: int, end: int) -> list[Segment]:
        key = fingerprint(
            source=context.job.source_id,
            track=context.job.request.audio_track,
            at=[source.start_ms + start, source.start_ms + end],
            language=language,
            engine=[engine.info.name, engine.info.version],
        )
        if (known := done.get(key)) is not None:
            context.count("transcribe.kept")
        else:
            audio = await asyncio.to_thread(_samples, speech, start, end)
            with context.trace.span("transcribe", f"{start / 1000:.1f}-{end / 1000:.1f} s"):
                answer = await engine(TranscribeItem(audio, start, language), lane=context.job.id)
            context.count("transcribe.called")
            known = dump(answer)
            done.put(key, known)
        meter.tick()
        return load(known)

    try:
        async for start, end in _chunks(context, source):
            running.append(asyncio.create_task(one(start, end)))
            meter.total = max(meter.total + 1, len(running))
            while len(running) >= WINDOW:
                yield await running.pop(0)
        while running:
            yield await running.pop(0)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _chunks(context: Context, source: Ingested) -> AsyncIterator[tuple[int, int]]:
    """Stretches of speech of up to 30 s, by voice activity, looked for piece by piece."""
    speech = source.speech
    assert speech is not None
    total = wav.wav_info(speech).duration_ms
    at = 0
    while at < total:
        length = min(PIECE_MS, total - at)
        audio = await asyncio.to_thread(_samples, speech, at, at + length)
        with context.trace.span("transcribe", "voice activity"):
            spans = vad.chunks(await asyncio.to_thread(vad.speech_spans, audio))
        last = at + length >= total
        if not last and spans and spans[-1][1] >= length - 500 and len(spans) > 1:
            spans, length = spans[:-1], spans[-1][0]  # speech goes on past the piece: look at it again, whole
        for start, end in spans:
            yield at + start, at + end
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
