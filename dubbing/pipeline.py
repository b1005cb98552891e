"""One job from source to dub: the stages in order, streamed line by line.

    ingest -> transcribe -> script -> per target: translate -> speak -> fit -> mix -> package -> inspect

Every start is a resume: a stage looks up the fingerprint of what it is about to make before it makes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from dubbing import subtitles
from dubbing.artifacts import JobFolder, Names
from dubbing.engines.base import Engines
from dubbing.errors import DubbingError, WorkError
from dubbing.stages import script as scripting
from dubbing.stages import transcribe
from dubbing.stages.context import Context, Feed, Leaf, both, together
from dubbing.stages.cues import write
from dubbing.stages.edits import Edits
from dubbing.stages.ingest import Ingested, ingest
from dubbing.stages.inspect import inspect
from dubbing.stages.mix import mix
from dubbing.stages.package import Finished, package
from dubbing.stages.target import Dubbed, Target
from dubbing.types import Job, JobResult, Line, Progress, Segment, Stage

logger = logging.getLogger(__name__)


async def run(job: Job, engines: Engines, leaf: Leaf, report: Callable[[Progress], None]) -> JobResult:
    """Run a job to its end. Raises a DubbingError that says what happened; everything finished so far is kept."""
    folder = JobFolder(job.folder)
    context = Context(job, folder, engines, leaf, report, logging.getLogger("dubbing.job"))
    try:
        with folder.journal(context.log):
            return await _stages(context)
    except DubbingError:
        raise
    except Exception as error:  # the stage border: whatever escapes a stage reaches the user as an error with a code
        logger.exception("job %s failed", job.id)
        raise WorkError(stage="pipeline", detail=f"{type(error).__name__}: {error}") from error


async def _stages(context: Context) -> JobResult:
    source = await ingest(context)
    try:
        return await _dub(context, source)
    finally:
        await source.aclose()


async def _dub(context: Context, source: Ingested) -> JobResult:
    request, names = context.job.request, Names(context.folder.path)
    spoken: Feed[Line] = Feed()
    own = {tag: _given(context, source, tag) for tag in request.targets if tag in request.translations}
    shared = [tag for tag in request.targets if tag not in own]
    context.log.info("job %s: %s -> %s", context.job.id, request.source.name, ", ".join(request.targets))
    for choice in context.job.choices:
        context.log.info("%s", choice.reason)

    async def heard_best() -> Path:
        await source.decoded()
        return source.bed

    async def one(tag: str) -> Finished:
        edits = Edits(context, tag, names.subtitle(tag))
        edits.collect()
        lines = own.get(tag, spoken)
        dubbed = await Target(context, tag, source.duration_ms, heard_best).run(lines, edits)
        edits.write(dubbed.lines, dubbed.texts, _cues(dubbed))
        return Finished(tag, dubbed, await mix(context, tag, source, dubbed.placed))

    async def listen() -> list[Line]:
        lines: list[Line] = []
        try:
            if shared or request.transcript is not None:
                async for segments in transcribe.segments(context, source):
                    fresh = scripting.script(segments, len(lines))
                    lines.extend(fresh)
                    spoken.extend(fresh)
            if lines:
                context.report_stage(Stage.SCRIPT, len(lines), len(lines))
            return lines
        finally:
            spoken.close()

    lines, finished = await both(listen(), together(*map(one, request.targets)))
    await source.decoded()
    _write_source_subtitles(context, lines, names)
    files = await package(context, source, finished, names)
    result = inspect(context, source, lines, finished, files, names)
    context.folder.sweep()
    return result


def _given(context: Context, source: Ingested, tag: str) -> Feed[Line]:
    """The lines of a translation the user gave."""
    cues = subtitles.read_subtitles(context.job.request.translations[tag])
    feed: Feed[Line] = Feed()
    feed.extend(scripting.verbatim(transcribe.clip_to_range(cues, source)))
    feed.close()
    return feed


def _cues(dubbed: Dubbed) -> list[Segment]:
    """The target's cues: on screen while either the source or the dub speaks."""
    return [
        Segment(line.start_ms, max(line.end_ms, placed.placement.end_ms if placed else 0), text.text)
        for line, text, placed in zip(dubbed.lines, dubbed.texts, dubbed.placed, strict=True)
        if text.text.strip()
    ]


def _write_source_subtitles(context: Context, lines: list[Line], names: Names) -> None:
    if lines:
        cues = [Segment(line.start_ms, line.end_ms, line.text) for line in lines]
        write(names.subtitle(context.job.source_language), cues)
