"""A library of dubs to look at: one that `dub run` made, and others written file by file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubbing import report
from dubbing.artifacts import JobFolder, Names
from dubbing.media import wav
from dubbing.report import LineResult
from dubbing.timing import Placement
from dubbing.types import Line
from tests.conftest import ROOT
from tests.e2e import jobs

SPOKEN = "Good morning. My name is Robin. I live in a small town by the sea."
CUES = [
    (100, 900, "Good morning."),
    (1000, 2100, "My name is Robin."),
    (2300, 3400, "I live in a small town by the sea."),
    (
        9800,
        11900,
        "It is never quiet there: the gulls cry, the boats come and go, the wind sings in the rigging all day,"
        " and when the fishermen are home at last they sit on the pier and tell each other what they have seen.",
    ),
]


@pytest.fixture(scope="session")
def real_output(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[..., str]) -> Path:
    """An output folder with `talk`, a spoken film that `dub run` dubbed into Spanish and Catalan; not to be changed."""
    ffmpeg, _ = require_program("ffmpeg"), require_program("flite")
    folder = tmp_path_factory.mktemp("web")
    film = folder / "talk.mp4"
    speech = jobs.spoken_wav(folder / "speech.wav", SPOKEN)
    command: list[str | Path] = [
        ffmpeg,
        "-v",
        "error",
        "-nostdin",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=640x360:rate=25:duration=12",
    ]
    command += ["-i", speech, "-af", "apad=whole_dur=12", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest", film], check=True, timeout=60)
    transcript = folder / "talk.srt"
    transcript.write_text(jobs.srt(CUES))
    command = [sys.executable, "-m", "dubbing.cli", "run", film, "--to", "es,ca", "--transcript", transcript]
    command += ["--engine", "translate=fake-translate", "--engine", "speak=fake-speak"]
    command += ["--output-dir", folder / "Output", "--in-process"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "Output"


def environment(**more: str) -> dict[str, str]:
    """For a child that runs this tree, whatever the caller's own settings are."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **more}


def line_result(index: int, text: str, *problems: str) -> LineResult:
    """A line of two seconds, spoken on time unless it has problems."""
    start = index * 2500
    late = 1300 if problems else 0
    placement = Placement(start + late, 2000, 1.0, 1.4 if problems else 1.0, late, problems)
    return LineResult(Line(index, start, start + 2000, f"line {index}"), text, "es", placement, problems)


def report_of(targets: Mapping[str, list[LineResult]], **changes: Any) -> dict[str, Any]:
    """A report as `inspect` writes it."""
    sound: dict[str, Any] = {"lufs": -16.02, "true_peak_dbtp": -1.61, "note": None}
    engine: dict[str, Any] = {
        "kind": "speak",
        "target": "es",
        "name": "espeak-ng",
        "version": "1.51",
        "quality": "draft",
    }
    engine |= {"licence": "GPL-3.0-or-later", "weights_licence": None, "commercial_use": True, "note": None}
    made: dict[str, Any] = report.skeleton("abc") | {
        "state": "done",
        "source": {"name": "film.mp4", "language": "en", "duration_ms": 65_000},
        "engines": [engine | {"reason": "espeak-ng speaks es: the best that is installed here."}],
        "targets": {tag: report.target_report(lines, sound, []) for tag, lines in targets.items()},
        "notes": [],
        "warnings": [],
    }
    return made | changes


def make_job(output: Path, name: str, made: Mapping[str, Any] | None = None, **files: bytes) -> Path:
    """A job's folder with a report, if there is one, and files by suffix: `es_mp4=b""` is `<name>.es.mp4`."""
    folder = JobFolder.open(output, name, name).path
    if made is not None:
        Names(folder).report.write_text(json.dumps(made))
    for suffix, content in files.items():
        (folder / f"{folder.name}.{suffix.replace('_', '.')}").write_bytes(content)
    return folder


def write_lines(
    folder: Path, lines: list[LineResult], tag: str = "es", voices: tuple[str, ...] = ("es", "es+f2")
) -> None:
    """`lines.TAG.json` as `inspect` writes it, with a short tone for every line."""
    speech = folder / ".work" / tag / "speech"
    speech.mkdir(parents=True, exist_ok=True)
    tone = (np.sin(np.arange(8000) / 10) * 8000).astype(np.int16)
    rows = []
    for result in lines:
        clip = speech / f"{result.line.index:032x}.wav"
        wav.write_wav(clip, tone, 16_000)
        rows.append(report.line_report(result) | {"confidence": None, "clip": str(clip.relative_to(folder))})
    offered = [{"id": voice, "name": f"Voice {voice}"} for voice in voices]
    whole = {"schema": 1, "target": tag, "voices": offered, "lines": rows}
    Names(folder).lines(tag).write_text(json.dumps(whole))
