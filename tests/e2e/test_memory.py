"""Memory does not grow with the length of the film."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.e2e import jobs


def peak_mb(folder: Path, minutes: int) -> tuple[int, int]:
    """Peak memory of a whole job (this process, and its largest child) over a film of that length."""
    minute = jobs.programme(folder / "minute.m4a", 60)
    film, transcript = folder / f"film{minutes}.m4a", folder / f"film{minutes}.srt"
    loop = ["-stream_loop", str(minutes - 1), "-i", minute, "-c", "copy", film]
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *loop], check=True)
    count = minutes * 8
    cues = [(i * 7500, i * 7500 + 4000, f"This is sentence number {i} of the film.") for i in range(count)]
    transcript.write_text(jobs.srt(cues))
    spec: dict[str, Any] = {
        "source": str(film),
        "output_dir": str(folder / f"out{minutes}"),
        "transcript": str(transcript),
        "targets": ["es"],
        "engines": jobs.FAKES,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.jobs", str(folder / "spec.json")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["calls"]["translate.called"] == count
    return answer["own_mb"], answer["children_mb"]


@pytest.mark.slow
def test_an_hour_needs_hardly_more_memory_than_six_minutes(tmp_path: Path) -> None:
    short, long = peak_mb(tmp_path, 6), peak_mb(tmp_path, 60)

    assert sum(long) <= 1.3 * sum(short), f"{short} MB for 6 minutes, {long} MB for 60"
