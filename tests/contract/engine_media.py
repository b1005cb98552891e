"""Real speech for the engine tests, and how to skip honestly: locally with a reason, never in CI."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import pytest

from dubbing.engines.base import EngineSpec
from dubbing.media import wav
from dubbing.types import Int16Audio

MEDIA = Path(os.environ.get("DUBBING_TEST_MEDIA") or Path(__file__).parents[3] / "shared" / "media")


def skip_or_fail(reason: str) -> None:
    """A missing service skips here and fails in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must have it")
    pytest.skip(reason)


def require(spec: EngineSpec) -> EngineSpec:
    """The spec, if its engine is on this machine."""
    located = spec.locate()
    if not located.ok:
        skip_or_fail(f"{located.reason} ({located.install})")
    return spec


@lru_cache(maxsize=16)
def clip(name: str) -> Int16Audio:
    """A real clip as mono 16 kHz."""
    if not (MEDIA / name).is_file():
        pytest.skip(f"there is no {MEDIA / name}; set DUBBING_TEST_MEDIA")
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
    with av.open(str(MEDIA / name)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.int16)


@lru_cache(maxsize=16)
def recording(name: str) -> Path:
    """A real clip as a 16 kHz mono WAV; the folder goes when Python does."""
    path = Path(_folder().name) / f"{Path(name).stem}.wav"
    wav.write_wav(path, clip(name), 16_000)
    return path


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dub-media-")


def reference(name: str) -> str:
    """What is said in a clip."""
    with (MEDIA / "MANIFEST.tsv").open(encoding="utf-8") as table:
        return next(row["reference_text"] for row in csv.DictReader(table, delimiter="\t") if row["file"] == name)


def word_errors(expected: str, heard: str) -> float:
    """Word error rate: edits per expected word, case and punctuation aside."""
    want, got = (re.findall(r"[a-z']+", text.lower().replace("\u2019", "'")) for text in (expected, heard))
    row = list(range(len(got) + 1))
    for i, word in enumerate(want, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1] / len(want)


def silence(seconds: float) -> Int16Audio:
    """Digital silence, 16 kHz."""
    return np.zeros(int(seconds * 16_000), np.int16)
