"""Neural translation by CTranslate2: NLLB-200, M2M-100, MADLAD-400 and OPUS-MT, for lines of all jobs at once.

The multilingual models are told the languages line by line, so a batch mixes pairs; it is kept together by length alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from dubbing.engines import installed, weights
from dubbing.engines import options as engine_options
from dubbing.engines import translation_languages as languages
from dubbing.engines.base import EngineInfo, EngineSpec, Languages, Located, TranslateItem, Translation
from dubbing.engines.ctranslate2_codecs import M2m100Codec, Madlad400Codec, MakeCodec, MarianCodec, NllbCodec
from dubbing.engines.ctranslate2_model import Answer, Model, Options, Sentence, fingerprint
from dubbing.engines.pieces import join, pieces
from dubbing.engines.weights import Weights
from dubbing.errors import EngineError

LENGTH_CLASSES = (40, 100, 220)
"""Characters: lines of one batch lie between the same two, so that short ones do not wait for a long one."""
_OPUS = "opus-mt"
OPUS_LICENCE = "CC-BY-4.0 or Apache-2.0"
OPUS_FILES = ("config.json", "model.bin", "shared_vocabulary.json", *MarianCodec.files)


@dataclass(slots=True)
class _Piece:
    """A sentence of a line on its way."""

    text: str
    sentence: Sentence | None
    """None when there is nothing to translate in it."""
    budget: int | None
    """Its share of the line's budget, characters."""
    answer: str = ""


@dataclass(slots=True)
class _Line:
    item: TranslateItem
    pieces: list[_Piece]


class CTranslate2Engine:
    """A multilingual checkpoint."""

    def __init__(self, spec: EngineSpec, make_codec: MakeCodec, options: Mapping[str, Any]) -> None:
        """See `Options`. Raises UsageError, WeightsMissingError, WeightsDamagedError or EngineMissingError."""
        assert spec.weights is not None
        self._options = engine_options.read(Options, spec.name, options)
        place = weights.require(spec.weights, {"path": self._options.path}, kind=spec.kind, engine=spec.name)
        self._model = Model(place, make_codec, self._options, spec.name, spec.weights.name)
        self.info = _info(spec, fingerprint(place, spec.weights.files, self._options), self._options)

    def run(self, items: Sequence[TranslateItem]) -> list[Translation]:
        """Translate lines of any pairs. Raises LanguageError for a language it lacks, EngineError for an endless answer."""
        return translate(self._model, items, self._options, self.info.name)

    def bucket(self, item: TranslateItem) -> Hashable:
        """Lines of about the same length; languages may mix."""
        return length_class(item.text)

    def probe(self) -> None:
        """Translate a word. Raises EngineBrokenError."""
        self._model.probe()

    def close(self) -> None:
        """Free the memory."""
        self._model.close()


class OpusEngine:
    """OPUS-MT: a small checkpoint for each language pair, loaded when the pair is first asked for."""

    def __init__(self, spec: EngineSpec, options: Mapping[str, Any]) -> None:
        """See `Options`; `path` is the folder that holds `opus-mt-en-es` and others."""
        self._options = engine_options.read(Options, spec.name, options)
        self._home = self._options.path or weights.home()
        self._models: dict[tuple[str, str], Model] = {}
        here = opus_pairs(self._home)
        told = {(languages.parse(a).language, languages.parse(b).language) for a, b in self._options.pairs} & here
        for pair in sorted(told):
            self._model(*pair)
        prints = [
            fingerprint(self._home / opus_weights(*pair).name, OPUS_FILES, self._options)[:6]
            for pair in sorted(told or here)
        ]
        self.info = _info(spec, "-".join(prints) or "none", self._options)

    def run(self, items: Sequence[TranslateItem]) -> list[Translation]:
        """Translate lines, all of a pair together. Raises LanguageError, WeightsMissingError, EngineError."""
        found: dict[int, Translation] = {}
        pairs = [self._pair(item) for item in items]
        for pair in dict.fromkeys(pairs):
            places = [i for i, its in enumerate(pairs) if its == pair]
            model = self._model(*pair)
            answers = translate(model, [items[i] for i in places], self._options, self.info.name)
            found |= dict(zip(places, answers, strict=True))
        return [found[i] for i in range(len(items))]

    def bucket(self, item: TranslateItem) -> Hashable:
        """One language pair per batch, and lines of about the same length."""
        return self._pair(item), length_class(item.text)

    def probe(self) -> None:
        """Translate a word with each checkpoint that is loaded. Raises EngineBrokenError."""
        for model in self._models.values():
            model.probe()

    def close(self) -> None:
        """Free the memory."""
        while self._models:
            self._models.popitem()[1].close()

    def _pair(self, item: TranslateItem) -> tuple[str, str]:
        return languages.parse(item.source).language, languages.parse(item.target).language

    def _model(self, source: str, target: str) -> Model:
        if (source, target) not in self._models:
            wanted = opus_weights(source, target)
            place = weights.require(wanted, {"path": self._home / wanted.name}, kind="translate", engine=_OPUS)
            self._models[source, target] = Model(place, MarianCodec, self._options, _OPUS, wanted.name)
        return self._models[source, target]


def translate(model: Model, items: Sequence[TranslateItem], options: Options, engine: str) -> list[Translation]:
    """Translate lines with one model: sentence by sentence, all sentences of all lines in the same batch."""
    lines = [_Line(item, _pieces(model, item)) for item in items]
    asked = [piece for line in lines for piece in line.pieces if piece.sentence is not None]
    for piece, answer in zip(asked, model.answer([_told(piece) for piece in asked]), strict=True):
        if answer.looped:
            raise EngineError(name=engine, detail=f"its answer to {piece.text!r} repeats itself without end")
        piece.answer = answer.text
    long = [piece for piece in asked if piece.budget is not None and len(piece.answer) > piece.budget]
    for piece, answers in zip(long, model.alternatives([_told(piece) for piece in long]), strict=True):
        piece.answer = within(answers, piece.budget or 0, options.margin) or piece.answer
    return [Translation(join([piece.answer for piece in line.pieces], line.item.target)) for line in lines]


def within(answers: Sequence[Answer], budget: int, margin: float) -> str:
    """The best answer of at most `budget` characters among the good ones, else the shortest good one; empty for none.

    Good is what scores at most `margin` below the best.
    """
    said = [answer for answer in answers if answer.text]
    good = [answer for answer in said if answer.score >= max(each.score for each in said) - margin]
    fitting = [answer for answer in good if len(answer.text) <= budget]
    if fitting:
        return max(fitting, key=lambda answer: answer.score).text
    return min(good, key=lambda answer: len(answer.text)).text if good else ""


def length_class(text: str) -> int:
    """0 for the shortest lines, up to the number of LENGTH_CLASSES."""
    return sum(len(text) > limit for limit in LENGTH_CLASSES)


def _pieces(model: Model, item: TranslateItem) -> list[_Piece]:
    texts = pieces(item.text, item.source, lambda text: model.fits(text, item.source, item.target))
    total = sum(map(len, texts))
    found = []
    for text in texts:
        budget = None if item.max_chars is None else item.max_chars * len(text) // total
        if any(character.isalpha() for character in text):
            found.append(_Piece(text, model.sentence(text, item.source, item.target), budget))
        else:
            found.append(_Piece(text, None, budget, answer=text))
    return found


def _told(piece: _Piece) -> Sentence:
    assert piece.sentence is not None
    return piece.sentence


def _info(spec: EngineSpec, weights_version: str, options: Options) -> EngineInfo:
    found = spec.weights
    return EngineInfo(
        name=spec.name,
        kind="translate",
        version=f"{version('ctranslate2')}+{weights_version}",
        licence=spec.licence,
        weights_licence=found.licence if found else OPUS_LICENCE,
        commercial_use=spec.commercial_use,
        max_batch=options.max_batch,
        quality=spec.quality,
        note="" if spec.commercial_use else "Its weights are for non-commercial use only.",
    )


def _opus_named(name: str) -> Weights | None:
    found = re.fullmatch(rf"{_OPUS}-([a-z]{{2,3}})-([a-z]{{2,3}})", name)
    return opus_weights(found[1], found[2]) if found else None


def opus_weights(source: str, target: str) -> Weights:
    """The weights of one OPUS-MT pair (primary languages), `opus-mt-en-es`, say."""
    name = f"{_OPUS}-{source}-{target}"
    return Weights(
        name=name,
        repo=f"gaudi/{name}-ctranslate2",
        files=OPUS_FILES,
        licence=OPUS_LICENCE,
        commercial_use=True,
        size_mb=160,
    )


def opus_pairs(home: Path) -> frozenset[tuple[str, str]]:
    """The pairs whose weights lie in the models folder."""
    found = (re.fullmatch(rf"{_OPUS}-([a-z]{{2,3}})-([a-z]{{2,3}})", place.name) for place in home.glob(f"{_OPUS}-*-*"))
    return frozenset(
        (pair[1], pair[2])
        for pair in found
        if pair and not weights.problem(opus_weights(pair[1], pair[2]), home / pair[0])
    )


def _locate_opus() -> Located:
    here = _here(opus_weights("en", "es"), "sentencepiece")
    return Located(True) if opus_pairs(weights.home()) and "package" not in here.reason else here


def _here(found: Weights, *libraries: str) -> Located:
    return installed.locate({name: name for name in ("ctranslate2", *libraries)}, "pip install {package}", found)


def _multilingual(
    name: str,
    quality: Literal["good", "best"],
    summary: str,
    found: Weights,
    make_codec: MakeCodec,
    known: Callable[[], frozenset[str]],
    *libraries: str,
) -> EngineSpec:
    def load(options: Mapping[str, Any]) -> CTranslate2Engine:
        return CTranslate2Engine(spec, make_codec, options)

    spec = EngineSpec(
        name=name,
        kind="translate",
        quality=quality,
        summary=summary,
        licence="MIT",
        commercial_use=found.commercial_use,
        locate=lambda: _here(found, *libraries),
        languages=lambda: Languages(among=known()),
        load=load,
        weights=found,
    )
    return spec


_CT2_FILES = ("config.json", "model.bin")


def _nllb(name: str, quality: Literal["good", "best"], summary: str, repo: str, size_mb: int) -> EngineSpec:
    found = Weights(
        name=name,
        repo=repo,
        files=(*_CT2_FILES, "shared_vocabulary.json", *NllbCodec.files),
        licence="CC-BY-NC-4.0",
        commercial_use=False,
        size_mb=size_mb,
    )
    summary = f"{summary}; weights for non-commercial use only."
    return _multilingual(name, quality, summary, found, NllbCodec, languages.nllb_languages, "tokenizers")


NLLB_600M = _nllb(
    "nllb-600m",
    "good",
    "NLLB-200 distilled: 200 languages in 0.6 GB",
    "skywood/nllb-200-distilled-600M-ct2-int8",
    650,
)
NLLB_3_3B = _nllb(
    "nllb-3.3b", "best", "NLLB-200 in full: 200 languages in 3.4 GB", "OpenNMT/nllb-200-3.3B-ct2-int8", 3400
)
M2M100_418M = _multilingual(
    "m2m100-418m",
    "good",
    "M2M-100: 100 languages in 1 GB, free for any use.",
    Weights(
        name="m2m100-418m",
        repo="michaelfeil/ct2fast-m2m100_418M",
        files=(*_CT2_FILES, "shared_vocabulary.txt", *M2m100Codec.files),
        licence="MIT",
        commercial_use=True,
        size_mb=975,
        revision="85b2ef2d52c242c1aa8ca1a9cac2c4c367645736",
    ),
    M2m100Codec,
    languages.m2m100_languages,
    "sentencepiece",
)
MADLAD400_3B = _multilingual(
    "madlad400-3b",
    "best",
    "MADLAD-400: 400 languages in 2.8 GB, free for any use.",
    Weights(
        name="madlad400-3b",
        repo="santhosh/madlad400-3b-ct2",
        files=(*_CT2_FILES, "shared_vocabulary.json", *Madlad400Codec.files),
        licence="Apache-2.0",
        commercial_use=True,
        size_mb=2760,
    ),
    Madlad400Codec,
    languages.madlad400_languages,
    "sentencepiece",
)
OPUS_MT: EngineSpec = EngineSpec(
    name=_OPUS,
    kind="translate",
    quality="good",
    summary="OPUS-MT: a small model for each language pair, 0.2 GB each, free for any use.",
    licence="MIT",
    commercial_use=True,
    locate=_locate_opus,
    languages=lambda: Languages(opus_pairs(weights.home())),
    load=lambda options: OpusEngine(OPUS_MT, options),
    weights_named=_opus_named,
)
