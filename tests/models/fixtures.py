"""Tiny models as fixtures: made once per test run, used by the modules that ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.engines import weights

WHISPER_SAYS = {"en": "good morning <|1.00|> <|1.20|> the house listens now", "es": "hola buenos días amigos míos"}


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a tiny model for each engine that needs weights."""
    from tests.models import whisper  # noqa: PLC0415 - only who asks for models pays for their libraries

    folder = tmp_path_factory.mktemp("models")
    whisper.make(folder / "faster-whisper-small", WHISPER_SAYS)
    whisper.make(folder / "faster-whisper-large-v3-turbo", WHISPER_SAYS, shape=whisper.TINY_V3)
    return folder


@pytest.fixture(scope="module")
def models_home(tiny_models: Path) -> Iterator[Path]:
    """The tiny models as this module's own models folder, as DUBBING_MODELS_DIR would have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUBBING_MODELS_DIR", str(tiny_models))
        weights.home.cache_clear()
        yield tiny_models
    weights.home.cache_clear()
