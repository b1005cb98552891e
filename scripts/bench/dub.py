"""Whole jobs on the draft path, with what ffmpeg itself needs for the same media beside them.

    python scripts/bench/dub.py                     ten seconds of speech: recognition, transcript, over Ray, at a server
    python scripts/bench/dub.py --film              one hour of 1080p with 460 cues (about 7 GB of temporary files)

Stage seconds are those of the report (at least one piece of work under way). Read ratios on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIP_TEXT = (
    "Good morning, my name is Ada. I am from London, and I love this city. Every day I walk along the river to my work."
)
SENTENCES = (
    "Today we will look at how a bridge is built.",
    "The first stones were laid more than a hundred years ago.",
    "Most people who cross the river never think about the work below the water.",
    "There are three things that matter, and the first of them is time.",
    "You can see the old road on the other side of the valley.",
)


def ffmpeg(*arguments: object) -> float:
    """Run ffmpeg; answers the seconds it took."""
    began = time.monotonic()
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True)
    return time.monotonic() - began


@contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """A running `dub serve`; answers the environment in which `dub run` finds it."""
    env = {**os.environ, "DUBBING_STATE_DIR": str(folder / "state"), "DUBBING_OUTPUT_DIR": str(folder)}
    command = [sys.executable, "-m", "dubbing.cli", "serve"]
    with subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield env
        finally:
            process.send_signal(signal.SIGINT)


def dub(folder: Path, *arguments: object, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run `dub run`; answers the report's times and counts."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "dubbing.cli", "run", *map(str, arguments), "--json", "--output-dir", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=env)
    if done.returncode:
        raise SystemExit(done.stderr)
    report: dict[str, Any] = json.loads(Path(json.loads(done.stdout)["report"]).read_text())
    return report


def row(name: str, report: dict[str, Any]) -> None:
    """One line of the table."""
    times = report["time"]
    stages = times["stages_s"] + times["command"]["steps_s"].get("ingest", 0.0)
    busiest = ", ".join(
        f"{stage} {spent['busy_s']:.1f}" for stage, spent in times["by_stage"].items() if spent["busy_s"] >= 0.05
    )
    print(
        f"{name:34} {stages:8.2f} {times['command']['outside_stages_s']:9.2f} {times['command']['total_s']:8.2f}   {busiest}",
        flush=True,
    )


def clip(folder: Path) -> Path:
    """Ten seconds of a speaking test picture, or the file DUBBING_TEST_CLIP names."""
    if given := os.environ.get("DUBBING_TEST_CLIP"):
        return Path(given).resolve()
    voice, path = folder / "voice.wav", folder / "clip.mp4"
    subprocess.run(["flite", "-voice", "slt", "-t", CLIP_TEXT, "-o", voice], check=True)
    picture = ("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25", "-i", voice, "-c:v", "libx264", "-preset", "ultrafast")
    ffmpeg(*picture, "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest", path)
    return path


def short(folder: Path) -> None:
    """Ten seconds of speech, each way twice; the second run finds warm caches."""
    source = clip(folder)
    words = folder / "words.txt"
    words.write_text(os.environ.get("DUBBING_TEST_CLIP_TEXT", CLIP_TEXT))
    print(f"{source.name}: seconds of           stages   outside    total   busiest stages")
    for attempt in range(2):
        for name, options in (
            ("in process, recognised", ["--in-process"]),
            ("in process, with transcript", ["--in-process", "--transcript", words]),
            ("own Ray, recognised", []),
        ):
            row(
                name,
                dub(folder / f"{name}{attempt}".replace(" ", "_").replace(",", ""), source, "--to", "es", *options),
            )
    with server(folder) as env:
        for attempt in range(4):
            row("handed to a running server", dub(folder / f"handed{attempt}", source, "--to", "es", env=env))
    extract = ffmpeg("-i", source, "-ar", 48000, "-ac", 2, folder / "floor.wav")
    encode = ffmpeg("-i", folder / "floor.wav", "-c:a", "aac", folder / "floor.m4a")
    mux = ffmpeg("-i", source, "-i", folder / "floor.m4a", "-map", "0:v", "-map", 1, "-c", "copy", folder / "floor.mkv")
    print(f"plain ffmpeg: extract {extract:.2f}, encode {encode:.2f}, mux {mux:.2f}")


def film(folder: Path) -> None:
    """One hour of 1080p at 5 Mb/s and 460 cues."""
    minute, path, cues = folder / "minute.mp4", folder / "film.mp4", folder / "film.srt"
    picture = ("-f", "lavfi", "-i", "testsrc2=s=1920x1080:r=30:d=60,noise=alls=12:allf=t")
    sound = (
        "-f",
        "lavfi",
        "-i",
        "anoisesrc=c=pink:a=0.2:r=48000:d=60,tremolo=f=4:d=0.8,aformat=channel_layouts=stereo",
    )
    rate = ("-b:v", "4.8M", "-maxrate", "5M", "-bufsize", "5M", "-g", 60, "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    ffmpeg(*picture, *sound, "-c:v", "libx264", *rate, "-c:a", "aac", "-b:a", "160k", minute)
    ffmpeg("-stream_loop", 59, "-i", minute, "-c", "copy", path)

    def at(ms: int) -> str:
        return f"{ms // 3600000:02}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    rows = [(i * 7800, i * 7800 + 5200, f"{SENTENCES[i % 5]} This is part {i}.") for i in range(460)]
    cues.write_text("\n".join(f"{i + 1}\n{at(a)} --> {at(b)}\n{text}\n" for i, (a, b, text) in enumerate(rows)))
    print(f"one hour, {path.stat().st_size >> 20} MB, 460 cues      stages   outside    total   busiest stages")
    for name, options in (("own Ray", []), ("in process", ["--in-process"])):
        os.sync()  # writing the last run's 4 GB to the disk is not this run's work
        row(name, dub(folder / name.replace(" ", "_"), path, "--to", "es", "--transcript", cues, *options))
    extract = ffmpeg("-i", path, "-map", "0:a", "-ar", 48000, "-ac", 2, folder / "floor.wav")
    encode = ffmpeg(
        "-i", folder / "floor.wav", "-c:a", "aac", "-aac_coder", "fast", "-b:a", "192k", folder / "floor.m4a"
    )
    mux = ffmpeg("-i", path, "-i", folder / "floor.m4a", "-map", "0:v", "-map", 1, "-c", "copy", folder / "floor.mkv")
    print(f"plain ffmpeg, one after the other: extract {extract:.1f}, encode {encode:.1f}, mux to MKV {mux:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film", action="store_true", help="the one-hour film")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dub-bench-") as name:
        folder = Path(name)
        (film if arguments.film else short)(folder)


if __name__ == "__main__":
    main()
