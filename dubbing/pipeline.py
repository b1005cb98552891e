"""One job from source to dub: the stages in order, streamed line by line.

    ingest -> transcribe, diarize -> script -> per target: translate -> speak -> fit -> mix -> package -> inspect
           -> separate ------------------------------------------------------------> mix

Every start is a resume: a stage looks up the fingerprint of what it is about to make before it makes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from dubbing import subtitles
from dubbing.artifacts import JobFolder, Names
from dubbing.engines.base import Engines
from dubbing.errors import DubbingError, WorkError
from dubbing.stages import diarize, separate, transcribe
from dubbing.stages import script as scripting
from dubbing.stages.context import Context, Feed, Leaf, both, together
from dubbing.stages.cues import write
from dubbing.stages.edits import Edits
from dubbing.stages.ingest import Ingested, ingest, overview
from dubbing.stages.inspect import inspect
from dubbing.stages.mix import mix
from dubbing.stages.package import Finished, package
from dubbing.stages.preview import Previews
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
    source = separate.begin(context, await ingest(context))
    turns = diarize.begin(context, source)
    previews = Previews(context, source)
    try:
        return await _dub(context, source, turns, previews)
    finally:
        await previews.stop()
        if turns is not None:
            turns.cancel()
            await asyncio.gather(turns, return_exceptions=True)
        await source.aclose()


async def _dub(
    context: Context, source: Ingested, turns: asyncio.Task[list[diarize.Turn]] | None, previews: Previews
) -> JobResult:
    request, names = context.job.request, Names(context.folder.path)
    spoken: Feed[Line] = Feed()
    own: dict[str, Feed[Line]] = {tag: Feed() for tag in request.targets if tag in request.translations}
    shared = [tag for tag in request.targets if tag not in own]
    context.log.info("job %s: %s -> %s", context.job.id, request.source.name, ", ".join(request.targets))
    for reason in (*(choice.reason for choice in context.job.choices), *context.job.notes):
        context.log.info("%s", reason)

    async def heard_best() -> Path:
        await source.decoded()
        await source.separated()
        return source.vocals or source.bed

    async def one(tag: str) -> Finished:
        edits = Edits(context, tag, names.subtitle(tag))
        edits.collect()
        lines = own.get(tag, spoken)
        target = Target(context, tag, source.duration_ms, heard_best)
        dubbed = await target.run(lines, edits, lambda: previews.look(target))
        edits.write(dubbed.lines, dubbed.texts, _cues(dubbed))
        return Finished(tag, dubbed, await mix(context, tag, source, dubbed.placed))

    async def listen() -> list[Line]:
        lines: list[Line] = []
        if shared or request.transcript is not None:
            heard = transcribe.segments(context, source)
            if turns is not None:
                heard = diarize.told_apart(heard, turns)
            async for segments in heard:
                fresh = scripting.script(segments, len(lines))
                lines.extend(fresh)
                spoken.extend(fresh)
        if lines:
            context.report_stage(Stage.SCRIPT, len(lines), len(lines))
        # Only now: a feed that ends early would pass for a film with nothing more to say.
        spoken.close()
        return lines

    given = together(*(_give(context, source, tag, feed, turns) for tag, feed in own.items()))
    meanwhile = both(source.separated(), given)
    (lines, _), finished = await both(both(listen(), meanwhile), together(*map(one, request.targets)))
    await source.decoded()
    _write_source_subtitles(context, lines, names)
    files, _ = await both(package(context, source, finished, names), overview(context, source, names.peaks))
    await previews.remove()
    result = inspect(context, source, lines, finished, files, names)
    context.folder.sweep()
    return result


async def _give(
    context: Context, source: Ingested, tag: str, feed: Feed[Line], turns: asyncio.Task[list[diarize.Turn]] | None
) -> None:
    """The lines of a translation the user gave."""
    cues = transcribe.clip_to_range(subtitles.read_subtitles(context.job.request.translations[tag]), source)
    if turns is not None:
        cues = diarize.assign(cues, await asyncio.shield(turns))
    feed.extend(scripting.verbatim(cues))
    feed.close()


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
