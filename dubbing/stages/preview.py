"""preview: the first minutes of a dub as a film of their own, to look at while the rest is made.

It stands aside: it takes no turn of the job's own work, its failure is a line in the log, and what the job makes is the
same to the byte with it and without it.
"""

from __future__ import annotations

import asyncio
from functools import partial

from dubbing.artifacts import Names, fingerprint
from dubbing.languages import native_name
from dubbing.media import mix as media_mix
from dubbing.media import mux
from dubbing.media.tags import mp4_refusal
from dubbing.stages.context import Context
from dubbing.stages.fit import fit
from dubbing.stages.ingest import Ingested
from dubbing.stages.mix import SPEECH_DBFS, clips_of
from dubbing.stages.target import Beginning, Target
from dubbing.types import MediaInfo

VERSION = 1
"""Part of the fingerprint: a change here makes previews again."""
FROM_MS = 180_000
"""A shorter dub is there soon enough."""
LEAST_MS, MOST_MS = 60_000, 120_000
"""Made once, as soon as so much is spoken, of at most so much."""
NICENESS = 5
"""About a quarter of a core where the job itself wants all of them."""


class Previews:
    """The previews of a job, one for each target at most."""

    def __init__(self, context: Context, source: Ingested) -> None:
        self._context, self._source, self._names = context, source, Names(context.folder.path)
        video = source.info.video
        self._audio_only = video is None
        possible = video is None or not mp4_refusal(video.codec)
        self._wanted = context.job.preview and possible and source.duration_ms >= FROM_MS
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def look(self, target: Target) -> None:
        """Begin the preview of a target if enough of it is spoken; where there is a whole dub, nobody needs one."""
        tag = target.tag
        if not self._wanted or tag in self._tasks or self._names.video(tag, self._audio_only).exists():
            return
        beginning = target.beginning()
        if beginning.until_ms >= LEAST_MS:
            self._tasks[tag] = asyncio.create_task(self._make(target, beginning))

    async def stop(self) -> None:
        """End what is being made; what is there stays for the next run."""
        for task in self._tasks.values():
            task.cancel()
        ends = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for tag, end in zip(self._tasks, ends, strict=True):
            if isinstance(end, Exception):
                self._context.log.warning("%s: no preview: %s", tag, end)
        self._tasks.clear()

    async def remove(self) -> None:
        """End and take away all previews: the films are there."""
        await self.stop()
        for tag in self._context.job.targets:
            self._names.preview(tag, self._audio_only).unlink(missing_ok=True)

    async def _make(self, target: Target, beginning: Beginning) -> None:
        context, source, tag = self._context, self._source, target.tag
        length_ms = min(beginning.until_ms, MOST_MS)
        placed = await fit(context, tag, beginning.clips, beginning.places, target.limits, source.duration_ms)
        clips = tuple(clip for clip in clips_of(placed, SPEECH_DBFS) if clip.start_ms < length_ms)
        output, folder = self._names.preview(tag, self._audio_only), context.folder.target(tag)
        key = fingerprint(
            v=VERSION,
            source=context.job.source_id,
            track=context.job.request.audio_track,
            at=[source.start_ms, length_ms],
            background=context.job.request.keep_background,
            clips=[[clip.path.name, clip.start_ms, clip.gain_db] for clip in clips],
        )
        if output.exists() and context.folder.memo(f"preview-{tag}", key):
            return
        await source.decoded()
        sound = media_mix.MixPlan(
            output=folder / "preview.aac",
            duration_ms=length_ms,
            clips=clips,
            bed=source.bed if context.job.request.keep_background else None,
            target_lufs=context.job.loudness_lufs,
            true_peak_db=context.job.true_peak_dbtp,
            workers=1,
            niceness=NICENESS,
        )
        film = mux.PackagePlan(
            source=context.job.request.source,
            dubs=(mux.DubTrack(sound.output, tag, native_name(tag)),),
            mp4=output,
            original_track=None,
            start_ms=source.start_ms,
            end_ms=source.start_ms + length_ms,
            max_minutes=context.job.max_duration_min,
        )
        with context.trace.span("preview", tag):
            await context.leaf("preview", partial(_film, sound, film, source.info))
        context.folder.remember(f"preview-{tag}", key, length_ms)
        context.log.info("%s: the first %d s can be seen in %s", tag, length_ms // 1000, output.name)


async def _film(sound: media_mix.MixPlan, film: mux.PackagePlan, info: MediaInfo) -> None:
    try:
        await media_mix.mix(sound)
        await mux.package(film, info=info)
    finally:
        sound.output.unlink(missing_ok=True)
