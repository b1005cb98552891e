"""XTTS v2 by batch size: real-time factor and memory, beside the floor that reading the weights once per token sets.

Random weights of full size on a GPU: speed does not depend on what weights say. Without a GPU a tiny model runs, which
shows that the script works and whose figures mean nothing; --full insists (2 GB, minutes).
"""

# ruff: noqa: PLC0415 - torch is looked for before it is loaded, and then loads for seconds

from __future__ import annotations

import argparse
import importlib.util
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = "Ayer por la tarde fuimos al mercado y compramos fruta, pan y un poco de queso."
SECONDS = 5.0
"""Of speech per line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,4,8,16,32", help="lines decoded together")
    parser.add_argument("--half", action="store_true", help="float16 on a GPU")
    parser.add_argument("--full", action="store_true", help="full size on a CPU, too")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    options = parser.parse_args()
    for module in ("torch", "TTS"):
        if importlib.util.find_spec(module) is None:
            print(f"skipped: {module} is not installed (scripts/setup.sh studio)")
            return
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    measure(options)


def measure(options: argparse.Namespace) -> None:
    import torch

    from dubbing.engines.xtts_decode import Sampling, Utterance
    from dubbing.engines.xtts_model import XttsModel
    from tests.models import xtts

    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    full = device == "cuda" or options.full
    with tempfile.TemporaryDirectory() as folder:
        model = XttsModel(xtts.make(Path(folder), full=full), device, options.half and device == "cuda")
    gpt = model.xtts.gpt
    gpt.mel_head.bias.data[gpt.stop_audio_token] = -1e4  # every line goes to its limit, so all are equally long
    codes = min(model.max_codes, round(SECONDS * model.codes_per_s))
    spoken_s = codes / model.codes_per_s
    weights = sum(p.numel() * p.element_size() for block in gpt.gpt.h for p in block.parameters())
    floor_s = codes * weights / bandwidth(device)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {options.threads} threads"
    print(f"{name}; {'full size' if full else 'TINY: no figure is worth keeping'}; {weights / 1e6:.0f} MB of blocks")
    print(f"lines of {spoken_s:.1f} s ({codes} tokens); floor of a decode of any batch {floor_s:.3f} s")
    print("batch  decode s  x floor  vocode s  real-time factor  memory MB")
    timbre = model.presets["Ana Tiny"]
    tokens = model.tokens(TEXT, "es")
    for batch in map(int, options.batches.split(",")):
        rows = [Utterance(tokens, timbre.conditioning, codes, seed) for seed in range(batch)]
        forget_peak(device)
        model.decoder(rows[:1], Sampling())  # kernels are chosen and memory is taken outside the clock
        decode_s, said = timed(lambda rows=rows: model.decoder(rows, Sampling()), device)
        vocode_s, _ = timed(lambda said=said: [model.sound(one.latents, timbre, 1.0) for one in said], device)
        factor = (decode_s + vocode_s) / (batch * spoken_s)
        line = f"{batch:5d}  {decode_s:8.2f}  {decode_s / floor_s:7.1f}  {vocode_s:8.2f}  {factor:16.3f}  {peak_mb(device):9.0f}"
        print(line, flush=True)


def bandwidth(device: str) -> float:
    """Bytes per second that a large copy reads and writes, the best of five."""
    import torch

    source = torch.empty(2**28, dtype=torch.uint8, device=device)
    best_s = min(timed(source.clone, device)[0] for _ in range(5))
    return 2 * source.numel() / best_s


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of some work, all of it really done, and what it answered."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    began = time.perf_counter()
    answer = work()
    wait()
    return time.perf_counter() - began, answer


def forget_peak(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_mb(device: str) -> float:
    """Peak of the GPU's memory since the last batch size; on a CPU that of the process so far."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
