"""Whisper models in CTranslate2's format, written with numpy alone: tiny ones for tests, full-size ones to measure speed.

Without a script the weights are random and the transcript is noise. With one, the decoder always says the words of the
script, whatever it hears: its feed-forward layer is a table from each token to the next, and its self-attention carries
the language of the prompt to the place where the first word is chosen.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ctranslate2.specs import whisper_spec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

LANGUAGES = re.findall(
    r"\w+",
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la "
    "mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be "
    "tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su",
)
"""In the order of their tokens."""
TIMESTAMPS = 1501
POSITIONS, FRAMES = 448, 1500
LANGUAGE_STRENGTH = 8.0
"""Of the coordinate that marks a language's token, where other coordinates have variance 1."""
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """Size of a model."""

    width: int = 64
    heads: int = 2
    encoder_layers: int = 1
    decoder_layers: int = 1
    mels: int = 80
    text_tokens: int = 600
    extra_languages: tuple[str, ...] = ()


TINY = Shape()
TINY_V3 = Shape(mels=128, extra_languages=("yue",))
SMALL = Shape(768, 12, 12, 12, 80, 50_257)
LARGE_V3_TURBO = Shape(1280, 20, 32, 4, 128, 50_257, ("yue",))


def make(
    folder: Path,
    script: Mapping[str, str] | None = None,
    *,
    shape: Shape = TINY,
    loops: Collection[str] = (),
    seed: int = 0,
    quantization: str = "int8",
    multilingual: bool = True,
) -> Path:
    """Write a model and its tokenizer to `folder`, which is made; answers the folder.

    `script` is what the model says, by Whisper's code of the language; every word once in all. Words such as `<|1.00|>`
    are timestamps; the last one ends the text, `<|2.00|>` where there is none. The first language is what the model
    detects. A language in `loops` never comes to an end.
    """
    languages = [*LANGUAGES, *shape.extra_languages]
    tokenizer = _tokenizer(shape, languages, " ".join((script or {}).values()).split(), multilingual)
    rng = np.random.default_rng(seed)
    spec = whisper_spec.WhisperSpec(shape.encoder_layers, shape.heads, shape.decoder_layers, shape.heads)
    spec.decoder.scale_embeddings = 1.0
    _encoder(spec.encoder, shape, rng)
    _decoder(spec.decoder, shape, tokenizer.get_vocab_size(), rng, quiet=script is not None)
    if script:
        _say(spec.decoder, shape, tokenizer, script, loops)
    spec.register_vocabulary([tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())])
    blank = tokenizer.encode(" ").ids[0]
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [blank, tokenizer.token_to_id("<|endoftext|>")]
    spec.config.lang_ids = [tokenizer.token_to_id(f"<|{code}|>") for code in languages]
    last = range(shape.decoder_layers // 2, shape.decoder_layers)
    spec.config.alignment_heads = [[layer, head] for layer in last for head in range(shape.heads)]
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    if not shape.extra_languages:  # the sets of weights before large-v3 have their vocabulary as plain text
        names = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        (folder / "vocabulary.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        (folder / "vocabulary.json").unlink()
    return folder


def _tokenizer(shape: Shape, languages: list[str], words: list[str], multilingual: bool) -> Tokenizer:
    """Byte-level BPE in Whisper's order: text, special tokens, timestamps; every word of the script is one token."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.text_tokens - 1, min_frequency=1, show_progress=False, initial_alphabet=alphabet
    )
    trained.train_from_iterator([" " + word for word in words if not word.startswith("<|")], trainer)
    content = json.loads(trained.to_str())
    vocabulary: dict[str, int] = content["model"]["vocab"]
    while len(vocabulary) < shape.text_tokens - 1:  # never made by a merge; only there to fill the ids
        vocabulary[f"\u0120w{len(vocabulary)}"] = len(vocabulary)
    # CTranslate2 takes a model for a multilingual one if its vocabulary has an empty entry.
    vocabulary["" if multilingual else "\u0120last"] = len(vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    special = ["endoftext", "startoftranscript", *languages]
    special += ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True, normalized=False) for name in special])
    stamps = [f"<|{i * 0.02:.2f}|>" for i in range(TIMESTAMPS)]
    tokenizer.add_tokens([AddedToken(stamp, special=False, normalized=False) for stamp in stamps])
    return tokenizer


def _encoder(spec: Any, shape: Shape, rng: np.random.Generator) -> None:
    width = shape.width
    spec.conv1.weight, spec.conv1.bias = _random(rng, width, shape.mels, 3), np.zeros(width, np.float32)
    spec.conv2.weight, spec.conv2.bias = _random(rng, width, width, 3), np.zeros(width, np.float32)
    spec.position_encodings.encodings = _random(rng, FRAMES, width, fan_in=50)
    _norm(spec.layer_norm, width)
    for layer in spec.layer:
        _attention(layer.self_attention, width, rng, parts=(3,))
        _feed_forward(layer.ffn, width, rng)


def _decoder(spec: Any, shape: Shape, vocabulary: int, rng: np.random.Generator, *, quiet: bool) -> None:
    """Random layers; `quiet` ones take part in the arithmetic but add nothing to what passes through."""
    width = shape.width
    spec.embeddings.weight = _random(rng, vocabulary, width, fan_in=1)
    spec.projection.weight = _random(rng, vocabulary, width, fan_in=4)
    spec.position_encodings.encodings = _random(rng, POSITIONS, width, fan_in=1)
    _norm(spec.layer_norm, width)
    for layer in spec.layer:
        _attention(layer.self_attention, width, rng, parts=(3,))
        _attention(layer.attention, width, rng, parts=(1, 2))
        _feed_forward(layer.ffn, width, rng)
        if quiet:
            for last in (layer.self_attention.linear[-1], layer.attention.linear[-1], layer.ffn.linear_1):
                last.weight[:] = 0
    if quiet:
        spec.position_encodings.encodings[:] = 0


def _say(spec: Any, shape: Shape, tokenizer: Tokenizer, script: Mapping[str, str], loops: Collection[str]) -> None:
    """Set the last layer so that each token is followed by the next one of the script."""
    width, marks = shape.width, {code: i for i, code in enumerate(script)}
    embeddings = spec.embeddings.weight
    embeddings[:, : len(marks)] = 0
    embeddings -= embeddings.mean(axis=1, keepdims=True)
    embeddings *= math.sqrt(width) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings[:, : len(marks)] = 0
    spec.projection.weight = embeddings.copy()
    table = _transitions(tokenizer, script, loops)
    layer = spec.layer[-1]
    fire, write = layer.ffn.linear_0, layer.ffn.linear_1
    fire.weight[:], fire.bias[:] = 0, -1.0
    for row, (before, after, code) in enumerate(table):
        fire.weight[row] = 4 * embeddings[before] / width  # 4 where the token matches, about 0 elsewhere
        if code is not None:
            fire.weight[row, marks[code]], fire.bias[row] = 3.0, -5.0
        write.weight[:, row] = 1.25 * embeddings[after] - 0.5 * embeddings[before]
    # Attention is even over all positions and passes on nothing but the mark of the language.
    every, out = layer.self_attention.linear
    every.weight[:], out.weight[:] = 0, 0
    for code, mark in marks.items():
        every.weight[2 * width + mark, mark] = out.weight[mark, mark] = 1
        embeddings[tokenizer.token_to_id(f"<|{code}|>"), mark] = LANGUAGE_STRENGTH


def _transitions(
    tokenizer: Tokenizer, script: Mapping[str, str], loops: Collection[str]
) -> list[tuple[int, int, str | None]]:
    """(token, next token, language it holds for; None: any)."""

    def number(word: str) -> int:
        if word.startswith("<|"):
            return int(tokenizer.token_to_id(word))
        [one] = tokenizer.encode(" " + word).ids
        return int(one)

    start, none = number("<|0.00|>"), number("<|notimestamps|>")
    table: list[tuple[int, int, str | None]] = [
        (number("<|startoftranscript|>"), number(f"<|{next(iter(script))}|>"), None),
        (number("<|transcribe|>"), start, None),
    ]
    for code, text in script.items():
        words = list(map(number, text.split()))
        table += [(start, words[0], code), (none, words[0], code)]
        table += [(a, b, None) for a, b in zip(words, words[1:], strict=False)]
        if code in loops:
            table.append((words[-1], words[0], None))
        else:
            end = words[-1] if text.endswith("|>") else number("<|2.00|>")
            table += [(words[-1], end, None)] if end != words[-1] else []
            table.append((end, number("<|endoftext|>"), None))
    return list(dict.fromkeys(table))


def _attention(spec: Any, width: int, rng: np.random.Generator, parts: tuple[int, ...]) -> None:
    _norm(spec.layer_norm, width)
    for linear, size in zip(spec.linear, (*parts, 1), strict=True):
        linear.weight, linear.bias = _random(rng, size * width, width), np.zeros(size * width, np.float32)


def _feed_forward(spec: Any, width: int, rng: np.random.Generator) -> None:
    _norm(spec.layer_norm, width)
    for linear, (rows, columns) in ((spec.linear_0, (4 * width, width)), (spec.linear_1, (width, 4 * width))):
        linear.weight, linear.bias = _random(rng, rows, columns), np.zeros(rows, np.float32)


def _norm(spec: Any, width: int) -> None:
    spec.gamma, spec.beta = np.ones(width, np.float32), np.zeros(width, np.float32)


def _random(rng: np.random.Generator, *shape: int, fan_in: int | None = None) -> Array:
    weights: Array = rng.standard_normal(shape, np.float32)
    weights /= math.sqrt(fan_in or math.prod(shape[1:]))
    return weights
