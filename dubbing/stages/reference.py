"""Clips of the speakers' own clean speech, for voices that are cloned: which stretches to take, and the WAV made of them."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dubbing.artifacts import fingerprint
from dubbing.media import resample, wav
from dubbing.stages.context import Context
from dubbing.stages.levels import level_dbfs
from dubbing.types import Int16Audio, Line

VERSION = 1
"""Part of the file's name: a change here makes references, and then lines, again."""
LONGEST_MS = 15_000
SHORTEST_MS = 3_000
"""Less of a speaker is no voice."""
PIECE_MS = 1_000
"""Shorter stretches are mostly interjections."""
PLENTY_MS = 6_000
"""Stretches longer than this are no better for being longer."""
GUARD_MS = 300
"""Kept from other speakers' lines: turns are found late or early by about as much."""
FADE_MS = 10
QUIET_DBFS = -50.0
"""A stretch quieter than this holds no speech."""
SAMPLE_RATE = 24_000

Span = tuple[int, int]
"""(start ms, end ms)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A speaker's own voice on disk."""

    path: Path
    """Mono WAV, 3 to 15 s."""
    speaker: str
    identity: str
    """Fingerprint of the content: other speech makes the speaker's lines again."""


def choose_spans(lines: Sequence[Line]) -> dict[str, list[Span]]:
    """What to make each speaker's reference of, in order of time; a speaker with less than 3 s has nothing.

    Long and surely recognised stretches come first; whatever lies within 0.3 s of somebody else's line is left out.
    """
    chosen: dict[str, list[Span]] = {}
    for speaker in dict.fromkeys(line.speaker for line in lines):
        others = _merged([(n.start_ms - GUARD_MS, n.end_ms + GUARD_MS) for n in lines if n.speaker != speaker])
        rated = [
            (min(end - start, PLENTY_MS) * (1.0 if line.confidence is None else line.confidence), start, end)
            for line in lines
            if line.speaker == speaker
            for start, end in _without((line.start_ms, line.end_ms), others)
            if end - start >= PIECE_MS
        ]
        taken: list[Span] = []
        left = LONGEST_MS
        for _, start, end in sorted(rated, key=lambda r: (-r[0], r[1])):
            if left >= PIECE_MS:
                taken.append((start, min(end, start + left)))
                left -= taken[-1][1] - start
        chosen[speaker] = sorted(taken) if LONGEST_MS - left >= SHORTEST_MS else []
    return chosen


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _without(span: Span, others: Sequence[Span]) -> list[Span]:
    """What of a span lies outside of others, which are sorted and apart."""
    (start, end), left = span, []
    for i in range(bisect_right(others, start, key=lambda o: o[1]), len(others)):
        other_start, other_end = others[i]
        if other_start >= end:
            break
        if other_start > start:
            left.append((start, other_start))
        start = other_end
    return [*left, (start, end)] if start < end else left


async def references(
    context: Context, lines: Sequence[Line], sound: Callable[[], Awaitable[Path]]
) -> dict[str, Reference]:
    """A reference for every speaker who says enough; `sound` waits for the WAV in which speakers are heard best."""
    folder = context.folder.work / "references"
    found = {}
    for speaker, spans in choose_spans(lines).items():
        if not spans:
            continue
        heard = await sound()
        key = fingerprint(v=VERSION, job=context.job.id, sound=heard.name, spans=spans)
        path = folder / f"{key}.wav"
        if not path.exists():
            folder.mkdir(exist_ok=True)
            await asyncio.to_thread(_write, heard, spans, path)
        if path.exists():
            found[speaker] = Reference(path, speaker, hashlib.sha256(path.read_bytes()).hexdigest()[:32])
    return found


def _write(sound: Path, spans: Sequence[Span], path: Path) -> None:
    """Write the stretches one after the other, without those that are silent; nothing when too little is left."""
    info = wav.wav_info(sound)
    pieces = [_piece(info, span) for span in spans]
    audible = [piece for piece in pieces if level_dbfs(piece, info.sample_rate) > QUIET_DBFS]
    if sum(map(len, audible)) * 1000 >= SHORTEST_MS * info.sample_rate:
        joined = np.concatenate(audible)
        wav.write_wav(path, resample.resample(joined, info.sample_rate, SAMPLE_RATE), SAMPLE_RATE)


def _piece(info: wav.WavInfo, span: Span) -> Int16Audio:
    """A stretch as mono samples, faded in and out so that the joints do not click."""
    start, end = (ms * info.sample_rate // 1000 for ms in span)
    mono = wav.read_frames(info, start, end - start).mean(axis=1) if start < info.frames else np.zeros(0)
    fade = min(FADE_MS * info.sample_rate // 1000, len(mono) // 2)
    if fade:
        ramp = np.linspace(0.0, 1.0, fade)
        mono[:fade] *= ramp
        mono[-fade:] *= ramp[::-1]
    audio: Int16Audio = np.rint(mono).astype(np.int16)
    return audio
