"""Tiny networks in the formats sherpa-onnx loads: set by hand, so that they hear what can be told without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dubbing.engines.sherpa import PRINT_FILE, SEGMENTATION_FILE

KERNEL, SHIFT = 991, 270
"""Samples that a frame of pyannote's segmentation looks at, and from one frame to the next."""
WINDOW = 160_000
LOUD = 0.004
"""Mean amplitude from which the segmentation hears speech."""
BANDS = 80
SEGMENTATION_FACTS = {
    "model_type": "pyannote-segmentation-3.0",
    "sample_rate": 16_000,
    "window_size": WINDOW,
    "receptive_field_size": KERNEL,
    "receptive_field_shift": SHIFT,
    "num_speakers": 3,
    "powerset_max_classes": 2,
    "num_classes": 7,
}
PRINT_FACTS = {
    "framework": "wespeaker",
    "language": "English",
    "output_dim": BANDS,
    "sample_rate": 16_000,
    "normalize_samples": 0,
}


def make(folder: Path) -> tuple[Path, Path]:
    """Write both networks below `folder`; answers the folders of the voice prints and of the segmentation."""
    prints, segmentation = folder / "voice-prints", folder / "speaker-segmentation"
    for place in (prints, segmentation):
        place.mkdir(parents=True, exist_ok=True)
    write_segmentation(segmentation / SEGMENTATION_FILE)
    write_prints(prints / PRINT_FILE)
    return prints, segmentation


def write_segmentation(path: Path, facts: dict[str, Any] = SEGMENTATION_FACTS) -> None:
    """Speech of the first speaker where the sound is loud, else nobody: samples (n, 1, t) -> classes (n, frames, 7)."""
    scale = np.array([[-1.0], [1.0]] + [[0.0]] * 5, np.float32).reshape(7, 1, 1) * 1000
    shift = np.array([LOUD, -LOUD] + [-1.0] * 5, np.float32) * 1000
    nodes = [
        helper.make_node("Abs", ["x"], ["loud"]),
        helper.make_node("AveragePool", ["loud"], ["mean"], kernel_shape=[KERNEL], strides=[SHIFT]),
        helper.make_node("Conv", ["mean", "scale", "shift"], ["classes"]),
        helper.make_node("Transpose", ["classes"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("LogSoftmax", ["turned"], ["y"], axis=-1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "t"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "frames", 7])]
    _save(path, nodes, inputs, outputs, {"scale": scale, "shift": shift}, facts)


def write_prints(path: Path, facts: dict[str, Any] = PRINT_FACTS) -> None:
    """The mean spectrum's shape, without level and tilt: filter banks (n, t, 80) -> prints (n, 80)."""
    slope = np.linspace(-1, 1, BANDS)
    basis = np.linalg.qr(np.stack([slope**power for power in range(4)], axis=1))[0]
    shape = (np.eye(BANDS) - basis @ basis.T).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "shape"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "t", BANDS])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", BANDS])]
    _save(path, nodes, inputs, outputs, {"shape": shape}, facts)


def _save(path: Path, nodes: Any, inputs: Any, outputs: Any, constants: dict[str, Any], facts: dict[str, Any]) -> None:
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
