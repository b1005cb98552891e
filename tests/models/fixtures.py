"""Tiny models as fixtures: made once per test run, used by the modules that ask for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.engines import weights
from tests.services import missing

WHISPER_SAYS = {"en": "good morning <|1.00|> <|1.20|> the house listens now", "es": "hola buenos días amigos míos"}
NMT = {"nllb-600m": "nllb", "m2m100-418m": "m2m100", "madlad400-3b": "madlad400", "opus-mt-en-es": "marian"}
"""Folder of a translation model -> its layout."""


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a tiny model for each engine that recognises."""
    from tests.models import whisper  # noqa: PLC0415 - only who asks for models pays for their libraries

    folder = tmp_path_factory.mktemp("models")
    whisper.make(folder / "faster-whisper-small", WHISPER_SAYS)
    whisper.make(folder / "faster-whisper-large-v3-turbo", WHISPER_SAYS, shape=whisper.TINY_V3)
    return folder


@pytest.fixture(scope="session")
def nmt_models(tiny_models: Path) -> Path:
    """The models folder with a dictionary in each layout of a translation model."""
    from tests.models import nmt  # noqa: PLC0415 - as above

    if importlib.util.find_spec("sentencepiece") is None:
        missing("sentencepiece")
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
