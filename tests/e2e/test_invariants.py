"""What must hold for any script: every line is heard or named as silent, none is cut, and the dub is as long as its source."""

from __future__ import annotations

import json
import subprocess
import tempfile
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dubbing.types import DubRequest
from tests.e2e import jobs

SECONDS = 24
POISON = "☠"
HEARD_DBFS = -50.0
TEXTS = st.sampled_from(
    [
        "Good morning.",
        "The bridge was built by hand, stone by stone, in three summers.",
        "素早い狐が犬を飛び越える",
        "Быстрая лиса бежит домой",
        "الثعلب السريع يقفز",
        "No",
    ]
)
CUE = st.tuples(st.integers(200, 5_000), st.integers(100, 6_000), TEXTS, st.booleans())
"""Milliseconds after the start of the cue before, length (cues may overlap), text, whether the voice fails over it."""


@cache
def silence() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dub-invariants-"))
    command = ["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", f"anullsrc=r=16000:cl=mono:d={SECONDS}"]
    subprocess.run([*command, folder / "silence.wav"], check=True)
    return folder / "silence.wav"


def sound(path: Path) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", path, "-map", "0:a:0", "-ac", "1", "-ar", "8000"]
    pcm = subprocess.run([*command, "-f", "s16le", "-"], check=True, capture_output=True).stdout
    return np.frombuffer(pcm, np.int16).astype(np.float64) / 32768


def level_dbfs(audio: np.ndarray, start_ms: int, end_ms: int) -> float:
    part = audio[start_ms * 8 : end_ms * 8]
    return float(10 * np.log10(np.mean(part**2) + 1e-12)) if part.size else -120.0


@given(st.lists(CUE, min_size=1, max_size=9), st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_line_is_heard_in_its_place_or_named_as_silent(
    cues: list[tuple[int, int, str, bool]], data: st.DataObject
) -> None:
    if all(poisoned for *_, poisoned in cues):
        cues[0] = (*cues[0][:3], False)
    starts = list(accumulate(gap for gap, *_ in cues))
    with tempfile.TemporaryDirectory(prefix="dub-invariant-") as name:
        folder = Path(name)
        rows = [
            (at, at + length, f"{text} {POISON if bad else ''}{number}")
            for number, (at, (_, length, text, bad)) in enumerate(zip(starts, cues, strict=True), 1)
        ]
        given_es = folder / "given.es.srt"
        given_es.write_text(jobs.srt(rows))
        request = DubRequest(
            silence(),
            ("es",),
            folder,
            translations={"es": given_es},
            keep_background=data.draw(st.booleans()),
            engines={"speak": "fake-speak"},
        )

        result, report = jobs.dub(request, {"fake-speak": {"poison": POISON}})

        target, audio = report["targets"]["es"], sound(result.files["es"][0])
        lines = json.loads((result.report.parent / "lines.es.json").read_text())["lines"]
    inside = [row for row in rows if row[0] < SECONDS * 1000]
    poisoned = {number for number, (_, _, text) in enumerate(inside, 1) if POISON in text}
    assert target["lines"] == len(lines) == len(inside)
    assert set(target["silent"]) == poisoned
    assert (result.state == "done_with_warnings") == bool(result.warnings)
    assert not poisoned or any("silent" in warning for warning in result.warnings)
    heard = [line for line in lines if "dub_start_ms" in line]
    assert {line["line"] for line in heard} == set(range(1, len(inside) + 1)) - poisoned
    assert all(level_dbfs(audio, line["dub_start_ms"], line["dub_end_ms"]) > HEARD_DBFS for line in heard)
    assert all(a["dub_end_ms"] <= b["dub_start_ms"] for a, b in pairwise(heard))
    assert abs(len(audio) / 8 - SECONDS * 1000) <= 40
