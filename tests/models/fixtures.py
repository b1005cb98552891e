"""Tiny models, made once per test session. What they are made with may be missing: then tests skip here and fail in CI."""

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


def generator(name: str, *packages: str) -> Any:
    """The module `tests.models.<name>`, if the packages it needs are here."""
    for package in packages:
        if find_spec(package) is None:
            missing(f"the package {package}")
    return importlib.import_module(f"tests.models.{name}")


@pytest.fixture(scope="session")
def models_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models folder of the test session; each fixture below puts its model there."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def use_models(monkeypatch: pytest.MonkeyPatch, models_home: Path) -> Iterator[Path]:
    """Have engines look for their weights in the models folder of the test session."""
    monkeypatch.setenv("DUBBING_MODELS_DIR", str(models_home))
    weights.home.cache_clear()
    yield models_home
    weights.home.cache_clear()


@pytest.fixture(scope="session")
def tiny_separator(models_home: Path) -> Path:
    """Weights of the engine demucs: a small network with random numbers that looks at two seconds; the models folder."""
    generator("separator", "torch", "demucs").make(models_home / "htdemucs", Fraction(2))
    return models_home


@pytest.fixture(scope="session")
def tiny_diarizer(models_home: Path) -> Path:
    """Weights of the engine sherpa-onnx-diarize: networks that tell low voices from high ones; the models folder."""
    generator("diarizer", "sherpa_onnx", "onnx").make(models_home)
    return models_home
