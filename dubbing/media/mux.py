"""The finished film: picture copied packet by packet, dubs, original sound and subtitles beside it, as MP4 and MKV."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dubbing.errors import MediaToolError
from dubbing.media import guard
from dubbing.media.files import disk_errors, partial
from dubbing.media.probe import probe
from dubbing.media.tags import MP4_AUDIO, iso639_2, mp4_refusal
from dubbing.types import MediaInfo

_NEEDS_PTS = ("avi", "mpeg")
"""Containers that store no presentation times for some packets."""


@dataclass(frozen=True, slots=True)
class DubTrack:
    """One finished sound track."""

    path: Path
    """ADTS AAC from `mix`."""
    language: str
    """BCP-47 tag."""
    title: str
    """What a player shows, such as `Español (dub)`."""


@dataclass(frozen=True, slots=True)
class SubtitleTrack:
    """One soft subtitle."""

    path: Path
    """SRT of our own, times from the start of the result."""
    language: str
    """BCP-47 tag."""
    title: str = ""


@dataclass(frozen=True, slots=True)
class PackagePlan:
    """One film to put together."""

    source: Path
    """The upload."""
    dubs: tuple[DubTrack, ...]
    """The first is the default track."""
    mp4: Path | None = None
    """Where to write MP4 (`.m4a` for sound alone); None for none."""
    mkv: Path | None = None
    """Where to write MKV (`.mka` for sound alone); None for none."""
    subtitles: tuple[SubtitleTrack, ...] = ()
    original_track: int | None = 1
    """Audio track of the source to keep, 1 is the first; None for none."""
    original_language: str = "und"
    """BCP-47 tag."""
    original_title: str = "Original"
    start_ms: int = 0
    """Cut: a value of `keyframe_before`, the same that `extract` was given."""
    end_ms: int | None = None
    """Cut: end in the source, None for all of it."""
    max_minutes: int = 1440


@dataclass(frozen=True, slots=True)
class Packaged:
    """What was written."""

    mp4: Path | None
    mkv: Path | None
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


@dataclass(frozen=True, slots=True)
class _Output:
    path: Path
    container: str
    """ffmpeg's muxer: mp4 or matroska."""


async def package(
    plan: PackagePlan, *, info: MediaInfo | None = None, on_progress: Callable[[int], None] | None = None
) -> Packaged:
    """Write MP4 and/or MKV in one reading of the source. Nothing of the picture is encoded again."""
    info = info or await probe(plan.source, max_minutes=plan.max_minutes)
    notes = []
    mp4 = plan.mp4
    refusal = mp4_refusal(info.video.codec if info.video else None)
    if mp4 is not None and refusal:
        mp4 = None
        notes.append(refusal)
    if mp4 is None and plan.mkv is None:
        raise MediaToolError(name=plan.source.name, detail=refusal or "no output was asked for")
    original = info.audio[plan.original_track - 1] if plan.original_track and info.audio else None
    if mp4 is not None and original is not None and original.codec not in MP4_AUDIO:
        notes.append(f"the MP4 lacks the original sound: its codec ({original.codec}) cannot live in MP4")
    subtitles = tuple(track for track in plan.subtitles if "-->" in track.path.read_text("utf-8"))
    with contextlib.ExitStack() as stack:
        outputs = []
        for path, container in ((mp4, "mp4"), (plan.mkv, "matroska")):
            if path is not None:
                outputs.append(_Output(stack.enter_context(partial(path)), container))
        argv = _inputs(plan, info, subtitles)
        for output in outputs:
            argv += _output(plan, info, subtitles, output)
        timeout_s = guard.timeout_for(info.duration_ms)
        with disk_errors(outputs[0].path.parent, info.size * len(outputs)):
            await guard.run(argv, name=plan.source.name, timeout_s=timeout_s, on_progress=on_progress)
    return Packaged(mp4, plan.mkv, tuple(notes))


async def packet_hashes(path: Path) -> str:
    """MD5 of the video packets' bytes: equal for two files whose picture is the same to the bit."""
    argv = ["ffmpeg", "-v", "warning", *guard.source(path), "-map", "0:v:0", "-c", "copy"]
    done = await guard.run([*argv, "-f", "streamhash", "-hash", "md5", "-"], name=path.name, timeout_s=600)
    return done.stdout.decode().strip().rpartition("=")[2]


def _inputs(plan: PackagePlan, info: MediaInfo, subtitles: tuple[SubtitleTrack, ...]) -> list[str]:
    argv = ["ffmpeg", "-v", "warning", "-y"]
    if info.format.startswith(_NEEDS_PTS):
        argv += ["-fflags", "+genpts"]
    if plan.start_ms:
        argv += ["-ss", f"{plan.start_ms / 1000:.3f}"]
    if plan.end_ms is not None:
        # On the input, where it goes by decoding time: as an output option it drops reordered frames before the cut.
        argv += ["-t", f"{(plan.end_ms - plan.start_ms) / 1000:.3f}"]
    argv += guard.source(plan.source)
    for dub in plan.dubs:
        argv += guard.own(dub.path, "aac")
    for track in subtitles:
        argv += guard.own(track.path, "srt")
    return argv


def _output(plan: PackagePlan, info: MediaInfo, subtitles: tuple[SubtitleTrack, ...], output: _Output) -> list[str]:
    is_mp4 = output.container == "mp4"
    argv: list[str] = []
    if info.video is not None:
        argv += ["-map", f"0:{info.video.index}"]
        if is_mp4 and info.video.codec == "hevc":
            argv += ["-tag:v", "hvc1"]  # phones refuse hev1
    for i, dub in enumerate(plan.dubs):
        argv += ["-map", f"{1 + i}:a:0", *_tagged(output, "a", i, dub.language, dub.title)]
        argv += [f"-disposition:a:{i}", "0" if i else "default"]
        if is_mp4:
            argv += [f"-bsf:a:{i}", "aac_adtstoasc"]
    original = info.audio[plan.original_track - 1] if plan.original_track and info.audio else None
    if original is not None and (not is_mp4 or original.codec in MP4_AUDIO):
        i = len(plan.dubs)
        argv += ["-map", f"0:{original.index}", *_tagged(output, "a", i, plan.original_language, plan.original_title)]
        argv += [f"-disposition:a:{i}", "0"]
    for i, track in enumerate(subtitles):
        argv += ["-map", f"{1 + len(plan.dubs) + i}:s:0", *_tagged(output, "s", i, track.language, track.title)]
        argv += [f"-disposition:s:{i}", "0"]
    # Phones write where they were into the metadata. Chapters stay where players know them.
    argv += ["-map_metadata:g", "-1", "-map_metadata:s", "-1", "-map_chapters", "-1" if is_mp4 else "0"]
    argv += [
        "-c",
        "copy",
        "-c:s",
        "mov_text" if is_mp4 else "srt",
        "-fflags",
        "+bitexact",
        "-max_muxing_queue_size",
        "4096",
    ]
    # Matroska's optional checksums take half the time of writing it; no player looks at them.
    argv += ["-movflags", "+faststart"] if is_mp4 else ["-write_crc32", "0"]
    return [*argv, "-f", output.container, f"file:{output.path}"]


def _tagged(output: _Output, kind: str, i: int, language: str, title: str) -> list[str]:
    argv = [f"-metadata:s:{kind}:{i}", f"language={iso639_2(language)}"]
    if shown := "".join(c for c in title if c.isprintable())[:120]:
        # MP4 players show the handler's name, MKV players the title.
        argv += [f"-metadata:s:{kind}:{i}", f"{'handler_name' if output.container == 'mp4' else 'title'}={shown}"]
    return argv
