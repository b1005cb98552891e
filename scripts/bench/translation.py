"""Lines per second of a neural translator by batch size, on whatever device there is: a table, one row a batch size.

    python scripts/bench/translation.py ENGINE               with the weights that are here
    python scripts/bench/translation.py ENGINE --random      with random weights of the same size, made on the spot

Speed does not depend on what weights say, save for when an answer ends: random weights are made to decode exactly
`--steps` tokens a line. The floor is the time to read the decoder's weights once a step at `--bandwidth`.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

from dubbing.engines import registry
from dubbing.engines.base import TranslateItem

LINES = [
    "Good morning, and thank you all for coming.",
    "Today we will talk about the weather, and why it is so hard to foretell.",
    "It is very nice outside.",
    "When I was a child, my father took me to the sea, and we would count the ships until it was dark.",
    "I do not know.",
    "Let us begin with a small experiment that everybody can do at home with a glass of water.",
]


@dataclass(frozen=True)
class Size:
    """The shape of a model."""

    layers: int
    width: int
    inner: int
    heads: int
    head_width: int
    vocabulary: int
    t5: bool = False

    @property
    def decoder_weights(self) -> int:
        """Weights read for each decoding step: attention and feed-forward of each layer, and the output projection."""
        attention = 8 * self.width * self.heads * self.head_width
        return (
            self.layers * (attention + (3 if self.t5 else 2) * self.width * self.inner) + self.vocabulary * self.width
        )


SIZES = {
    "nllb-600m": Size(12, 1024, 4096, 16, 64, 256_206),
    "nllb-3.3b": Size(24, 2048, 8192, 16, 128, 256_206),
    "m2m100-418m": Size(12, 1024, 4096, 16, 64, 128_112),
    "madlad400-3b": Size(32, 1024, 8192, 16, 128, 256_000, t5=True),
    "opus-mt": Size(6, 512, 2048, 8, 64, 65_001),
    "tiny": Size(2, 32, 64, 2, 16, 100),
    "tiny-t5": Size(2, 32, 64, 2, 32, 100, t5=True),
}


class Draw:
    """Random weights of the shapes that the parts of a checkpoint have."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._draw = np.random.default_rng(0)

    def weights(self, rows: int, columns: int) -> np.ndarray[Any, Any]:
        return (self._draw.standard_normal((rows, columns), np.float32) * (columns**-0.5)).astype(np.float32)

    def linear(self, part: Any, rows: int, columns: int) -> None:
        part.weight = self.weights(rows, columns)
        if not self._size.t5:
            part.bias = np.zeros(rows, np.float32)

    def norm(self, part: Any) -> None:
        part.gamma = np.ones(self._size.width, np.float32)
        if not self._size.t5:
            part.beta = np.zeros(self._size.width, np.float32)

    def attention(self, part: Any, shared: Any, own: bool) -> None:
        size = self._size
        hidden = size.heads * size.head_width
        self.norm(part.layer_norm)
        for i, times in enumerate((3,) if own else (1, 2)):
            self.linear(part.linear[i], times * hidden, size.width)
        self.linear(part.linear[-1], size.width, hidden)
        if size.t5:
            part.queries_scale = 1.0
        if size.t5 and own:
            part.relative_attention_bias = shared
            part.relative_attention_max_distance = np.dtype("int32").type(128)

    def feed_forward(self, part: Any) -> None:
        size = self._size
        self.norm(part.layer_norm)
        for linear in [part.linear_0, *([part.linear_0_noact] if size.t5 else [])]:
            self.linear(linear, size.inner, size.width)
        self.linear(part.linear_1, size.width, size.inner)


def random_model(folder: Path, size: Size, quantization: str) -> None:
    """Write a checkpoint of that size with random weights."""
    draw, make = Draw(size), transformer_spec.TransformerSpec.from_config
    relu, gelu = common_spec.Activation.RELU, common_spec.Activation.GELU
    spec = (
        make((size.layers, size.layers), size.heads, pre_norm=True, activation=gelu, ffn_glu=True,
             relative_attention_bias=True, rms_norm=True)
        if size.t5
        else make((size.layers, size.layers), size.heads, pre_norm=True, activation=relu)
    )  # fmt: skip
    embedding = draw.weights(size.vocabulary, size.width)
    for side, table in ((spec.encoder, spec.encoder.embeddings[0]), (spec.decoder, spec.decoder.embeddings)):
        table.weight, side.scale_embeddings = embedding, not size.t5
        draw.norm(side.layer_norm)
        if not size.t5:
            side.position_encodings.encodings = np.zeros((1026, size.width), np.float32)
        shared = draw.weights(32, size.heads)
        for layer in side.layer:
            draw.attention(layer.self_attention, shared, own=True)
            if side is spec.decoder:
                draw.attention(layer.attention, shared, own=False)
            draw.feed_forward(layer.ffn)
    spec.decoder.projection.weight = embedding
    if not size.t5:
        spec.decoder.projection.bias = np.zeros(size.vocabulary, np.float32)
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *(f"t{i}" for i in range(size.vocabulary - 4))]
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<s>", "</s>", "<unk>"
    spec.config.decoder_start_token = "</s>"
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(folder))


def random_run(folder: Path, size: Size, given: argparse.Namespace) -> Callable[[int], None]:
    """Translates `given.lines` lines of random tokens, so many at a time."""
    device = given.device
    if device == "auto":
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    model = ctranslate2.Translator(str(folder), device=device, compute_type=given.compute_type)
    draw = np.random.default_rng(1)
    lengths = draw.integers(6, 36, given.lines)  # a subtitle line has 6 to 35 pieces
    lines = [[f"t{i}" for i in draw.integers(0, size.vocabulary - 4, length)] + ["</s>"] for length in lengths]

    def run(batch: int) -> None:
        for i in range(0, len(lines), batch):
            model.translate_batch(
                lines[i : i + batch],
                beam_size=given.beam,
                max_batch_size=batch,
                min_decoding_length=given.steps,
                max_decoding_length=given.steps,
            )

    return run


def real_run(given: argparse.Namespace) -> Callable[[int], None]:
    """Translates `given.lines` English lines with an engine and its weights, so many at a time."""
    options: dict[str, Any] = {"device": given.device, "compute_type": given.compute_type, "beam_size": given.beam}
    if given.path:
        options["path"] = str(given.path)
    engine = registry.spec(given.engine).load(options | {"max_batch_size": 1024})
    items = [TranslateItem(LINES[i % len(LINES)], "en", given.to) for i in range(given.lines)]

    def run(batch: int) -> None:
        for i in range(0, len(items), batch):
            engine.run(items[i : i + batch])

    return run


def memory() -> str:
    """What the process has had at most, and what the GPU holds now."""
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB of memory at most"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.used", "--format=csv,noheader"]
        text += f"; {subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()}"
    return text


def measure(run: Callable[[int], None], given: argparse.Namespace, sizes: Sequence[int]) -> None:
    """Print the table."""
    floor = ""
    if given.random and given.bandwidth:
        step_s = (
            SIZES[given.engine].decoder_weights * (1 if "int8" in given.quantization else 2) / given.bandwidth / 1e9
        )
        floor = f" {'floor lines/s':>14}"
    print(f"{'batch':>6} {'lines/s':>9} {'s':>8}{floor}")
    run(max(sizes))  # the first call of a size allocates
    for batch in sizes:
        start = time.perf_counter()
        run(batch)
        took = time.perf_counter() - start
        bound = f" {batch / (step_s * given.steps):14.0f}" if floor else ""
        print(f"{batch:6} {given.lines / took:9.1f} {took:8.2f}{bound}", flush=True)
    print(memory())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=SIZES)
    parser.add_argument("--random", action="store_true", help="random weights of the engine's size")
    parser.add_argument("--path", type=Path, help="folder of the weights, when they are not in the models folder")
    parser.add_argument("--to", default="es", help="target language (default: es)")
    parser.add_argument("--batches", default="1,4,8,16,32,64", help="batch sizes (default: 1,4,8,16,32,64)")
    parser.add_argument("--lines", type=int, default=128, help="lines for each batch size (default: 128)")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--steps", type=int, default=24, help="tokens decoded for each line with random weights")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--compute-type", default="auto")
    parser.add_argument("--quantization", default="int8", help="of random weights on disk (default: int8)")
    parser.add_argument(
        "--bandwidth", type=float, default=0.0, help="memory bandwidth of the device, GB/s, for the floor"
    )
    given = parser.parse_args()
    sizes = [int(size) for size in given.batches.split(",")]
    if not given.random:
        measure(real_run(given), given, sizes)
        return
    with tempfile.TemporaryDirectory() as folder:
        random_model(Path(folder), SIZES[given.engine], given.quantization)
        measure(random_run(Path(folder), SIZES[given.engine], given), given, sizes)


if __name__ == "__main__":
    main()
