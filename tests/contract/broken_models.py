"""Loaded engines whose model breaks under them: weights that become no numbers, programs that are gone, a service that ends."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ctranslate2
import psutil
import pytest

from dubbing.engines import sherpa, weights
from dubbing.engines.base import Engine, EngineSpec
from tests.models.spoiled import spoil_onnx, spoil_torch, spoiled_ctranslate2


def own_options(spec: EngineSpec, folder: Path) -> dict[str, Any]:
    """Options of `load` that make an engine use weights of its own in `folder`, which may be spoiled."""
    if spec.name == "opus-mt":
        shutil.copytree(weights.home() / "opus-mt-en-es", folder / "opus-mt-en-es")
        return {"path": str(folder), "pairs": [("en", "es")]}
    if spec.name.startswith("fake"):
        return {"sick_if": str(folder / "sick")}
    if spec.weights is None:
        return {}
    place = shutil.copytree(weights.home() / spec.weights.name, folder / spec.weights.name)
    return {"path": str(place)}


def break_model(
    spec: EngineSpec,
    engine: Engine[Any, Any],
    options: Mapping[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    end_service: Callable[[], None],
) -> None:
    """Break the loaded engine for good; `options` are those of `own_options`."""
    held: Any = engine
    if spec.name.startswith("fake"):
        Path(options["sick_if"]).touch()
    elif spec.name.startswith("faster-whisper"):
        held._model.model = ctranslate2.models.Whisper(spoiled_ctranslate2(Path(options["path"])))
    elif spec.name == "opus-mt":
        folder = spoiled_ctranslate2(Path(options["path"]) / "opus-mt-en-es")
        held._model("en", "es")._translator = ctranslate2.Translator(folder)
    elif spec.kind == "translate" and spec.weights is not None:
        held._model._translator = ctranslate2.Translator(spoiled_ctranslate2(Path(options["path"])))
    elif spec.name == "xtts-v2":
        spoil_torch(held.model.xtts)
    elif spec.name == "demucs":
        spoil_torch(held._network)
    elif spec.name == "sherpa-onnx-diarize":
        held._extractor = spoiled_sherpa(spec, Path(options["path"]) / sherpa.PRINT_FILE, options)._extractor
    elif spec.name == "chat":
        end_service()
    else:
        end_programs(monkeypatch)


def spoiled_sherpa(spec: EngineSpec, file: Path, options: Mapping[str, Any]) -> Any:
    """The engine, loaded from the same files but for one network, whose floats are no numbers."""
    spoil_onnx(file)
    return spec.load(options)


def end_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of this one end, and no program can be started any more, Python neither."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    for process in psutil.Process().children(recursive=True):
        process.kill()
        process.wait(60)
