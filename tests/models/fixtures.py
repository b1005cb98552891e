"""Tiny models, made once per test run and only when a test asks for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.engines import weights
from tests.services import missing


@pytest.fixture(scope="session")
def models_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds a folder for each tiny model."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def installed_models(models_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The tiny models as those of this machine: what `locate` and `load` find without options."""
    monkeypatch.setenv("DUBBING_MODELS_DIR", str(models_home))
    weights.home.cache_clear()
    yield models_home
    weights.home.cache_clear()


@pytest.fixture(scope="session")
def tiny_xtts(models_home: Path) -> Path:
    """Folder of a tiny XTTS v2 whose model.pth is written like the published one."""
    for module, package in (("torch", "torch"), ("TTS", "coqui-tts")):
        if importlib.util.find_spec(module) is None:
            missing(package)
    from tests.models import xtts  # noqa: PLC0415 - torch and coqui-tts load for seconds

    return xtts.make(models_home / "xtts-v2", original=True)
