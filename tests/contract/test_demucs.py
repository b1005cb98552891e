"""HTDemucs: voices and background together are what came in, and what is wrong with weights or options is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubbing.engines import demucs, weights
from dubbing.engines.base import Engine, Located, SeparateItem
from dubbing.errors import (
    BadInputError,
    EngineMissingError,
    UsageError,
    WeightsDamagedError,
    WeightsMissingError,
)
from tests.models.fixtures import generator

pytestmark = pytest.mark.usefixtures("use_models")


@pytest.fixture(scope="module")
def engine(tiny_separator: Path) -> Iterator[Engine[Any, Any]]:
    loaded = demucs.SEPARATE.load({"path": str(tiny_separator / "htdemucs"), "threads": 1})
    yield loaded
    loaded.close()


@pytest.fixture
def copy(tiny_separator: Path, tmp_path: Path) -> Path:
    """The checkpoint in a folder of the test's own."""
    return Path(shutil.copytree(tiny_separator / "htdemucs", tmp_path / "htdemucs"))


def noise(frames: int, seed: int = 1, loud: int = 9_000) -> SeparateItem:
    return SeparateItem(np.random.default_rng(seed).integers(-loud, loud, (frames, 2), dtype=np.int16))


@pytest.mark.parametrize(
    "item", [noise(96_000), noise(1_234), noise(0), noise(30_000, loud=32_767)], ids=["whole", "short", "empty", "loud"]
)
def test_voices_and_background_together_are_exactly_what_came_in(engine: Engine[Any, Any], item: SeparateItem) -> None:
    [stems] = engine.run([item])

    assert stems.vocals.dtype == stems.background.dtype == np.int16
    assert stems.vocals.shape == stems.background.shape == item.audio.shape
    assert np.array_equal(stems.vocals.astype(int) + stems.background, item.audio)
    if len(item.audio):
        assert stems.vocals.any(), "even random weights call something voice"


def test_a_piece_does_not_depend_on_who_shares_the_batch(engine: Engine[Any, Any]) -> None:
    mine = noise(50_000)
    alone, shared = engine.run([mine])[0], engine.run([noise(96_000, 2), mine, noise(10, 3)])[1]

    assert np.array_equal(alone.vocals, shared.vocals)


@pytest.mark.parametrize("shape", [(96_001, 2), (100, 1), (100,)])
def test_a_piece_of_the_wrong_shape_is_refused(engine: Engine[Any, Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="not \\(up to 96000, 2\\)"):
        engine.run([SeparateItem(np.zeros(shape, np.int16))])


def test_missing_weights_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match=f"has no {demucs.FILE}") as caught:
        demucs.SEPARATE.load({"path": str(tmp_path)})
    assert "dub models fetch htdemucs" in caught.value.advice


def test_a_truncated_checkpoint_is_damaged(copy: Path) -> None:
    file = copy / demucs.FILE
    file.write_bytes(file.read_bytes()[:-1000])

    with pytest.raises(WeightsDamagedError, match="cannot be loaded") as caught:
        demucs.SEPARATE.load({"path": str(copy)})
    assert "dub models fetch htdemucs" in caught.value.advice


def test_a_checkpoint_of_another_size_than_was_fetched_is_damaged(copy: Path) -> None:
    told = {"repo": "r", "revision": "0" * 40, "files": {demucs.FILE: {"size": 7, "sha256": "0" * 64}}}
    (copy / weights.RECORD).write_text(json.dumps(told))

    with pytest.raises(WeightsDamagedError, match="not 7"):
        demucs.SEPARATE.load({"path": str(copy)})


@pytest.mark.parametrize("klass", ["subprocess.Popen", "demucs.hdemucs.HDemucs"])
def test_a_checkpoint_cannot_choose_what_is_run(tmp_path: Path, klass: str) -> None:
    place = generator("separator", "torch", "demucs").make(tmp_path, klass=klass)

    with pytest.raises(WeightsDamagedError, match=f"it holds {klass}"):
        demucs.SEPARATE.load({"path": str(place)})


def test_other_weights_are_another_version(copy: Path, engine: Engine[Any, Any]) -> None:
    told = {"repo": "r", "revision": "0" * 40}
    size = (copy / demucs.FILE).stat().st_size
    versions = [engine.info.version]
    for sha256 in ("1" * 64, "2" * 64):
        record = told | {"files": {demucs.FILE: {"size": size, "sha256": sha256}}}
        (copy / weights.RECORD).write_text(json.dumps(record))
        versions.append(demucs.SEPARATE.load({"path": str(copy)}).info.version)

    assert len(set(versions)) == 3


def test_an_unknown_option_is_refused_with_those_it_knows(tiny_separator: Path) -> None:
    with pytest.raises(UsageError, match="has no option shifts; it knows: device, max_batch, path, threads"):
        demucs.SEPARATE.load({"shifts": 2})
    with pytest.raises(UsageError, match="The option device of the engine demucs is 'tpu'"):
        demucs.SEPARATE.load({"device": "tpu"})


def test_a_gpu_that_is_not_there_is_told_of(tiny_separator: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineMissingError, match="torch finds no GPU") as caught:
        demucs.SEPARATE.load({"device": "cuda"})
    assert "device: auto" in caught.value.advice


def test_without_its_weights_it_is_located_as_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUBBING_MODELS_DIR", str(tmp_path))
    weights.home.cache_clear()

    fetch = "dub models fetch htdemucs"
    absent = demucs.SEPARATE.locate()
    (tmp_path / "htdemucs").mkdir()
    torn = demucs.SEPARATE.locate()

    assert absent == Located(False, "its weights are not on this machine", fetch)
    assert torn == Located(False, f"{tmp_path / 'htdemucs'} has no {demucs.FILE}", fetch)
