"""Word error rate, confidence and speed of a recogniser on clips with reference texts: a table, one row per clip.

    python scripts/bench/recognition.py MEDIA_FOLDER [ENGINE]

MEDIA_FOLDER holds MANIFEST.tsv with the columns `file` and `reference_text`.
"""

from __future__ import annotations

import csv
import re
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from dubbing.engines import registry, vad
from dubbing.engines.base import Engine, TranscribeItem, Transcript
from dubbing.types import Int16Audio


def read(path: Path) -> Int16Audio:
    """Mono, 16 kHz."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.int16)


def edits(want: list[str], got: list[str]) -> int:
    """Fewest insertions, deletions and substitutions of words."""
    row = list(range(len(got) + 1))
    for i, word in enumerate(want, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def words(text: str) -> list[str]:
    """Words without case and punctuation."""
    return re.findall(r"[a-z']+", text.lower().replace("\u2019", "'"))


def main(media: Path, name: str) -> None:
    """Print the table and the total."""
    engine: Engine[Any, Transcript] = registry.spec(name).load({})
    total = errors = 0
    seconds = length = 0.0
    print(f"{'clip':28} {'s':>6} {'WER':>6} {'confidence':>10} {'x real time':>11}")
    with (media / "MANIFEST.tsv").open(encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table, delimiter="\t") if (row["reference_text"] or "").strip()]
    for row in rows:
        audio = read(media / row["file"])
        start = time.perf_counter()
        pieces = vad.chunks(vad.speech_spans(audio))
        answers = engine.run([TranscribeItem(audio[a * 16 : b * 16], a, "en") for a, b in pieces])
        took = time.perf_counter() - start
        segments = [segment for answer in answers for segment in answer.segments]
        want, got = words(row["reference_text"]), [word for s in segments for word in words(s.text)]
        wrong = edits(want, got)
        heard = [word.confidence or 0.0 for s in segments for word in s.words]
        confidence = sum(heard) / max(len(heard), 1)
        clip_s = audio.size / 16_000
        print(f"{row['file']:28} {clip_s:6.1f} {wrong / len(want):6.1%} {confidence:10.2f} {took / clip_s:11.2f}")
        total, errors, seconds, length = total + len(want), errors + wrong, seconds + took, length + clip_s
    print(f"{'all':28} {length:6.1f} {errors / total:6.1%} {'':10} {seconds / length:11.2f}")
    engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "pocketsphinx")
