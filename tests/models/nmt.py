"""Word-by-word dictionaries as real CTranslate2 checkpoints, in the layouts of NLLB-200, M2M-100, MADLAD-400 and OPUS-MT.

No training: the weights are set by hand. Decoder step i looks at encoder position i (cross attention over position codes)
and writes the word that belongs to the token found there. Words outside the dictionary are copied, letter by letter.
"""

from __future__ import annotations

import io
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Layout = Literal["nllb", "m2m100", "madlad400", "marian"]
_PAIRS = """
hello:hola world:mundo this:esto is:es a:una small:pequeña test:prueba of:de the:la pipeline:cadena good:buenos morning:días
everyone:todos thank:gracias you:usted for:por watching:mirar today:hoy we:nosotros talk:hablamos weather:clima
"""
WORDS = dict(pair.split(":") for pair in _PAIRS.split())
"""English -> Spanish."""
SYNONYMS = {"picture": ("fotografía", "foto"), "car": ("automóvil", "auto")}
"""English -> what the model prefers by a hair, and what it would say as well; each hair is thicker than the last."""
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
FLORES = ["eng_Latn", "spa_Latn", "fra_Latn", "deu_Latn", "por_Latn", "zho_Hans", "zho_Hant"]
M2M = [f"__{code}__" for code in ("en", "es", "fr", "de", "pt", "zh")]
MADLAD = [f"<2{code}>" for code in ("en", "es", "fr", "de", "pt", "zh", "zh_Hant")]
LETTERS = string.ascii_letters + string.digits + "áéíóúüñçàèß" + ".,!?¿¡':;-\"。，好的早上天气"
MOST = 512
IDENTITY, POSITION = 160, 96
WIDTH = IDENTITY + POSITION
FOCUS, LOUD = 60.0, 4.0

Array = npt.NDArray[np.float32]


def make(folder: Path, layout: Layout, *, endless: bool = False) -> Path:
    """Write a checkpoint; an `endless` one never says that a sentence is over."""
    folder.mkdir(parents=True, exist_ok=True)
    words = _both_cases(WORDS)
    every = [*words, *words.values(), *SYNONYMS, *(word for pair in SYNONYMS.values() for word in pair)]
    vocabulary = {"nllb": _nllb, "m2m100": _m2m100, "madlad400": _madlad400, "marian": _marian}[layout](
        folder, list(dict.fromkeys(every))
    )
    number = {token: i for i, token in enumerate(vocabulary)}
    target = np.arange(len(vocabulary))
    for source, word in words.items():
        target[number[f"▁{source}"]] = number[f"▁{word}"]
    if endless:
        target[number["</s>"]] = number["▁la"]
    also = {}
    for source, (better, other) in SYNONYMS.items():
        target[number[f"▁{source}"]] = number[f"▁{better}"]
        also[number[f"▁{other}"]] = number[f"▁{source}"]
    _save(folder, vocabulary, target, also, shift=2 if layout == "madlad400" else 0)
    if layout == "m2m100":  # the published conversion is an old one, with a list of lines
        (folder / "shared_vocabulary.json").unlink()
        (folder / "shared_vocabulary.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return folder


def _both_cases(words: Mapping[str, str]) -> dict[str, str]:
    return dict(words) | {source.capitalize(): word.capitalize() for source, word in words.items()}


def _nllb(folder: Path, words: Sequence[str]) -> list[str]:
    """tokenizer.json: byte-pair encoding, language codes as special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415 - only where it is tested

    tokenizer: Any = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=2000, min_frequency=2, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([*(word for word in words for _ in range(50)), *[" ".join(LETTERS)] * 2], trainer)
    tokenizer.add_special_tokens([AddedToken(code, special=True, normalized=False) for code in FLORES])
    tokenizer.save(str(folder / "tokenizer.json"))
    return [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]


def _m2m100(folder: Path, words: Sequence[str]) -> list[str]:
    pieces = _sentencepiece(folder / "sentencepiece.bpe.model", words, [])
    return [*SPECIAL, *pieces, *M2M, *(f"madeupword{i:04d}" for i in range(8))]


def _madlad400(folder: Path, words: Sequence[str]) -> list[str]:
    """The codes are pieces of the sentencepiece model."""
    return [*SPECIAL, *_sentencepiece(folder / "sentencepiece.model", words, MADLAD)]


def _marian(folder: Path, words: Sequence[str]) -> list[str]:
    """A tokenizer for each side, one vocabulary."""
    half = len(words) // 2
    source = _sentencepiece(folder / "source.spm", words[:half] + list(SYNONYMS), [])
    target = _sentencepiece(folder / "target.spm", [*words[half:], *words[:half]], [])
    return [*SPECIAL, *dict.fromkeys([*source, *target, ">>cmn_Hans<<", ">>cmn_Hant<<"])]


def _sentencepiece(path: Path, words: Sequence[str], codes: Sequence[str]) -> list[str]:
    """Train a model that knows the words as single pieces and spells the rest; answers its pieces without the special ones."""
    import sentencepiece  # noqa: PLC0415 - in an extra

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(LETTERS), *words] * 3),
        model_writer=model,
        model_type="char",
        vocab_size=1000,
        hard_vocab_limit=False,
        character_coverage=1.0,
        user_defined_symbols=[*codes, *(f"▁{word}" for word in words)],
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [trained.id_to_piece(i) for i in range(len(SPECIAL), trained.get_piece_size())]


def _save(
    folder: Path, vocabulary: list[str], target: npt.NDArray[Any], also: Mapping[int, int], *, shift: int
) -> None:
    """`target[x]` is what token x becomes; `also[y]` = x makes y almost as good for x. The first `shift` source tokens have no answer."""
    from ctranslate2.specs import transformer_spec  # noqa: PLC0415 - only where it is tested

    draw, count = np.random.default_rng(0), len(vocabulary)

    def unit(*shape: int) -> Array:
        values = draw.standard_normal(shape)
        values -= values.mean(-1, keepdims=True)
        return np.asarray(values / values.std(-1, keepdims=True), np.float32)

    embedding, positions = np.zeros((count, WIDTH), np.float32), np.zeros((MOST + 2, WIDTH), np.float32)
    embedding[:, :IDENTITY], positions[:, IDENTITY:] = unit(count, IDENTITY), unit(MOST + 2, POSITION)
    # The row of an output token points at the tokens that become it; nothing points at the others.
    head = -0.01 * embedding
    for y in set(target.tolist()):
        head[y] = embedding[target == y].sum(0)
    for i, (y, x) in enumerate(also.items()):
        head[y] = head[target[x]] * (0.9995 - 0.001 * i)
    spec = transformer_spec.TransformerSpec.from_config((1, 1), 1, pre_norm=True)
    for side, table, at in (
        (spec.encoder, spec.encoder.embeddings[0], positions[:MOST]),
        (spec.decoder, spec.decoder.embeddings, positions[shift : MOST + shift]),
    ):
        table.weight, side.scale_embeddings = embedding.copy(), False
        side.position_encodings.encodings = at.copy()
        _norm(side.layer_norm)
        _silent(side.layer[0])
    _look(spec.decoder.layer[0].attention)
    _linear(spec.decoder.projection, head)
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<s>", "</s>", "<unk>"
    spec.config.decoder_start_token = "</s>"
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(folder))


def _look(attention: Any) -> None:
    """Cross attention: ask by position, answer with identity."""
    position = np.diag(np.r_[np.zeros(IDENTITY), np.ones(POSITION)])
    identity = np.diag(np.r_[np.ones(IDENTITY), np.zeros(POSITION)])
    _norm(attention.layer_norm)
    _linear(attention.linear[0], position * (FOCUS * np.sqrt(WIDTH) / POSITION))
    _linear(attention.linear[1], np.vstack([position, identity]))
    _linear(attention.linear[2], identity * LOUD)


def _silent(layer: Any) -> None:
    """Self attention and feed-forward that add nothing."""
    _norm(layer.self_attention.layer_norm)
    _linear(layer.self_attention.linear[0], np.zeros((3 * WIDTH, WIDTH)))
    _linear(layer.self_attention.linear[1], np.zeros((WIDTH, WIDTH)))
    _norm(layer.ffn.layer_norm)
    _linear(layer.ffn.linear_0, np.zeros((8, WIDTH)))
    _linear(layer.ffn.linear_1, np.zeros((WIDTH, 8)))


def _linear(spec: Any, weight: npt.NDArray[Any]) -> None:
    spec.weight = np.ascontiguousarray(weight, np.float32)
    spec.bias = np.zeros(weight.shape[0], np.float32)


def _norm(spec: Any) -> None:
    spec.gamma, spec.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
