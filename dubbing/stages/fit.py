"""fit: give every clip its place on the timeline, stretched where the plan could not prevent it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dubbing import timing
from dubbing.artifacts import fingerprint
from dubbing.media import resample, wav
from dubbing.stages.context import Context, in_order
from dubbing.stages.speak import Clip


@dataclass(frozen=True, slots=True)
class Placed:
    """A clip ready to be mixed."""

    path: Path
    """Mono WAV, already stretched."""
    placement: timing.Placement
    level_dbfs: float


async def fit(
    context: Context,
    target: str,
    clips: Sequence[Clip | None],
    places: Sequence[timing.Slot],
    limits: timing.Limits,
    duration_ms: int,
) -> list[Placed | None]:
    """Places for all clips of a target; None where there is no clip."""
    folder = context.folder.target(target) / "speech"
    with context.trace.span("fit", target):
        spoken = [clip.spoken if clip else None for clip in clips]
        placements = timing.fit(spoken, places, limits, duration_ms)

        async def one(pair: tuple[Clip | None, timing.Placement | None]) -> Placed | None:
            clip, placement = pair
            if clip is None or placement is None:
                return None
            path = clip.path
            if placement.stretch != 1.0:
                path = folder / f"{fingerprint(clip=clip.path.stem, stretch=placement.stretch)}.fit.wav"
                if not path.exists():
                    await asyncio.to_thread(_stretch, clip.path, path, placement)
            return Placed(path, placement, clip.level_dbfs)

        return await in_order(one, list(zip(clips, placements, strict=True)), 2)


def _stretch(source: Path, result: Path, placement: timing.Placement) -> None:
    audio, rate = wav.read_wav(source)
    wav.write_wav(result, resample.stretch(audio, rate, placement.stretch), rate)
