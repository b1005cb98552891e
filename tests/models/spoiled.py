"""Weights whose every float becomes no number, as in a memory that broke: files and networks load, and answer nonsense."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

FLOAT32 = 0
"""CTranslate2's number for the type."""


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


def spoil_onnx(path: Path) -> None:
    """The same for the constants of a network in ONNX."""
    import onnx  # noqa: PLC0415 - only where it is tested
    from onnx import numpy_helper  # noqa: PLC0415

    network = onnx.load(str(path))
    for held in network.graph.initializer:
        array = numpy_helper.to_array(held)
        held.CopyFrom(numpy_helper.from_array(np.full_like(array, np.nan), held.name))
    onnx.save(network, str(path))
