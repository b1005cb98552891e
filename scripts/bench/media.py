"""Media stages against the plain ffmpeg commands that move the same bytes.

Builds a film (30 s encoded once, stream-copied in a loop), then times extract, mix and package, and beside them, in
the same run on the same machine, what ffmpeg itself needs. Seconds of a shared machine mean little: read the ratios
and the CPU column.

    python scripts/bench/media.py --minutes 60 --lines 460
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dubbing.media.extract import extract
from dubbing.media.mix import Clip, MixPlan, mix
from dubbing.media.mux import DubTrack, PackagePlan, package
from dubbing.media.probe import probe
from dubbing.media.wav import write_wav


@dataclass(frozen=True)
class Timing:
    wall_s: float
    cpu_s: float


def cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def timed(work: Callable[[], object]) -> Timing:
    wall, cpu = time.monotonic(), cpu_seconds()
    work()
    return Timing(time.monotonic() - wall, cpu_seconds() - cpu)


def ffmpeg(*arguments: object) -> None:
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL
    )


def build(folder: Path, minutes: int) -> Path:
    """A 1080p film at about 5 Mb/s with moving noise and a voice-like sound track."""
    loop, film = folder / "loop.mp4", folder / "film.mp4"
    sound = "anoisesrc=c=pink:a=0.2:r=48000:d=30,tremolo=f=4:d=0.8,aformat=channel_layouts=stereo"
    picture = "testsrc2=s=1920x1080:r=30:d=30,noise=alls=12:allf=t"
    rate = ("-b:v", "4.8M", "-maxrate", "5M", "-bufsize", "5M", "-g", "60")
    ffmpeg(
        *("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-c:v", "libx264", "-preset", "ultrafast"),
        *(*rate, "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "192k", loop),
    )
    ffmpeg("-stream_loop", minutes * 2 - 1, "-i", loop, "-c", "copy", film)
    return film


def line(folder: Path) -> Path:
    """One spoken line of 4 s, as a speech engine gives it."""
    t = np.arange(4 * 22_050) / 22_050
    voice = np.sign(np.sin(2 * np.pi * 130 * t)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)) * 6000
    write_wav(folder / "line.wav", voice.astype(np.int16), 22_050)
    return folder / "line.wav"


def ours(film: Path, folder: Path, minutes: int, lines: int) -> dict[str, Timing]:
    info = asyncio.run(probe(film))
    bed, speech, dub, voice = folder / "bed.wav", folder / "speech.wav", folder / "dub.aac", line(folder)
    clips = tuple(Clip(voice, i * minutes * 60_000 // lines) for i in range(lines))
    plan = PackagePlan(film, (DubTrack(dub, "es", "Español (dub)"),), mp4=folder / "o.mp4", mkv=folder / "o.mkv")
    return {
        "extract": timed(lambda: asyncio.run(extract(film, bed=bed, speech=speech, info=info))),
        "mix": timed(lambda: asyncio.run(mix(MixPlan(dub, info.duration_ms, clips, bed=bed)))),
        "package": timed(lambda: asyncio.run(package(plan, info=info))),
    }


def plain(film: Path, folder: Path) -> dict[str, Timing]:
    """ffmpeg by itself: decode to two WAVs; loudness, limiter and AAC without any dub; copy to two containers."""
    bed, dub = folder / "plain.wav", folder / "plain.aac"
    two_wavs = (
        "-map",
        "0:a",
        "-ac",
        "2",
        "-ar",
        "48000",
        bed,
        "-map",
        "0:a",
        "-ac",
        "1",
        "-ar",
        "16000",
        folder / "p16.wav",
    )

    def sound() -> None:
        ffmpeg("-i", bed, "-af", "ebur128", "-f", "null", "-")
        ffmpeg(
            "-i",
            bed,
            "-af",
            "volume=2dB,alimiter=limit=0.8:level=0",
            "-c:a",
            "aac",
            "-aac_coder",
            "fast",
            "-b:a",
            "192k",
            dub,
        )
        ffmpeg("-i", dub, "-af", "ebur128=peak=true", "-f", "null", "-")

    both = ("-map", "0", "-map", "1", "-c", "copy")
    return {
        "extract": timed(lambda: ffmpeg("-i", film, *two_wavs)),
        "mix": timed(sound),
        "package": timed(
            lambda: ffmpeg(
                *("-i", film, "-i", dub, *both, "-movflags", "+faststart", folder / "p.mp4", *both, folder / "p.mkv")
            )
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--lines", type=int, default=460)
    parser.add_argument("--folder", type=Path, help="where to work; default is a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        film = build(folder, options.minutes)
        print(f"film: {options.minutes} min, {film.stat().st_size / 1e6:.0f} MB, {options.lines} lines")
        mine = ours(film, folder, options.minutes, options.lines)
        theirs = plain(film, folder)
    print(f"{'stage':<10}{'ours, s':>10}{'cpu, s':>10}{'ffmpeg, s':>12}{'cpu, s':>10}{'ratio':>8}{'cpu ratio':>11}")
    mine["all"] = Timing(sum(t.wall_s for t in mine.values()), sum(t.cpu_s for t in mine.values()))
    theirs["all"] = Timing(sum(t.wall_s for t in theirs.values()), sum(t.cpu_s for t in theirs.values()))
    for stage, one in mine.items():
        other = theirs[stage]
        numbers = f"{one.wall_s:>10.1f}{one.cpu_s:>10.1f}{other.wall_s:>12.1f}{other.cpu_s:>10.1f}"
        print(f"{stage:<10}{numbers}{one.wall_s / other.wall_s:>8.2f}{one.cpu_s / other.cpu_s:>11.2f}")


if __name__ == "__main__":
    main()
