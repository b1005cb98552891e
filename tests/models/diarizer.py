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
LOW_HZ, HIGH_HZ = (80, 95, 110, 125), (170, 190, 210, 230)
"""Where the pitch of a low and of a high voice lies."""
HALF = 2.5
"""A low voice has less than e^2.5 times as much power at HIGH_HZ, its first overtone; a high one has more."""
SMOOTH = 61
"""Frames over which pitch is averaged: a second."""
BANDS, LOW_BANDS = 80, 8
"""Filter banks of a voice print's input, and those up to about 350 Hz, where pitch shows."""
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
    "output_dim": LOW_BANDS,
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
    """Low voices are the first speaker, high ones the second: samples (n, 1, t) -> classes (n, frames, 7)."""
    time = np.arange(KERNEL) / 16_000
    tones = [turn(2 * np.pi * hz * time) for hz in (*LOW_HZ, *HIGH_HZ) for turn in (np.cos, np.sin)]
    waves = (np.stack(tones) * np.hanning(KERNEL)).astype(np.float32)[:, None]
    sums = np.repeat(np.eye(2, dtype=np.float32), len(tones) // 2, axis=1)[:, :, None]
    scale = np.zeros((7, 3, 1), np.float32)
    scale[:3] = np.array([[-1000, 0, 0], [1000, 10, -10], [1000, -10, 10]], np.float32)[:, :, None]
    shift = np.array([1000 * LOUD, 10 * HALF - 1000 * LOUD, -10 * HALF - 1000 * LOUD] + [-1000.0] * 4, np.float32)
    nodes = [
        helper.make_node("Abs", ["x"], ["loud"]),
        helper.make_node("AveragePool", ["loud"], ["level"], kernel_shape=[KERNEL], strides=[SHIFT]),
        helper.make_node("Conv", ["x", "waves"], ["bands"], strides=[SHIFT]),
        helper.make_node("Mul", ["bands", "bands"], ["power"]),
        helper.make_node("Conv", ["power", "sums"], ["both"]),
        helper.make_node("AveragePool", ["both"], ["smooth"], kernel_shape=[SMOOTH], pads=[SMOOTH // 2] * 2),
        helper.make_node("Add", ["smooth", "least"], ["some"]),
        helper.make_node("Log", ["some"], ["pitch"]),
        helper.make_node("Concat", ["level", "pitch"], ["facts"], axis=1),
        helper.make_node("Conv", ["facts", "scale", "shift"], ["classes"]),
        helper.make_node("Transpose", ["classes"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("LogSoftmax", ["turned"], ["y"], axis=-1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "t"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "frames", 7])]
    least = np.array([1e-6], np.float32)
    constants = {"waves": waves, "sums": sums, "least": least, "scale": scale, "shift": shift}
    _save(path, nodes, inputs, outputs, constants, facts)


def write_prints(path: Path, facts: dict[str, Any] = PRINT_FACTS) -> None:
    """The shape of the mean low spectrum, without level and tilt: filter banks (n, t, 80) -> prints (n, 8)."""
    line = np.stack([np.ones(LOW_BANDS), np.arange(LOW_BANDS)], axis=1)
    basis = np.linalg.qr(line)[0]
    shape = np.zeros((BANDS, LOW_BANDS), np.float32)
    shape[:LOW_BANDS] = np.eye(LOW_BANDS) - basis @ basis.T
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "shape"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "t", BANDS])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", LOW_BANDS])]
    _save(path, nodes, inputs, outputs, {"shape": shape}, facts)


def _save(path: Path, nodes: Any, inputs: Any, outputs: Any, constants: dict[str, Any], facts: dict[str, Any]) -> None:
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
