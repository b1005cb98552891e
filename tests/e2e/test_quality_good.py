"""The studio path, whole: `dub run --quality good` with a real engine of every kind as a replica, on tiny models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.e2e import voices
from tests.models.fixtures import generator

GOOD = {
    "transcribe": "faster-whisper-small",
    "translate": "m2m100-418m",
    "speak": "xtts-v2",
    "separate": "demucs",
    "diarize": "sherpa-onnx-diarize",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_good_quality_takes_the_real_models_on_ray(
    nmt_models: Path, tiny_diarizer: Path, tiny_xtts: Path, require_program: Any, tmp_path: Path
) -> None:
    require_program("flite")
    models = tmp_path / "models"
    models.mkdir()
    for folder in nmt_models.iterdir():
        (models / folder.name).symlink_to(folder)
    (models / "htdemucs").unlink(missing_ok=True)
    generator("separator", "torch", "demucs").make(models / "htdemucs", Fraction(39, 5))
    film = voices.two_people(tmp_path)
    command = [sys.executable, "-m", "dubbing.cli", "run", film.path, "--to", "es", "--quality", "good", "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DUBBING_MODELS_DIR": str(models), "QUEUE_MODE": "fallback"}

    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=590)

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    report = json.loads(Path(answer["report"]).read_text())
    engines = {engine["kind"]: engine for engine in report["engines"]}
    assert {kind: engine["name"] for kind, engine in engines.items()} == GOOD
    assert all(engine["version"] and engine["licence"] and engine["reason"] for engine in engines.values())
    assert not engines["speak"]["commercial_use"]
    target = report["targets"]["es"]
    assert target["lines"] >= 2 and target["spoken"] + len(target["silent"]) == target["lines"]
    assert target["spoken"] >= 1
    assert report["background"]["separated"] is True
    assert len(report["speakers"]) == 2
    assert {"separate", "transcribe", "diarize", "translate", "speak", "mix"} <= set(report["time"]["by_stage"])
    assert all(Path(path).stat().st_size for path in answer["files"]["es"])
    background = Path(answer["report"]).parent / ".work" / "stems" / "background.wav"
    assert background.stat().st_size > 100_000
