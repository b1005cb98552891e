"""ingest: decode the chosen audio once, under the guard; everything later reads our own files."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dubbing.artifacts import fingerprint, write_atomically
from dubbing.errors import RangeError
from dubbing.media import extract, peaks, probe
from dubbing.stages.context import Context
from dubbing.types import MediaInfo, Stage

VERSION = 2
"""Part of the fingerprint: a change here decodes sources again."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What the later stages know of the source. Its sound is decoded meanwhile: who needs it awaits `decoded`."""

    info: MediaInfo
    start_ms: int
    """Time in the source that is time zero of the job; a keyframe when there is a video."""
    duration_ms: int
    """Length of the job's timeline."""
    bed: Path
    """48 kHz stereo WAV of the chosen track, once decoded."""
    speech: Path | None
    """16 kHz mono WAV of it, once decoded, when something has to be recognised or aligned."""
    sound: asyncio.Task[Sound]
    vocals: Path | None = None
    """48 kHz stereo WAV of the voices alone, once `separated`; None in a job that separates nothing."""
    background: Path | None = None
    """The same of everything else."""
    stems: asyncio.Task[Separated] | None = None

    async def decoded(self) -> Sound:
        """Wait for the decoded sound; raises what went wrong with it."""
        return await asyncio.shield(self.sound)

    async def separated(self) -> Separated | None:
        """Wait for voices and background; None in a job that separates nothing. Raises what went wrong."""
        return None if self.stems is None else await asyncio.shield(self.stems)

    async def aclose(self) -> None:
        """Stop decoding and separating if nobody needs it any more."""
        tasks = [task for task in (self.sound, self.stems) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Sound:
    """What decoding found."""

    duration_ms: int
    """Counted from the samples."""
    loudness_lufs: float
    """Integrated loudness of the source, LUFS; -70.0 when it is silent."""
    short_term_lufs: list[float]
    """Its loudness over time, a value a second."""


@dataclass(frozen=True, slots=True)
class Separated:
    """What separating found."""

    key: str
    """Fingerprint of the stems."""
    voices_dbfs: float
    """Level of the original voices' loud parts, dBFS; -120 when there are none."""


def wants_speech(context: Context) -> bool:
    """Whether a stage of this job listens to the source."""
    return any(choice.kind in ("transcribe", "align", "diarize") for choice in context.job.choices)


async def ingest(context: Context) -> Ingested:
    """Settle the range and start to decode; a second run finds that done. The caller closes what it gets."""
    bed = context.folder.work / "bed.wav"
    speech = context.folder.work / "speech.wav" if wants_speech(context) else None
    context.report_stage(Stage.INGEST, 0, 100)
    info = context.job.info
    start, end = await _range(context)
    sound = asyncio.create_task(_decode(context, info, start, end, bed, speech))
    if info.video is not None:
        duration = (min(end, info.duration_ms) if end is not None else info.duration_ms) - start
    else:
        duration = (await sound).duration_ms
    return Ingested(info, start, duration, bed, speech, sound)


async def _decode(
    context: Context, info: MediaInfo, start: int, end: int | None, bed: Path, speech: Path | None
) -> Sound:
    job, request = context.job, context.job.request
    key = fingerprint(v=VERSION, source=job.source_id, a=request.audio_track, s=request.start_ms, e=request.end_ms)
    known = context.folder.memo("ingest", key)
    if known is None or not bed.exists() or (speech is not None and not speech.exists()):
        extraction = partial(
            extract.extract,
            request.source,
            track=request.audio_track,
            start_ms=start or None,
            end_ms=end,
            bed=bed,
            speech=speech,
            max_minutes=job.max_duration_min,
            info=info,
        )
        with context.trace.span("ingest", "decode"):
            found = await context.leaf("ingest", extraction)
        known = {"audio_ms": found.duration_ms, "lufs": found.loudness_lufs, "short_term": found.short_term_lufs}
        context.folder.remember("ingest", key, known)
    context.report_stage(Stage.INGEST, 100, 100)
    return Sound(known["audio_ms"], known["lufs"], known["short_term"])


async def overview(context: Context, source: Ingested, path: Path) -> None:
    """Write how loud the source is over time, for the pictures of pages that open no media themselves."""
    request = context.job.request
    key = fingerprint(
        v=VERSION, source=context.job.source_id, a=request.audio_track, at=[source.start_ms, request.end_ms]
    )
    if path.exists() and context.folder.memo("peaks", key) is not None:
        return
    await source.decoded()
    found = await context.leaf("ingest", peaks.measure, source.bed)
    write_atomically(
        path, json.dumps({"schema": 1, "per_second": peaks.PER_SECOND, "full": peaks.FULL, "peaks": found})
    )
    context.folder.remember("peaks", key, len(found))


async def _range(context: Context) -> tuple[int, int | None]:
    """The range of the source to dub; its start moves to a keyframe, because pictures are copied."""
    request, info = context.job.request, context.job.info
    start, end = request.start_ms or 0, request.end_ms
    if start >= info.duration_ms or (end is not None and end <= start):
        shown = [clock(ms) for ms in (start, end or info.duration_ms, info.duration_ms)]
        raise RangeError(name=request.source.name, start=shown[0], end=shown[1], length=shown[2])
    if start and info.video is not None:
        keyframe = await probe.keyframe_before(request.source, start)
        if keyframe != start:
            context.log.info(
                "range starts at the keyframe %s (asked for %s): pictures are copied", clock(keyframe), clock(start)
            )
        start = keyframe
    return start, end


def clock(ms: int) -> str:
    """1:02:03.4 for people."""
    seconds, rest = divmod(ms, 1000)
    minutes, s = divmod(seconds, 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02}:{s:02}.{rest // 100}" if h else f"{m}:{s:02}.{rest // 100}"
