"""Tiny models as fixtures: made once per test run, used by the modules that ask for them.

What they are made with may be missing: then tests skip here and fail in CI.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dubbing.engines import weights
from tests.services import missing

WHISPER_SAYS = {"en": "good morning <|1.00|> <|1.20|> the house listens now", "es": "hola buenos días amigos míos"}
NMT = {"nllb-600m": "nllb", "m2m100-418m": "m2m100", "madlad400-3b": "madlad400", "opus-mt-en-es": "marian"}
"""Folder of a translation model -> its layout."""


def generator(name: str, *packages: str) -> Any:
    """The module `tests.models.<name>`, if the packages it needs are here."""
    for package in packages:
        if find_spec(package) is None:
            missing(f"the package {package}")
    return importlib.import_module(f"tests.models.{name}")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a tiny model for each engine that recognises."""
    whisper = generator("whisper")
    folder = tmp_path_factory.mktemp("models")
    whisper.make(folder / "faster-whisper-small", WHISPER_SAYS)
    whisper.make(folder / "faster-whisper-large-v3-turbo", WHISPER_SAYS, shape=whisper.TINY_V3)
    return folder


@pytest.fixture(scope="session")
def nmt_models(tiny_models: Path) -> Path:
    """The models folder with a dictionary in each layout of a translation model."""
    nmt = generator("nmt", "sentencepiece")
    for name, layout in NMT.items():
        nmt.make(tiny_models / name, layout)
    return tiny_models


@pytest.fixture(scope="module")
def models_home(tiny_models: Path) -> Iterator[Path]:
    """The tiny models as this module's own models folder, as DUBBING_MODELS_DIR would have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUBBING_MODELS_DIR", str(tiny_models))
        weights.home.cache_clear()
        yield tiny_models
    weights.home.cache_clear()


@pytest.fixture(scope="module")
def translation_models(nmt_models: Path, models_home: Path) -> Path:
    """The translation models in this module's models folder."""
    return models_home


@pytest.fixture
def use_models(monkeypatch: pytest.MonkeyPatch, tiny_models: Path) -> Iterator[Path]:
    """Have engines look for their weights in the models folder of the test session."""
    monkeypatch.setenv("DUBBING_MODELS_DIR", str(tiny_models))
    weights.home.cache_clear()
    yield tiny_models
    weights.home.cache_clear()


@pytest.fixture(scope="session")
def tiny_separator(tiny_models: Path) -> Path:
    """Weights of the engine demucs: a small network with random numbers that looks at two seconds; the models folder."""
    generator("separator", "torch", "demucs").make(tiny_models / "htdemucs", Fraction(2))
    return tiny_models


@pytest.fixture(scope="session")
def tiny_diarizer(tiny_models: Path) -> Path:
    """Weights of the engine sherpa-onnx-diarize: networks that tell low voices from high ones; the models folder."""
    generator("diarizer", "sherpa_onnx", "onnx").make(tiny_models)
    return tiny_models


@pytest.fixture(scope="session")
def tiny_xtts(tiny_models: Path) -> Path:
    """Folder of a tiny XTTS v2 whose model.pth is written like the published one."""
    return generator("xtts", "torch", "TTS").make(tiny_models / "xtts-v2", original=True)
