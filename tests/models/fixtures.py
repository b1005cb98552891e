"""Tiny models for the tests, in a models folder of their own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.engines import weights
from tests.models import nmt
from tests.services import missing

NMT: dict[str, nmt.Layout] = {
    "nllb-600m": "nllb",
    "m2m100-418m": "m2m100",
    "madlad400-3b": "madlad400",
    "opus-mt-en-es": "marian",
}
"""Folder of a model -> its layout."""


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The models folder of this process, empty at first; programs started by a test inherit it."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUBBING_MODELS_DIR", str(folder))
        weights.home.cache_clear()
        yield folder
    weights.home.cache_clear()


@pytest.fixture(scope="session")
def translation_models(models_dir: Path) -> Path:
    """The models folder with a dictionary in each layout of a translation model."""
    if importlib.util.find_spec("sentencepiece") is None:
        missing("sentencepiece")
    for name, layout in NMT.items():
        nmt.make(models_dir / name, layout)
    return models_dir
