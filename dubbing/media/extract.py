"""From an upload to WAVs of our own: everything downstream reads only those."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from dubbing.errors import AudioTrackError, NoAudioError, RangeError, TooLongError
from dubbing.media import guard
from dubbing.media.files import disk_errors, partial
from dubbing.media.loudness import programme_loudness
from dubbing.media.probe import probe
from dubbing.media.wav import wav_info
from dubbing.types import MediaInfo

BED_RATE = 48_000
"""Hz, stereo: the sound the dub is laid over."""
SPEECH_RATE = 16_000
"""Hz, mono: what recognisers hear."""
_BYTES_PER_MS = {BED_RATE: 192, SPEECH_RATE: 32}
_SEEKABLE = ("mov", "matroska")
"""Containers with an index, where an input seek lands on the very sample."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What came out of one audio track."""

    duration_ms: int
    """Counted from the decoded samples."""
    loudness_lufs: float
    """Integrated loudness (EBU R128) of the longest WAV written; -70.0 when silent."""
    short_term_lufs: list[float]
    """Its loudness over time (loudness.short_term), a value a second."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Which part of which track."""

    track: int
    start_ms: int
    end_ms: int | None
    max_minutes: int


async def extract(
    source: Path,
    *,
    track: int = 1,
    start_ms: int | None = None,
    end_ms: int | None = None,
    bed: Path | None = None,
    speech: Path | None = None,
    max_minutes: int = 240,
    info: MediaInfo | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Extracted:
    """Decode one audio track (1 is the first) to a 48 kHz stereo WAV `bed` and/or a 16 kHz mono WAV `speech`.

    Sample 0 is the start of the file (or `start_ms`), whatever the track's own start; gaps become silence.
    `info` saves a second probe. Raises NoAudioError, AudioTrackError, RangeError, TooLongError and what `probe` raises.
    """
    if bed is None and speech is None:
        raise ValueError("extract needs somewhere to write: bed, speech or both")
    info = info or await probe(source, max_minutes=max_minutes)
    _check(source, info, track, start_ms, end_ms)
    start, end = start_ms or 0, info.duration_ms if end_ms is None else end_ms
    with contextlib.ExitStack() as stack:
        outputs = [
            (stack.enter_context(partial(path)), rate)
            for path, rate in ((bed, BED_RATE), (speech, SPEECH_RATE))
            if path
        ]
        argv = _argv(source, info, _Window(track, start, end_ms, max_minutes), outputs)
        limits = guard.Limits(file_bytes=(max_minutes * 60 + 60) * BED_RATE * 4)
        timeout_s = guard.timeout_for(end if "mov" not in info.format else end - start)
        folder, need = outputs[0][0].parent, info.duration_ms * sum(_BYTES_PER_MS[rate] for _, rate in outputs)
        with disk_errors(folder, need):
            await guard.run(argv, name=source.name, timeout_s=timeout_s, on_progress=on_progress, limits=limits)
        longest = max((wav_info(path) for path, _ in outputs), key=lambda wav: wav.duration_ms)
        if longest.frames == 0:
            raise NoAudioError(name=source.name)
        if longest.duration_ms > max_minutes * 60_000:
            raise TooLongError(name=source.name, limit_min=max_minutes)
        loudness, short_term = await programme_loudness(outputs[-1][0])
    return Extracted(longest.duration_ms, loudness, short_term)


def _check(source: Path, info: MediaInfo, track: int, start_ms: int | None, end_ms: int | None) -> None:
    if not info.audio:
        raise NoAudioError(name=source.name)
    if not 1 <= track <= len(info.audio):
        raise AudioTrackError(name=source.name, track=track, count=len(info.audio))
    start, end = start_ms or 0, info.duration_ms if end_ms is None else end_ms
    if not 0 <= start < end or start >= info.duration_ms or (end_ms or 0) > info.duration_ms + 1000:
        shown = [f"{ms / 1000:.1f} s" for ms in (start, end, info.duration_ms)]
        raise RangeError(name=source.name, start=shown[0], end=shown[1], length=shown[2])


def _argv(source: Path, info: MediaInfo, window: _Window, outputs: list[tuple[Path, int]]) -> list[str]:
    start, end_ms = window.start_ms, window.end_ms
    seek_input = start > 0 and info.format.startswith(_SEEKABLE)
    length_s = window.max_minutes * 60 + 1.0 if end_ms is None else (end_ms - start) / 1000
    seek = {"ss": f"{start / 1000:.3f}"}
    options = guard.input_options() | {"vn": None, "sn": None, "dn": None} | (seek if seek_input else {})
    track = ffmpeg.input(f"file:{source}", **options)[str(info.audio[window.track - 1].index)]
    copies = track.filter_multi_output("asplit", len(outputs)) if len(outputs) > 1 else [track]
    # first_pts=0 fills from time zero of the container to a track that starts late, and cuts what lies before it.
    aligned = {"async": 1, "first_pts": 0}
    cut = {"t": f"{length_s:.3f}"} | (seek if start and not seek_input else {})
    kind = {"f": "wav", "rf64": "auto", "c:a": "pcm_s16le", "bitexact": None, "map_metadata": -1}
    written = [
        ffmpeg.output(
            copies[i]
            .filter("aresample", out_sample_rate=rate, **aligned)
            .filter("aformat", sample_fmts="s16", channel_layouts="stereo" if rate == BED_RATE else "mono"),
            f"file:{path}",
            **cut,
            **kind,
        )
        for i, (path, rate) in enumerate(outputs)
    ]
    return ["ffmpeg", "-v", "warning", "-y", *ffmpeg.merge_outputs(*written).get_args()]
