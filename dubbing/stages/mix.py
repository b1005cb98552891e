"""mix: the dub over the ducked original, or over the background alone where there is one, at broadcast loudness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dubbing.artifacts import fingerprint
from dubbing.media import mix as media_mix
from dubbing.stages.context import Context
from dubbing.stages.fit import Placed
from dubbing.stages.ingest import Ingested
from dubbing.types import Job, Stage

VERSION = 2
"""Part of the fingerprint: a change here mixes again."""
SPEECH_DBFS = -20.0
"""Level every line's loud parts are brought to before mixing; loudness is set on the sum."""
MOST_GAIN_DB = 18.0
BACKGROUND_DUCK_DB = 4.0
"""How far a background without voices goes down: it was mixed under speech already, and this hides what is left of them."""
VOICES_DBFS = (-32.0, -14.0)
"""Levels of original voices that are believed; beyond them the separation has failed, or found next to nothing."""
TOLERANCE_LU = 1.0
"""A result this far from the asked loudness is something the user should know."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """The sound of one target."""

    path: Path
    """AAC, 48 kHz stereo."""
    result: media_mix.MixResult


async def mix(context: Context, target: str, source: Ingested, placed: Sequence[Placed | None]) -> Mixed:
    """Mix a target; finds the result of an earlier run when nothing changed."""
    job = context.job
    stems = await source.separated()
    clips = clips_of(placed, SPEECH_DBFS if stems is None else level_of_dub(stems.voices_dbfs))
    key = fingerprint(
        v=VERSION,
        source=job.source_id,
        track=job.request.audio_track,
        at=[source.start_ms, source.duration_ms],
        background=job.request.keep_background,
        clips=[[c.path.name, c.start_ms, c.gain_db] for c in clips],
        levels=[job.loudness_lufs, job.true_peak_dbtp],
        **({} if stems is None else {"stems": [stems.key, BACKGROUND_DUCK_DB]}),
    )
    folder = context.folder.target(target)
    output = folder / f"dub-{key}.aac"
    context.report_stage(Stage.MIX, 0, 100, target)
    known = context.folder.memo(f"mix-{target}", key) if output.exists() else None
    if known is not None:
        context.count("mix.kept")
        result = media_mix.MixResult(**known)
    else:
        await source.decoded()
        for old in folder.glob("dub-*.aac"):
            old.unlink()
        plan = _plan(job, source, clips, output, stems is not None)
        with context.trace.span("mix", target):
            result = await context.leaf("mix", media_mix.mix, plan)
        context.folder.remember(f"mix-{target}", key, asdict(result))
    if abs(result.integrated_lufs - job.loudness_lufs) > TOLERANCE_LU:
        context.warn(f"{target}: {result.note or f'the loudness is {result.integrated_lufs:.1f} LUFS'}")
    context.log.info(
        "%s: mixed at %.1f LUFS, true peak %.1f dBTP", target, result.integrated_lufs, result.true_peak_dbtp
    )
    context.report_stage(Stage.MIX, 100, 100, target)
    return Mixed(output, result)


def clips_of(placed: Sequence[Placed | None], speech_dbfs: float) -> tuple[media_mix.Clip, ...]:
    """The lines that are not silent, each brought to `speech_dbfs`."""
    return tuple(
        media_mix.Clip(p.path, p.placement.start_ms, round(min(speech_dbfs - p.level_dbfs, MOST_GAIN_DB), 2))
        for p in placed
        if p is not None
    )


def _plan(
    job: Job, source: Ingested, clips: tuple[media_mix.Clip, ...], output: Path, parted: bool
) -> media_mix.MixPlan:
    plan = media_mix.MixPlan(
        bed=source.bed if job.request.keep_background else None,
        duration_ms=source.duration_ms,
        clips=clips,
        output=output,
        workdir=output.parent,
        target_lufs=job.loudness_lufs,
        true_peak_db=job.true_peak_dbtp,
    )
    if parted and plan.bed is not None:
        plan = replace(plan, bed=source.background, duck_db=BACKGROUND_DUCK_DB)
    return plan


def level_of_dub(voices_dbfs: float) -> float:
    """The dub is as loud as the voices it replaces, so that the background stands to it as it stood to them."""
    low, high = VOICES_DBFS
    return voices_dbfs if low <= voices_dbfs <= high else SPEECH_DBFS
