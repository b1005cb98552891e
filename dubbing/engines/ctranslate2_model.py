"""A CTranslate2 checkpoint that is loaded and answers sentences: options, device, decoding, and guards against loops."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dubbing.engines import options as engine_options
from dubbing.engines import probing, weights
from dubbing.engines.ctranslate2_codecs import Codec, MakeCodec
from dubbing.errors import EngineBrokenError, EngineError, EngineMissingError, WeightsDamagedError

MOST_DECODED = 256
"""Tokens of an answer; one that gets there has lost its way."""
_EDGE = 1 << 20
"""Bytes at each end of a large file that stand for it."""
_LOOP_TIMES = 4
"""A stretch of tokens said this often in a row at the end is a loop."""
_LOOP_LENGTH = 8
_PROBE = ["▁a", "</s>"]
"""Tokens of a probe; a vocabulary that lacks one takes it for its unknown word."""
_GUARD = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
"""How a sentence that ran into a loop is decoded again."""


class Options(engine_options.Options):
    """Options of `load`, from the serve config."""

    path: Path | None = None
    """Folder of the model; default is its own in the models folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU if CTranslate2 sees one."""
    device_index: int = Field(0, ge=0)
    compute_type: str = "auto"
    """CTranslate2's name of the number type; `auto` is the fastest that the device can do."""
    threads: int = Field(0, ge=0)
    """OpenMP threads on a CPU; 0 leaves it to CTranslate2 (at most 4)."""
    max_batch: int = Field(32, ge=1)
    """Lines the batcher gives at once."""
    max_batch_size: int = Field(32, ge=1)
    """Sentences in one call of the model; more are sorted by length and run in turns."""
    beam_size: int = Field(4, ge=1, le=32)
    hypotheses: int = Field(8, ge=1, le=32)
    """Translations to choose from when the best one is over the length budget."""
    margin: float = Field(0.5, ge=0)
    """How much worse than the best a shorter translation may be, in log probability per token."""
    repetition_penalty: float = Field(1.0, ge=1)
    no_repeat_ngram_size: int = Field(0, ge=0)
    max_tokens: int = Field(200, ge=8, le=400)
    """Longest source sentence in tokens; the models were trained on sentences, and longer ones lose their ends."""
    pairs: list[tuple[str, str]] = Field(default=[])
    """Language pairs that will be asked for first; their checkpoints load now."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence ready for the model."""

    tokens: list[str]
    prefix: list[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """One translation of a sentence."""

    text: str
    score: float
    """Mean log probability of a token."""
    looped: bool
    """True when it ran into a loop or into the limit."""


class Model:
    """One loaded checkpoint."""

    def __init__(self, place: Path, make_codec: MakeCodec, options: Options, engine: str, refetch: str) -> None:
        """Load. Raises EngineMissingError without the device asked for, WeightsDamagedError for files that do not load."""
        import ctranslate2  # noqa: PLC0415 - 60 MB, and only for who translates

        self._options, self._name = options, engine
        device = _device(ctranslate2, options.device, engine)
        try:
            self.codec: Codec = make_codec(place, engine)
            self._translator = ctranslate2.Translator(
                str(place),
                device=device,
                device_index=options.device_index,
                compute_type=options.compute_type,
                intra_threads=options.threads,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise _load_error(error, place, engine, refetch) from error

    def sentence(self, text: str, source: str, target: str) -> Sentence:
        """A sentence as tokens. Raises LanguageError."""
        return Sentence(self.codec.encode(text, source, target), self.codec.prefix(target))

    def fits(self, text: str, source: str, target: str) -> bool:
        """Whether a sentence is short enough for the model."""
        return len(self.codec.encode(text, source, target)) <= self._options.max_tokens

    def answer(self, sentences: Sequence[Sentence]) -> list[Answer]:
        """The best translation of each sentence; one that loops is decoded again with repetition forbidden."""
        found = [answers[0] for answers in self._decode(sentences, 1, {})]
        again = [i for i, answer in enumerate(found) if answer.looped]
        for i, answers in zip(again, self._decode([sentences[i] for i in again], 1, _GUARD), strict=True):
            found[i] = answers[0]
        return found

    def alternatives(self, sentences: Sequence[Sentence]) -> list[list[Answer]]:
        """Several translations of each sentence, the best first; those that loop are left out."""
        found = self._decode(sentences, self._options.hypotheses, {})
        return [[answer for answer in answers if not answer.looped] for answers in found]

    def probe(self) -> None:
        """Translate a word with as few steps as there can be. Raises EngineBrokenError when no numbers come out."""
        with probing.probing(self._name):
            [result] = self._translator.translate_batch(
                [_PROBE], beam_size=1, max_decoding_length=2, return_scores=True
            )
            probing.require_numbers(self._name, "its scores", result.scores)

    def close(self) -> None:
        """Free the memory; calling twice is fine."""
        self._translator.unload_model()

    def _decode(self, sentences: Sequence[Sentence], count: int, guard: Mapping[str, Any]) -> list[list[Answer]]:
        if not sentences:
            return []
        options = self._options
        decoding: dict[str, Any] = {
            "repetition_penalty": options.repetition_penalty,
            "no_repeat_ngram_size": options.no_repeat_ngram_size,
        }
        prefixes = [sentence.prefix for sentence in sentences]
        try:
            results = self._translator.translate_batch(
                [sentence.tokens for sentence in sentences],
                target_prefix=prefixes if any(prefixes) else None,
                max_batch_size=options.max_batch_size,
                beam_size=max(options.beam_size, count),
                num_hypotheses=count,
                max_decoding_length=MOST_DECODED,
                disable_unk=True,
                return_scores=True,
                **(decoding | dict(guard)),
            )
        except RuntimeError as error:  # out of memory, say: the batcher comes again with halves
            kind = EngineBrokenError if "libcu" in str(error) else EngineError
            raise kind(name=self._name, detail=str(error)) from error
        return [
            [
                Answer(self.codec.decode(tokens), score, looped(tokens) and not looped(sentence.tokens[:-1]))
                for tokens, score in zip(result.hypotheses, result.scores, strict=True)
            ]
            for sentence, result in zip(sentences, results, strict=True)
        ]


def looped(tokens: Sequence[str]) -> bool:
    """Whether an answer says the same over and over at its end, or never came to one."""
    if len(tokens) >= MOST_DECODED:
        return True
    return any(
        tuple(tokens[-length:]) * _LOOP_TIMES == tuple(tokens[-length * _LOOP_TIMES :])
        for length in range(1, min(_LOOP_LENGTH, len(tokens) // _LOOP_TIMES) + 1)
    )


def fingerprint(place: Path, names: Sequence[str], options: Options) -> str:
    """What decides a translation besides the program: the weights, and how they are decoded; 12 hex digits."""
    digest = hashlib.sha256()
    record = place / weights.RECORD
    if record.is_file():
        files = json.loads(record.read_text())["files"]
        digest.update(json.dumps(sorted((name, file["sha256"]) for name, file in files.items())).encode())
    else:
        for name in names:
            with (place / name).open("rb") as file:
                size = file.seek(0, 2)
                for start in (0, max(0, size - _EDGE)):
                    file.seek(start)
                    digest.update(file.read(_EDGE))
                digest.update(f"{name} {size}".encode())
    decoding = ("beam_size", "hypotheses", "margin", "repetition_penalty", "no_repeat_ngram_size", "max_tokens")
    digest.update(repr([getattr(options, name) for name in decoding]).encode())
    return digest.hexdigest()[:12]


def _device(ctranslate2: Any, asked: str, engine: str) -> str:
    if asked == "auto":
        return "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    if asked == "cuda" and not ctranslate2.get_cuda_device_count():
        raise EngineMissingError(
            kind="translate",
            name=engine,
            detail="the option device is cuda, and CTranslate2 sees no CUDA GPU here",
            install="Set device to auto or cpu, or run it on a node with a GPU and its driver.",
        )
    return asked


def _load_error(error: Exception, place: Path, engine: str, refetch: str) -> EngineMissingError:
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if any(word in said for word in ("compute type", "CUDA", "cuda", "libcu", "invalid device")):
        return EngineMissingError(
            kind="translate",
            name=engine,
            detail=said,
            install="Choose another compute_type or device; CUDA 12's cuBLAS comes with: pip install nvidia-cublas-cu12",
        )
    return WeightsDamagedError(
        kind="translate",
        name=engine,
        detail=f"{place} does not load: {said}",
        install=f"Run: dub models fetch {refetch}",
    )
