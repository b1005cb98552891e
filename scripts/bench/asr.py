"""What batches bring to recognition: real-time factor of Whisper's engine by size of the batch, on this machine.

    python scripts/bench/asr.py [--size small] [--device cuda] [--batches 1,4,8,16]
    python scripts/bench/asr.py --path FOLDER --audio FILE

`--size` writes a model of that architecture with random weights that say 90 words a piece, whatever they hear: speed does
not depend on what the weights say, but it does depend on how much. `--path` measures real weights, on a recording of
speech that is repeated to make pieces of 28 s. Compare rows of one run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dubbing.engines import faster_whisper, vad  # noqa: E402 - the tree of this script comes first, installed or not
from dubbing.engines.base import TranscribeItem  # noqa: E402
from dubbing.engines.whisper_batch import WhisperEngine  # noqa: E402
from dubbing.types import Int16Audio  # noqa: E402
from tests.models import whisper  # noqa: E402

SHAPES = {"tiny": whisper.TINY, "small": whisper.SMALL, "large-v3-turbo": whisper.LARGE_V3_TURBO}
PIECE_S, WORDS = 28, 90


def read(path: Path) -> Int16Audio:
    """Mono, 16 kHz."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.int16)


def pieces_of(audio: Int16Audio, count: int) -> list[TranscribeItem]:
    """Pieces of 28 s, each beginning elsewhere in the recording, with their speech found, as a job gives them."""
    pieces = (np.resize(np.roll(audio, -i * 16_000), PIECE_S * 16_000) for i in range(count))
    return [
        TranscribeItem(piece, i * PIECE_S * 1000, "en", tuple(vad.speech_spans(piece, **vad.CLOSE)))
        for i, piece in enumerate(pieces)
    ]


def noise(count: int) -> list[TranscribeItem]:
    """Pieces of 28 s that are said to be speech all through."""
    rng = np.random.default_rng(0)
    pieces = (rng.normal(0, 1000, PIECE_S * 16_000).astype(np.int16) for _ in range(count))
    return [TranscribeItem(piece, i * PIECE_S * 1000, "en", ((0, PIECE_S * 1000),)) for i, piece in enumerate(pieces)]


def floor_tflop(shape: whisper.Shape, tokens: int, beams: int) -> tuple[float, float]:
    """Arithmetic of one piece that no implementation can avoid, in 10^12 operations: (encoder, decoder)."""
    width, frames = shape.width, whisper.FRAMES
    convolutions = 2 * 3 * width * (shape.mels * 2 * frames + width * frames)
    layer = 2 * frames * 12 * width**2 + 4 * frames**2 * width
    crossed = shape.decoder_layers * 2 * frames * 2 * width**2
    vocabulary = shape.text_tokens + whisper.TIMESTAMPS + len(whisper.LANGUAGES) + len(shape.extra_languages) + 8
    token = shape.decoder_layers * (2 * 14 * width**2 + 4 * frames * width) + 2 * vocabulary * width
    return (convolutions + shape.encoder_layers * layer) / 1e12, (crossed + tokens * beams * token) / 1e12


def memory_mb(device: str) -> int:
    """Memory in use on the GPU; on a CPU the most this process ever had."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])


def preparation_s(item: TranscribeItem, mels: int) -> tuple[float, float]:
    """Seconds of one thread for a piece: (voice activity, in the job; spectrogram, in the engine)."""
    from faster_whisper.feature_extractor import FeatureExtractor  # noqa: PLC0415

    extract = FeatureExtractor(feature_size=mels)
    start = time.perf_counter()
    vad.speech_spans(item.audio)
    middle = time.perf_counter()
    extract(item.audio.astype(np.float32) / 32768)
    return middle - start, time.perf_counter() - middle


def measure(engine: WhisperEngine, items: list[TranscribeItem], batch: int, repeats: int) -> tuple[float, int]:
    """(fastest seconds for all items in batches of this size, words heard)."""
    engine.run(items[:batch])
    took, words = float("inf"), 0
    for _ in range(repeats):
        start = time.perf_counter()
        found = [answer for i in range(0, len(items), batch) for answer in engine.run(items[i : i + batch])]
        took = min(took, time.perf_counter() - start)
        words = sum(len(segment.words) for answer in found for segment in answer.segments)
    return took, words


def main() -> None:
    """Print the table, and with --json one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--size", choices=SHAPES, default="tiny", help="architecture with random weights")
    model.add_argument("--path", type=Path, help="folder of real weights in CTranslate2's format")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="a recording of speech (default: noise)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--compute-type", default="auto")
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batches", default="1,4,8,16", help="sizes, the first is what the others are compared with")
    parser.add_argument("--pieces", type=int, default=16, help="pieces of 28 s to recognise")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest counts")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(given, Path(folder))


def run(given: argparse.Namespace, folder: Path) -> None:
    """Load, measure, print."""
    shape = SHAPES[given.size]
    place = given.path
    if place is None:
        words = " ".join(f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(WORDS))
        script = {"en": f"{words} <|{PIECE_S}.00|>"}
        place = whisper.make(folder / "model", script, shape=shape, quantization="float16")
    options = {"path": str(place), "device": given.device, "compute_type": given.compute_type}
    options |= {"beam_size": given.beam_size, "threads": given.threads, "max_batch": 256}
    start = time.perf_counter()
    spec = faster_whisper.LARGE_V3_TURBO if (place / "vocabulary.json").is_file() else faster_whisper.SMALL
    engine: Any = spec.load(options)
    loaded = time.perf_counter() - start
    device = "cpu" if engine.info.deterministic else "cuda"
    items = pieces_of(read(given.audio), given.pieces) if given.audio else noise(given.pieces)
    rows: list[dict[str, Any]] = []
    print(f"{device}, beam {given.beam_size}, loaded in {loaded:.1f} s, {given.pieces} pieces of {PIECE_S} s")
    print(f"{'batch':>5} {'s a piece':>10} {'x real time':>12} {'against the first':>18} {'words':>6} {'MB':>7}")
    for batch in map(int, given.batches.split(",")):
        took, words = measure(engine, items, batch, given.repeats)
        row = {"batch": batch, "s_per_piece": took / len(items), "x_real_time": PIECE_S * len(items) / took}
        row |= {"words": words, "memory_mb": memory_mb(device)}
        rows.append(row)
        gain = rows[0]["s_per_piece"] / row["s_per_piece"]
        print(
            f"{batch:5} {row['s_per_piece']:10.3f} {row['x_real_time']:12.1f} {gain:17.2f}x {words:6} {row['memory_mb']:7}"
        )
    spans_s, mels_s = preparation_s(items[0], shape.mels)
    print(
        f"one CPU thread, a piece: voice activity {spans_s:.3f} s (in the job), spectrogram {mels_s:.3f} s (in the engine)"
    )
    if given.path is None:
        encoder, decoder = floor_tflop(shape, WORDS + 6, given.beam_size)
        print(f"arithmetic of a piece: encoder {encoder:.4f}, decoder {decoder:.4f} x 10^12 operations")
    if given.json:
        print(json.dumps({"device": device, "size": given.size, "rows": rows}))
    engine.close()


if __name__ == "__main__":
    main()
