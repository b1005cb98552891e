"""Background and dub become one sound track: ducked, at the asked loudness, as AAC; memory does not grow with length.

Two passes over the mix, both in pieces on several threads (numpy and libav leave Python free): measure, then gain,
limit and encode. The mix is rendered anew in each pass, which costs less than writing and reading 1.4 GB an hour.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from dubbing.errors import StoppedError
from dubbing.media import aac, guard
from dubbing.media.ducking import Ducking
from dubbing.media.files import disk_errors, partial
from dubbing.media.limiter import limited
from dubbing.media.loudness import (
    SETTLE_STEPS,
    SILENCE_LUFS,
    STEP_MS,
    Float32Audio,
    Measured,
    Meter,
    integrated,
    short_term,
)
from dubbing.media.mixer import RATE, Clip, Mixer, Placed, place
from dubbing.media.wav import WavInfo, wav_info

__all__ = ["Clip", "MixPlan", "MixResult", "mix"]

T = TypeVar("T")
_STEP = RATE * STEP_MS // 1000
_GRID = math.lcm(_STEP, aac.FRAME)
"""Pieces begin on whole AAC packets and whole loudness steps: every 3.2 s."""
_SHORTEST, _LONGEST = 2 * _GRID, 94 * _GRID
"""6.4 s, so that even a short clip uses both cores, and 301 s."""
_SETTLE = SETTLE_STEPS * _STEP
MAX_GAIN_DB = 20.0
"""A programme this much too quiet is left quiet: more would only raise its noise."""
_TOLERANCE_LU = 0.5
_SAMPLED = 4
"""Pieces of a long film on which the limiter's effect is tried before all are encoded."""
_SAMPLE_ROUNDS = 3
_MOST_MADE_UP_DB = 6.0
_OVERSHOOT_DB = 1.0
"""Room under the ceiling for what AAC adds to peaks; most programmes need less."""
Report = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class MixPlan:
    """One sound track to make."""

    output: Path
    """`.aac` (ADTS) or `.m4a`."""
    duration_ms: int
    """Length of the result; the video's."""
    clips: tuple[Clip, ...]
    """Overlapping clips are summed."""
    bed: Path | None = None
    """48 kHz stereo WAV laid under the dub; None for the dub alone."""
    workdir: Path | None = None
    """Folder for pieces; the output's folder when None."""
    attack_ms: int = 150
    """The background is down this long after it starts to go, when speech begins."""
    release_ms: int = 400
    hold_ms: int = 300
    """Pauses shorter than attack + release + hold stay ducked."""
    duck_db: float = 14.0
    """How far the background goes down."""
    target_lufs: float = -16.0
    true_peak_db: float = -1.5
    """Ceiling, dBTP, kept by the encoded result."""
    bitrate: int = 192_000
    """Bits per second."""
    workers: int = 2
    """Pieces worked on at once."""
    niceness: int = 0
    """How far this stands back when others want the cores; on Linux."""


@dataclass(frozen=True, slots=True)
class MixResult:
    """The sound track made, measured on the encoded file."""

    integrated_lufs: float
    true_peak_dbtp: float
    duration_ms: int
    """Whole AAC packets: within 11 ms of the plan's."""
    gain_db: float
    """Applied to the whole mix."""
    short_term_lufs: list[float]
    """Loudness over time (loudness.short_term), a value a second."""
    note: str = ""
    """What a user should know, such as a programme too quiet to be raised."""


@dataclass(frozen=True, slots=True)
class _Piece:
    index: int
    start: int
    """Frames, on the grid."""
    stop: int
    path: Path
    """Its encoded packets."""


async def mix(plan: MixPlan, *, on_progress: Report | None = None) -> MixResult:
    """Make the sound track. `on_progress` hears 0..100. Cancelling stops within a block and leaves no file."""
    stop = threading.Event()
    folder = plan.workdir or plan.output.parent
    work = Path(tempfile.mkdtemp(prefix=f".{plan.output.stem}.", suffix=".part", dir=folder))
    pool = ThreadPoolExecutor(
        plan.workers, thread_name_prefix="mix", initializer=_stand_back, initargs=(plan.niceness,)
    )
    try:
        with disk_errors(folder, plan.duration_ms * plan.bitrate // 4000):
            job = await asyncio.get_running_loop().run_in_executor(pool, _Job, plan, work, stop)
            result = await _mix(job, pool, on_progress or (lambda percent: None))
            with partial(plan.output) as temporary:
                await _join(job, work, temporary)
        return result
    finally:
        stop.set()
        pool.shutdown(wait=True)
        shutil.rmtree(work, ignore_errors=True)


def _stand_back(niceness: int) -> None:
    """Lower the priority of this thread alone, which Linux can and the thread's next work cannot take back."""
    if niceness and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


async def _mix(job: _Job, pool: ThreadPoolExecutor, report: Report) -> MixResult:
    measured = await _each(pool, job.measure, job.pieces, lambda done: report(done * 20 // len(job.pieces)))
    loudness = integrated(piece.momentary for piece in measured)
    gain_db, note = _gain(loudness, job.plan.target_lufs)
    if not note:
        gain_db = await _made_up(job, pool, measured, gain_db)
    ceilings = dict.fromkeys(range(len(job.pieces)), job.plan.true_peak_db - _OVERSHOOT_DB)
    final: dict[int, Measured] = {}
    todo = job.pieces
    for attempt in range(2):

        def encode(piece: _Piece, gain_db: float = gain_db) -> None:
            job.encode(piece, gain_db, ceilings[piece.index])

        await _each(pool, encode, todo, lambda done: report(20 + done * 60 // len(job.pieces)))
        checked = await _each(pool, job.check, todo, lambda done: report(80 + done * 20 // len(job.pieces)))
        final |= {piece.index: result for piece, result in zip(todo, checked, strict=True)}
        reached = integrated(final[i].momentary for i in sorted(final))
        too_loud = {i: one.true_peak_db - job.plan.true_peak_db for i, one in final.items()}
        off = 0.0 if note else job.plan.target_lufs - reached
        todo = [p for p in job.pieces if too_loud[p.index] > 0 or abs(off) > _TOLERANCE_LU]
        if not todo or attempt:
            break
        gain_db += off if abs(off) > _TOLERANCE_LU else 0.0
        for i, over in too_loud.items():
            ceilings[i] -= over + 0.2 if over > 0 else 0.0
    peak = max(one.true_peak_db for one in final.values())
    if todo:
        note = note or f"the loudness is {reached:.1f} LUFS and the true peak {peak:.1f} dBTP: loud peaks left no room"
    notes = "; ".join(filter(None, (note, job.overrun())))
    over_time = short_term(np.concatenate([final[i].momentary for i in sorted(final)]))
    duration_ms = job.packets * aac.FRAME * 1000 // RATE
    return MixResult(round(reached, 2), round(peak, 2), duration_ms, round(gain_db, 2), over_time, notes)


async def _made_up(job: _Job, pool: ThreadPoolExecutor, measured: list[Measured], gain_db: float) -> float:
    """The gain with which a sample of the pieces is as loud behind the limiter as `gain_db` alone would make it.

    Peaky voices lose up to 1 LU in the limiter; finding that here costs a few minutes' mixing, where encoding all
    pieces a second time would double the work.
    """
    sample = job.pieces[:: max(1, len(job.pieces) // _SAMPLED)]
    wanted = integrated(measured[piece.index].momentary for piece in sample) + gain_db
    ceiling_db = job.plan.true_peak_db - _OVERSHOOT_DB
    tried = gain_db
    for _ in range(_SAMPLE_ROUNDS):

        def hear(piece: _Piece, gain: float = tried) -> Measured:
            return job.measure(piece, gain, ceiling_db)

        heard = await _each(pool, hear, sample, lambda done: None)
        lost = wanted - integrated(one.momentary for one in heard)
        tried = min(tried + lost, gain_db + _MOST_MADE_UP_DB)
        if abs(lost) < _TOLERANCE_LU / 2:
            break
    return tried


def _gain(loudness: float, target: float) -> tuple[float, str]:
    """Gain in dB for a programme of this loudness, and why when it is not simply the difference."""
    if loudness <= SILENCE_LUFS:
        return 0.0, "the programme is silent, so its loudness was left alone"
    if target - loudness > MAX_GAIN_DB:
        return (
            MAX_GAIN_DB,
            f"the programme is very quiet ({loudness:.1f} LUFS) and was raised by {MAX_GAIN_DB:.0f} dB only",
        )
    return target - loudness, ""


async def _each(
    pool: ThreadPoolExecutor, work: Callable[[_Piece], T], pieces: Iterable[_Piece], heard: Callable[[int], None]
) -> list[T]:
    """Run `work` on every piece, as many at once as the pool has threads; answers in order."""
    loop = asyncio.get_running_loop()
    futures = [loop.run_in_executor(pool, work, piece) for piece in pieces]
    for future in futures:
        future.add_done_callback(_heard_of)
    for done, future in enumerate(asyncio.as_completed(futures), 1):
        await future
        heard(done)
    return [future.result() for future in futures]


def _heard_of(piece: asyncio.Future[T]) -> None:
    """Whoever stops a mix does not ask how its pieces ended, and asyncio would complain of that."""
    if not piece.cancelled():
        piece.exception()


async def _join(job: _Job, work: Path, output: Path) -> None:
    joined = output if output.suffix == ".aac" else work / "joined.aac"
    await asyncio.to_thread(_concatenate, [piece.path for piece in job.pieces], joined)
    if joined is not output:
        argv = ["ffmpeg", "-v", "warning", "-y", *guard.own(joined, "aac"), "-map_metadata", "-1", "-c", "copy"]
        argv += ["-bsf:a", "aac_adtstoasc", "-movflags", "+faststart", "-f", "mp4", f"file:{output}"]
        timeout_s = guard.timeout_for(job.plan.duration_ms)
        await guard.run(argv, name=job.plan.output.name, timeout_s=timeout_s)


def _concatenate(parts: list[Path], output: Path) -> None:
    with output.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)


class _Job:
    """The plan worked out: pieces, placed clips, ducking."""

    def __init__(self, plan: MixPlan, work: Path, stop: threading.Event):
        self.plan, self._stop = plan, stop
        frames = plan.duration_ms * RATE // 1000
        self.packets = max(1, round(frames / aac.FRAME))
        self._bed: WavInfo | None = wav_info(plan.bed) if plan.bed else None
        self._clips: tuple[Placed, ...] = place(plan.clips)
        ms = RATE // 1000
        self._ducking = Ducking(
            ((clip.start, clip.end) for clip in self._clips),
            attack=plan.attack_ms * ms,
            release=plan.release_ms * ms,
            hold=plan.hold_ms * ms,
            depth_db=plan.duck_db,
        )
        self._frames = self.packets * aac.FRAME
        # The same pieces for any number of workers: the same plan gives the same bytes everywhere.
        length = min(max(self._frames // 8, _SHORTEST), _LONGEST) // _GRID * _GRID
        starts = range(0, self._frames, length)
        self.pieces = [
            _Piece(i, at, min(at + length, self._frames), work / f"{i:04d}.aac") for i, at in enumerate(starts)
        ]

    def measure(self, piece: _Piece, gain_db: float = 0.0, ceiling_db: float = math.inf) -> Measured:
        """Loudness of a piece of the mix behind a gain and the limiter."""
        start = max(0, piece.start - _SETTLE)
        meter = Meter()
        for block in self._loud(start, piece.stop, gain_db, ceiling_db):
            meter.feed(block)
        return meter.result((piece.start - start) // _STEP)

    def encode(self, piece: _Piece, gain_db: float, ceiling_db: float) -> None:
        """Gain, limit and encode a piece into its file."""
        start = max(0, piece.start - aac.PRE_ROLL * aac.FRAME)
        loud = self._loud(start, piece.stop + aac.POST_ROLL * aac.FRAME, gain_db, ceiling_db)
        with piece.path.open("wb") as file:
            for at, packet in aac.packets(loud, start, self.plan.bitrate):
                if piece.start <= at < piece.stop:
                    file.write(aac.adts(packet))

    def check(self, piece: _Piece) -> Measured:
        """Loudness and true peak of an encoded piece, decoded again together with the end of the one before it."""
        data, lead = piece.path.read_bytes(), 0
        if piece.index:
            lead = min(_SETTLE // aac.FRAME + 2, (piece.start - self.pieces[piece.index - 1].start) // aac.FRAME)
            before = self.pieces[piece.index - 1].path
            data = before.read_bytes()[aac.tail_offset(before, lead) :] + data
        settle = _SETTLE if piece.index else 0
        meter = Meter(true_peak=True, planar=True, skip_frames=lead * aac.FRAME - settle)
        for frame in aac.decode(data):
            if self._stop.is_set():
                raise StoppedError
            meter.push(frame)
        return meter.result(settle // _STEP)

    def overrun(self) -> str:
        """A sentence when speech runs past the end of the result."""
        late = sum(clip.end > self._frames + aac.FRAME for clip in self._clips)
        return f"{late} line(s) run past the end and are cut there" if late else ""

    def _loud(self, start: int, stop: int, gain_db: float, ceiling_db: float) -> Iterator[Float32Audio]:
        blocks = self._blocks(start, stop)
        if gain_db:
            blocks = _scaled(blocks, 10 ** (gain_db / 20))
        return limited(blocks, 10 ** (ceiling_db / 20)) if math.isfinite(ceiling_db) else blocks

    def _blocks(self, start: int, stop: int) -> Iterator[Float32Audio]:
        with Mixer(self._bed, self._clips, self._ducking, self._frames) as mixer:
            for block in mixer.blocks(start, stop):
                if self._stop.is_set():
                    raise StoppedError
                yield block


def _scaled(blocks: Iterable[Float32Audio], gain: float) -> Iterator[Float32Audio]:
    for block in blocks:
        yield np.multiply(block, np.float32(gain), out=block)
