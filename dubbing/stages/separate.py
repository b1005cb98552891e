"""separate: the bed becomes voices and background, piece by piece, while the speech is being recognised.

Pieces overlap and are faded into each other, so that no seam is heard. Both stems grow as files from start to end: memory
does not grow with the film, and a resume goes on where the files end.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dubbing.artifacts import fingerprint
from dubbing.engines.base import EngineClient, SeparateItem, Stems
from dubbing.media import wav
from dubbing.media.files import disk_errors
from dubbing.media.growing import GrowingWav
from dubbing.stages.context import Context, Meter
from dubbing.stages.ingest import Ingested, Separated
from dubbing.types import Int16Audio, Stage

VERSION = 1
"""Part of the fingerprint: a change here separates again."""
RATE = 48_000
PIECE = RATE * 7_800 // 1000
"""Frames an engine gets at once; as long as HTDemucs was trained on."""
HOP = PIECE * 3 // 4
"""Frames from one piece to the next: a quarter of each is faded."""
FADE = PIECE - HOP
WINDOW = 8
"""Pieces of one job in flight: two batches, so that the model never waits for us."""
_BLOCK = RATE * 10
_FRAME = RATE // 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the bed, in frames."""

    index: int
    start: int
    stop: int


def begin(context: Context, source: Ingested) -> Ingested:
    """Start to separate if the job has an engine for it; who needs the stems awaits `separated` of what is answered."""
    engine = context.engines.separate
    if engine is None:
        return source
    folder = context.folder.work / "stems"
    folder.mkdir(exist_ok=True)
    placed = replace(source, vocals=folder / "vocals.wav", background=folder / "background.wav")
    return replace(placed, stems=asyncio.create_task(_separate(context, placed, engine)))


def pieces(frames: int) -> list[Piece]:
    """Pieces that cover so many frames; each but the last is whole, and overlaps the next by FADE."""
    count = max(1, math.ceil((frames - FADE) / HOP))
    return [Piece(i, i * HOP, min(i * HOP + PIECE, frames)) for i in range(count)]


def faded(tail: Int16Audio, head: Int16Audio) -> Int16Audio:
    """`tail` going over into `head`, both of shape (frames, channels): linear, for they are nearly the same sound."""
    up = ((np.arange(len(head), dtype=np.float32) + 0.5) / max(len(head), 1))[:, None]
    return np.rint(tail * (1 - up) + head * up).astype(np.int16)


async def _separate(context: Context, source: Ingested, engine: EngineClient[SeparateItem, Stems]) -> Separated:
    await source.decoded()
    assert source.vocals is not None and source.background is not None
    key = fingerprint(
        v=VERSION,
        source=context.job.source_id,
        track=context.job.request.audio_track,
        at=[source.start_ms, context.job.request.end_ms],
        engine=[engine.info.name, engine.info.version],
        pieces=[PIECE, HOP],
    )
    stems = (source.vocals, source.background)
    known = context.folder.memo("separate", key)
    if known is not None and all(path.exists() for path in stems):
        context.count("separate.kept")
        context.report_stage(Stage.SEPARATE, 1, 1)
        return Separated(key, known["voices_dbfs"])
    if context.folder.memo("separating", key) is None:
        for path in source.vocals.parent.iterdir():
            path.unlink()
        context.folder.remember("separating", key, True)
    bed = wav.wav_info(source.bed)
    with disk_errors(source.vocals.parent, bed.frames * 8):
        await _write(context, bed, stems, engine)
    level = await asyncio.to_thread(voices_dbfs, source.vocals)
    context.folder.remember("separate", key, {"voices_dbfs": level})
    context.log.info("voices and background are apart; the voices are at %.1f dBFS", level)
    return Separated(key, level)


async def _write(
    context: Context, bed: wav.WavInfo, paths: tuple[Path, Path], engine: EngineClient[SeparateItem, Stems]
) -> None:
    """Go on with both stems where the shorter one ends; the piece before is asked for again, to fade out of it."""
    plan = pieces(bed.frames)
    meter = Meter(context, Stage.SEPARATE, None, total=len(plan))
    with ExitStack() as stack:
        files = [stack.enter_context(GrowingWav(path, bed.frames, 2, RATE)) for path in paths]
        first = min(min(file.done for file in files) // HOP, len(plan) - 1)
        for file in files:
            file.cut(first * HOP)
        meter.tick(first)
        tails: tuple[Int16Audio, ...] = ()
        async with aclosing(_parted(context, bed, plan[max(0, first - 1) :], engine)) as parted:
            async for piece, stems in parted:
                sounds = (stems.vocals, stems.background)
                if piece.index >= first:
                    for file, sound in zip(files, _joined(piece, sounds, tails, plan), strict=True):
                        await asyncio.to_thread(file.append, sound)
                    meter.tick()
                tails = tuple(sound[HOP:] for sound in sounds)
        for file in files:
            file.finish()


def _joined(
    piece: Piece, sounds: tuple[Int16Audio, ...], tails: tuple[Int16Audio, ...], plan: list[Piece]
) -> Iterator[Int16Audio]:
    """What of a piece is settled: all but its end, which the next one fades out of."""
    end = None if piece.index == len(plan) - 1 else HOP
    for at, sound in enumerate(sounds):
        yield np.concatenate([faded(tails[at], sound[:FADE]), sound[FADE:end]]) if tails else sound[:end]


async def _parted(
    context: Context, bed: wav.WavInfo, todo: list[Piece], engine: EngineClient[SeparateItem, Stems]
) -> AsyncGenerator[tuple[Piece, Stems], None]:
    """Pieces and their stems, in order, at most WINDOW of them in flight."""

    async def one(piece: Piece) -> Stems:
        audio = await asyncio.to_thread(wav.read_frames, bed, piece.start, piece.stop - piece.start)
        with context.trace.span("separate", f"{piece.start / RATE:.1f}-{piece.stop / RATE:.1f} s"):
            answer = await engine(SeparateItem(audio), lane=context.job.id)
        context.count("separate.called")
        return answer

    running: list[tuple[Piece, asyncio.Task[Stems]]] = []
    try:
        for piece in todo:
            if len(running) >= WINDOW:
                yield running[0][0], await running[0][1]
                running.pop(0)
            running.append((piece, asyncio.create_task(one(piece))))
        while running:
            yield running[0][0], await running[0][1]
            running.pop(0)
    finally:
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)


def voices_dbfs(path: Path) -> float:
    """Level of the loud parts of a 48 kHz WAV: RMS of the 50 ms frames within 20 dB of the loudest, dBFS; -120 if silent."""
    found = []
    for block in wav.blocks(wav.wav_info(path), _BLOCK):
        whole = block[: len(block) // _FRAME * _FRAME].astype(np.float32)
        found.append(np.mean(whole.reshape(-1, _FRAME * block.shape[1]) ** 2, axis=1))
    power = np.concatenate(found) if found else np.zeros(0, np.float32)
    loud = power[power >= power.max(initial=0.0) / 100]
    return round(float(10 * np.log10(loud.mean() / 32768.0**2 + 1e-12)), 2) if loud.size else -120.0
