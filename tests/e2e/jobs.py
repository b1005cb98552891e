"""Run jobs as a user would, in this process or in one that can be killed, and measure results with ffmpeg itself.

As a program: `python tests/e2e/jobs.py SPEC.json` runs one job in-process with the engine options of the spec.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dubbing import config
from dubbing.artifacts import JobFolder
from dubbing.prepare import prepare
from dubbing.roads import LocalRoad
from dubbing.types import DubRequest, JobResult

FAKES = {"transcribe": "fake-transcribe", "align": "fake-align", "translate": "fake-translate", "speak": "fake-speak"}


def dub(
    request: DubRequest, options: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[JobResult, dict[str, Any]]:
    """Run a job in this process; answers its result and its report."""

    async def run() -> JobResult:
        settings = config.load({}, env_file=None)
        job = await prepare(request, settings)
        with JobFolder(job.folder).lock():
            async with LocalRoad(options) as road:
                return await road.run_job(job, lambda progress: None)

    result = asyncio.run(run())
    return result, json.loads(result.report.read_text())


def loudness(path: Path, track: int = 0) -> tuple[float, float]:
    """Integrated loudness (LUFS) and true peak (dBTP) of an audio track, measured by ffmpeg's ebur128."""
    command = [
        "ffmpeg",
        "-nostdin",
        "-hide_banner",
        "-i",
        path,
        "-map",
        f"0:a:{track}",
        "-af",
        "ebur128=peak=true",
        "-f",
        "null",
        "-",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    summary = text[text.rindex("Summary:") :]
    integrated, peak = re.search(r"I:\s+(-?[\d.]+) LUFS", summary), re.search(r"Peak:\s+(-?[\d.]+|-inf) dBFS", summary)
    assert integrated and peak
    return float(integrated[1]), float(peak[1])


def streams(path: Path) -> list[dict[str, Any]]:
    """ffprobe's view of a file's streams."""
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", path]
    found: list[dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"]
    return found


def picture_hash(path: Path) -> str:
    """MD5 over the video packets."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        "-i",
        path,
        "-map",
        "0:V:0",
        "-c",
        "copy",
        "-f",
        "streamhash",
        "-hash",
        "md5",
        "-",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rpartition("=")[2].strip()


def decoded_ms(path: Path, kind: str) -> float:
    """Length of the first track of a kind (`a` or `V`), from the packets that are presented (edit lists drop some), ms."""
    command = [
        "ffprobe",
        "-v",
        "error",
        "-select_streams",
        f"{kind}:0",
        "-show_entries",
        "packet=pts_time,duration_time,flags",
        "-of",
        "csv=p=0",
        path,
    ]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    times = [[float(cell) for cell in row.split(",")[:2]] for row in rows if "D" not in row.split(",")[2]]
    return (max(start + length for start, length in times) - min(start for start, _ in times)) * 1000


def sounding_ms(path: Path) -> float:
    """Length of the first audio track as decoded: what an encoder padded does not count, ms."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        "-i",
        path,
        "-map",
        "0:a:0",
        "-ac",
        "1",
        "-ar",
        "16000",
        "-f",
        "s16le",
        "-",
    ]
    return len(subprocess.run(command, capture_output=True, check=True).stdout) / 32


def srt(cues: list[tuple[int, int, str]]) -> str:
    """SubRip text."""

    def clock(ms: int) -> str:
        return f"{ms // 3600000:02}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    return "\n".join(f"{i + 1}\n{clock(start)} --> {clock(end)}\n{text}\n" for i, (start, end, text) in enumerate(cues))


def spoken_wav(path: Path, text: str) -> Path:
    """A recording of an English sentence by flite's clear voice."""
    subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", path], check=True)
    return path


def programme(path: Path, seconds: float) -> Path:
    """Swelling noise, as a programme to dub over; a steady tone would cost the AAC coder three times as much."""
    source = f"anoisesrc=color=pink:amplitude=0.2:sample_rate=48000:seed=1:duration={seconds},tremolo=f=0.7:d=0.8"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", source, "-ac", "2", path], check=True
    )
    return path


def request_of(spec: Mapping[str, Any]) -> DubRequest:
    """A DubRequest from JSON."""
    paths = {key: Path(spec[key]) for key in ("source", "output_dir", "transcript") if spec.get(key)}
    translations = {tag: Path(path) for tag, path in spec.get("translations", {}).items()}
    rest = {key: value for key, value in spec.items() if key not in (*paths, "translations", "targets", "options")}
    return DubRequest(**paths, translations=translations, targets=tuple(spec["targets"]), **rest)


def run_spec(spec: Mapping[str, Any]) -> None:
    """Run the job of a spec, for a process of its own."""
    dub(request_of(spec), spec.get("options"))


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    _, report = dub(request_of(spec), spec.get("options"))
    own, children = (
        resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({"calls": report["calls"], "own_mb": own, "children_mb": children}))


if __name__ == "__main__":
    main()
