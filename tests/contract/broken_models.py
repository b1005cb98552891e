"""Loaded engines whose model breaks under them: weights that become no numbers, programs that are gone, a service that ends."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import psutil
import pytest

from dubbing.engines import sherpa, weights
from dubbing.engines.base import Engine, EngineSpec

FLOAT32 = 0
"""CTranslate2's number for the type."""


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


def spoiled_ctranslate2(folder: Path) -> str:
    """A folder of CTranslate2, for its own loader: every float of the weights in it becomes no number."""
    path = folder / "model.bin"
    data, at = bytearray(path.read_bytes()), 0

    def take(form: str) -> int:
        nonlocal at
        (found,) = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(f"<{form}")
        return int(found)

    def skip_text() -> None:
        nonlocal at
        length = take("H")
        at += length

    take("I")  # version of the format
    skip_text()
    take("I")  # revision of the model
    for _ in range(take("I")):
        skip_text()
        dimensions = [take("I") for _ in range(take("B"))]
        kind, size = take("B"), take("I")
        if kind == FLOAT32 and dimensions:
            data[at : at + size] = np.full(size // 4, np.nan, "<f4").tobytes()
        at += size
    path.unlink()  # whoever has the old file open keeps it
    path.write_bytes(data)
    return str(folder)


def spoil_torch(network: Any) -> None:
    """Every parameter becomes no number."""
    for parameter in network.parameters():
        parameter.data.fill_(float("nan"))


def spoiled_sherpa(spec: EngineSpec, file: Path, options: Mapping[str, Any]) -> Any:
    """The engine, loaded from the same files but for one network, whose floats are no numbers."""
    import onnx  # noqa: PLC0415 - only where it is tested
    from onnx import numpy_helper  # noqa: PLC0415

    network = onnx.load(str(file))
    for held in network.graph.initializer:
        array = numpy_helper.to_array(held)
        held.CopyFrom(numpy_helper.from_array(np.full_like(array, np.nan), held.name))
    onnx.save(network, str(file))
    return spec.load(options)


def end_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of this one end, and no program can be started any more, Python neither."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    for process in psutil.Process().children(recursive=True):
        process.kill()
        process.wait(60)
