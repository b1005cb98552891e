"""package: films for phones and for shelves, with the pictures copied as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dubbing.artifacts import Names, fingerprint, write_atomically
from dubbing.languages import native_name
from dubbing.media import heads, mux
from dubbing.media.tags import mp4_refusal
from dubbing.stages.context import Context, together
from dubbing.stages.ingest import Ingested
from dubbing.stages.mix import Mixed
from dubbing.stages.target import Dubbed
from dubbing.types import Stage

VERSION = 1
"""Part of the fingerprint: a change here packages again."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One target, ready to be packaged."""

    tag: str
    dubbed: Dubbed
    mixed: Mixed


@dataclass(frozen=True, slots=True)
class Packaged:
    """The files of a job."""

    files: dict[str, list[Path]]
    """Target language -> its videos (the one for phones first, where there is one), then its subtitles."""
    notes: tuple[str, ...]
    """What was left out, and why."""


async def package(context: Context, source: Ingested, finished: Sequence[Finished], names: Names) -> Packaged:
    """Write one MP4 a target and one MKV with all of them, side by side: one ffmpeg would copy to them in turn."""
    audio_only = source.info.video is None
    collection = names.collection(audio_only)
    plans = _plans(context, source, finished, names, collection)
    key = fingerprint(
        v=VERSION,
        plans=[[repr(plan), [_content(t.path) for t in plan.subtitles]] for plan in plans],
        source=context.job.source_id,
    )
    context.report_stage(Stage.PACKAGE, 0, 100)
    known = context.folder.memo("package", key)
    if known is not None and all(Path(path).exists() for path in known["made"]):
        context.count("package.kept")
    else:
        for target in finished:
            names.original_head(target.tag).unlink(missing_ok=True)  # it goes with one film alone
        made = await together(*(_write(context, source, plan) for plan in plans))
        known = {
            "made": [str(path) for one in made for path in (one.mp4, one.mkv) if path],
            "notes": list(dict.fromkeys(filter(None, [_mp4_refusal(source), *(n for one in made for n in one.notes)]))),
        }
        context.folder.remember("package", key, known)
    await asyncio.to_thread(_offer_original, context, source, finished, names)
    context.log.info("packaged %s", ", ".join(Path(path).name for path in known["made"]))
    context.report_stage(Stage.PACKAGE, 100, 100)
    written = {Path(path) for path in known["made"]}
    files = {}
    for target in finished:
        video, subtitle = names.video(target.tag, audio_only), names.subtitle(target.tag)
        texts = [path for path in (subtitle, subtitle.with_suffix(".vtt")) if path.exists()]
        files[target.tag] = [path for path in (video, collection) if path in written] + texts
    return Packaged(files, tuple(known["notes"]))


def _offer_original(context: Context, source: Ingested, finished: Sequence[Finished], names: Names) -> None:
    """Write what lets a browser play each film with the original's sound, where it knows the codec."""
    if source.info.audio[context.job.request.audio_track - 1].codec not in heads.PLAYABLE:
        return
    for target in finished:
        film, head = names.video(target.tag, source.info.video is None), names.original_head(target.tag)
        if film.exists() and not head.exists() and (exchanged := heads.with_sounds_exchanged(film)):
            write_atomically(head, exchanged)


def _content(path: Path) -> str:
    return fingerprint(text=path.read_text("utf-8"))


async def _write(context: Context, source: Ingested, plan: mux.PackagePlan) -> mux.Packaged:
    name = (plan.mp4 or plan.mkv or plan.source).name
    with context.trace.span("package", name):
        return await context.leaf("package", partial(mux.package, plan, info=source.info))


def _plans(
    context: Context, source: Ingested, finished: Sequence[Finished], names: Names, collection: Path
) -> list[mux.PackagePlan]:
    job = context.job
    dubs = {
        target.tag: mux.DubTrack(target.mixed.path, target.tag, f"{native_name(target.tag)} (dub)")
        for target in finished
    }
    texts = {
        tag: mux.SubtitleTrack(names.subtitle(tag), tag, native_name(tag))
        for tag in (*dubs, job.source_language)
        if names.subtitle(tag).exists()
    }

    def plan(tags: Sequence[str], mp4: Path | None, mkv: Path | None) -> mux.PackagePlan:
        shown = dict.fromkeys((*tags, job.source_language))
        return mux.PackagePlan(
            source=job.request.source,
            dubs=tuple(dubs[tag] for tag in tags),
            mp4=mp4,
            mkv=mkv,
            subtitles=tuple(texts[tag] for tag in shown if tag in texts),
            original_track=job.request.audio_track,
            original_language=job.source_language,
            original_title=f"{native_name(job.source_language)} (original)",
            start_ms=source.start_ms,
            end_ms=job.request.end_ms,
            max_minutes=job.max_duration_min,
        )

    audio_only = source.info.video is None
    phones = [] if _mp4_refusal(source) else [plan([tag], names.video(tag, audio_only), None) for tag in dubs]
    return [*phones, plan(list(dubs), None, collection)]


def _mp4_refusal(source: Ingested) -> str:
    """Why the pictures cannot live in MP4; empty when they can."""
    return mp4_refusal(source.info.video.codec if source.info.video else None)
