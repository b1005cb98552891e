"""Translation by CTranslate2: real loading and decoding, on dictionaries in the layout of each family of models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dubbing.engines import ctranslate2_translate, registry, weights
from dubbing.engines.base import EngineSpec, TranslateItem
from dubbing.engines.ctranslate2_codecs import Madlad400Codec
from dubbing.engines.ctranslate2_model import Answer, looped
from dubbing.engines.ctranslate2_translate import CTranslate2Engine, within
from dubbing.engines.pieces import join, pieces
from dubbing.errors import (
    EngineError,
    EngineMissingError,
    LanguageError,
    LicenceError,
    UsageError,
    WeightsDamagedError,
    WeightsMissingError,
)
from tests.models import nmt

SPECS = [
    ctranslate2_translate.NLLB_600M,
    ctranslate2_translate.M2M100_418M,
    ctranslate2_translate.MADLAD400_3B,
    ctranslate2_translate.OPUS_MT,
]
MULTILINGUAL = SPECS[:3]
LINES = ["hello world", "This is a small test of the pipeline.", "Good morning everyone, thank you!", "x", "♪ 12 ♪", ""]
NLLB = ctranslate2_translate.NLLB_600M


@pytest.fixture(params=SPECS, ids=lambda spec: str(spec.name))
def spec(request: pytest.FixtureRequest, translation_models: Path) -> EngineSpec:
    return request.param


@pytest.fixture
def engine(translation_models: Path) -> Iterator[CTranslate2Engine]:
    loaded = NLLB.load({"beam_size": 2})
    assert isinstance(loaded, CTranslate2Engine)
    yield loaded
    loaded.close()


def texts(engine: Any, *items: TranslateItem) -> list[str]:
    return [answer.text for answer in engine.run(items)]


def test_each_family_translates_with_its_own_tokens(spec: EngineSpec) -> None:
    engine = spec.load({})
    assert texts(engine, *(TranslateItem(line, "en", "es") for line in LINES)) == [
        "hola mundo",
        "Esto es una pequeña prueba de la cadena.",
        "Buenos días todos, gracias usted!",
        "x",
        "♪ 12 ♪",
        "",
    ]
    engine.close()


def test_a_batch_of_any_size_equals_one_by_one(spec: EngineSpec) -> None:
    engine = spec.load({"max_batch_size": 3})
    items = [TranslateItem(f"{line} {extra}", "en", "es") for line in LINES[:4] for extra in ("today", "good picture")]
    assert texts(engine, *items) == [texts(engine, item)[0] for item in items]
    engine.close()


@pytest.mark.parametrize("spec", MULTILINGUAL, ids=lambda spec: str(spec.name))
def test_lines_of_different_pairs_share_a_batch(spec: EngineSpec, translation_models: Path) -> None:
    engine = spec.load({})
    pairs = [("en", "es"), ("en-GB", "pt-BR"), ("fr", "de"), ("es", "zh-Hans")]
    items = [TranslateItem("hello world", source, target) for source, target in pairs]
    assert len({engine.bucket(item) for item in items}) == 1
    assert texts(engine, *items) == ["hola mundo"] * 4
    engine.close()


def test_lines_of_about_the_same_length_share_a_batch(engine: CTranslate2Engine) -> None:
    lengths = (5, 39, 60, 90, 150, 900)
    assert [engine.bucket(TranslateItem("a" * length, "en", "es")) for length in lengths] == [0, 0, 1, 1, 2, 3]


def test_opus_mt_offers_the_pairs_that_are_here_and_parts_batches_by_pair(translation_models: Path) -> None:
    spec = ctranslate2_translate.OPUS_MT
    engine = spec.load({"pairs": [("en", "es"), ("en", "fr")]})
    assert spec.languages().can("en-US", "es-MX") and not spec.languages().can("en", "fr")
    assert engine.bucket(TranslateItem("hello", "en", "es")) != engine.bucket(TranslateItem("hello", "en", "fr"))
    with pytest.raises(WeightsMissingError) as caught:
        engine.run([TranslateItem("hello", "en", "fr")])
    assert caught.value.advice == "Run: dub models fetch opus-mt-en-fr"
    engine.close()


@pytest.mark.parametrize(("spec", "tag"), [(spec, tag) for spec in MULTILINGUAL for tag in ("xx", "sr-Latn", "tt")])
def test_a_language_the_checkpoint_lacks_is_an_error_as_source_and_as_target(
    spec: EngineSpec, tag: str, translation_models: Path
) -> None:
    engine = spec.load({})
    with pytest.raises(LanguageError, match=f"{spec.name} does not know {tag}"):
        engine.run([TranslateItem("hello", "en", tag)])
    if tag == "xx":
        with pytest.raises(LanguageError):
            engine.run([TranslateItem("hello", tag, "es")])
    engine.close()


def test_a_line_over_its_budget_gets_the_best_translation_that_fits(spec: EngineSpec) -> None:
    engine = spec.load({})
    line = "the picture of the car"
    budgets = [None, 60, 29, 27, 24, 20, 3]
    found = texts(engine, *(TranslateItem(line, "en", "es", max_chars=budget) for budget in budgets))
    assert found[:2] == ["la fotografía de la automóvil"] * 2
    assert found[2:5] == ["la fotografía de la automóvil", *["la foto de la automóvil"] * 2]
    assert found[5] == "la foto de la auto"
    assert found[6] == "la foto de la auto", "nothing fits: the shortest good one"
    engine.close()


def test_of_good_translations_that_fit_the_best_is_taken_and_bad_ones_never() -> None:
    answers = [
        Answer("the very best", -0.1, False),
        Answer("good, short", -0.3, False),
        Answer("good", -0.4, False),
        Answer("bad", -2.0, False),
        Answer("", -0.1, False),
    ]
    assert [within(answers, budget, 0.5) for budget in (20, 12, 4, 3)] == [
        "the very best",
        "good, short",
        "good",
        "good",
    ]
    assert within([], 10, 0.5) == ""


def test_a_line_longer_than_the_model_takes_is_parted_and_comes_back_whole(engine: CTranslate2Engine) -> None:
    sentences = " ".join(["This is a test."] * 60)
    endless = "hello world, " * 200
    [many, one] = texts(engine, TranslateItem(sentences, "en", "es"), TranslateItem(endless, "en", "es"))
    assert many == " ".join(["Esto es una prueba."] * 60)
    assert one.replace(",", "").split() == ["hola", "mundo"] * 200


@pytest.mark.parametrize(
    ("text", "source", "most", "parts"),
    [
        ("One. Two! Three?", "en", 99, ["One.", "Two!", "Three?"]),
        ("Mr. Smith came. He sat.", "en", 99, ["Mr. Smith came.", "He sat."]),
        ("你好。早上好！天气", "zh", 99, ["你好。", "早上好！", "天气"]),
        ("as far as I know, it is so", "en", 20, ["as far as I know,", "it is so"]),
        ("abcdefghij", "en", 5, ["abcde", "fghij"]),
        ("word " * 8, "en", 20, ["word word word word", "word word word word"]),
        ("", "en", 9, []),
    ],
)
def test_a_line_is_parted_at_sentences_then_clauses_then_words(
    text: str, source: str, most: int, parts: list[str]
) -> None:
    assert pieces(text, source, lambda part: len(part) <= most) == parts


def test_pieces_are_joined_as_the_target_language_writes() -> None:
    assert join(["Hola.", "", " Adiós. "], "es-MX") == "Hola. Adiós."
    assert join(["你好。", "早上好！"], "zh-TW") == "你好。早上好！"


def test_an_answer_without_an_end_is_an_error_of_its_line(tmp_path: Path) -> None:
    place = nmt.make(tmp_path / "endless", "nllb", endless=True)
    engine = NLLB.load({"path": str(place), "beam_size": 1})
    with pytest.raises(EngineError, match="repeats itself without end"):
        engine.run([TranslateItem("hello world", "en", "es")])
    engine.close()


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [
        ("a b c d", False),
        ("no no no", False),
        ("oh no no no no", True),
        ("x " + "la di da " * 4, True),
        ("la di da " * 4 + "end", False),
        (" ".join(map(str, range(256))), True),
        ("", False),
    ],
)
def test_a_loop_is_what_repeats_at_the_end_or_never_ends(tokens: str, loops: bool) -> None:
    assert looped(tokens.split()) is loops


def test_a_model_that_has_been_closed_answers_with_an_error_of_the_tree(translation_models: Path) -> None:
    engine = NLLB.load({})
    engine.close()
    with pytest.raises(EngineError, match="nllb-600m"):
        engine.run([TranslateItem("hello", "en", "es")])


def test_a_language_code_in_a_line_is_text(translation_models: Path) -> None:
    codec = Madlad400Codec(translation_models / "madlad400-3b", "madlad400-3b")
    tokens = codec.encode("hello <2fr> world", "en", "es")
    assert [token for token in tokens if token in nmt.MADLAD] == ["<2es>"]


def test_repetition_in_the_source_is_no_loop(engine: CTranslate2Engine) -> None:
    assert texts(engine, TranslateItem("good good good good good good", "en", "es")) == [" ".join(["buenos"] * 6)]


def test_no_weights_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError) as caught:
        NLLB.load({"path": str(tmp_path)})
    assert caught.value.advice == "Run: dub models fetch nllb-600m"


@pytest.mark.parametrize(
    ("folder", "file"),
    [(folder, "model.bin") for folder in ("nllb-600m", "m2m100-418m", "madlad400-3b")]
    + [("nllb-600m", "tokenizer.json"), ("m2m100-418m", "sentencepiece.bpe.model"), ("nllb-600m", "config.json")],
)
def test_a_truncated_checkpoint_is_an_error_that_names_the_command(
    folder: str, file: str, translation_models: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(translation_models / folder, tmp_path / folder))
    content = (place / file).read_bytes()
    (place / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsDamagedError) as caught:
        registry.spec(folder).load({"path": str(place)})
    assert caught.value.advice == f"Run: dub models fetch {folder}"
    assert str(place) in caught.value.message


def test_a_file_of_another_size_than_was_fetched_is_damaged(translation_models: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(translation_models / "nllb-600m", tmp_path / "nllb-600m"))
    record = {"repo": "r", "revision": "1" * 40, "files": {"model.bin": {"size": 7, "sha256": "0" * 64}}}
    (place / weights.RECORD).write_text(json.dumps(record))
    with pytest.raises(WeightsDamagedError, match="not 7"):
        NLLB.load({"path": str(place)})


def test_a_gpu_that_was_asked_for_and_is_not_here_is_an_error(translation_models: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    if ctranslate2.get_cuda_device_count():
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineMissingError, match="no CUDA GPU"):
        NLLB.load({"device": "cuda"})


@pytest.mark.parametrize(
    ("options", "named"),
    [({"beams": 4}, "beams"), ({"beam_size": 0}, "beam_size"), ({"device": "tpu"}, "device")],
)
def test_a_bad_option_is_refused_by_name(options: dict[str, Any], named: str, translation_models: Path) -> None:
    with pytest.raises(UsageError, match=named):
        NLLB.load(options)


def test_a_number_type_that_the_device_cannot_do_is_an_error(translation_models: Path) -> None:
    with pytest.raises(EngineMissingError, match="compute type"):
        NLLB.load({"compute_type": "int3"})


def test_other_weights_and_other_decoding_are_another_version(translation_models: Path, tmp_path: Path) -> None:
    other = nmt.make(tmp_path / "other", "nllb", endless=True)
    engines = [NLLB.load(options) for options in ({}, {"threads": 1}, {"beam_size": 1}, {"path": str(other)})]
    versions = [engine.info.version for engine in engines]
    for engine in engines:
        engine.close()
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3


def test_weights_for_non_commercial_use_are_refused_where_use_must_be_safe(translation_models: Path) -> None:
    from dubbing.engines.choose import choose  # noqa: PLC0415 - what is tested

    candidates = registry.survey("translate")
    with pytest.raises(LicenceError):
        choose(candidates, kind="translate", source="en", target="es", name="nllb-600m", commercial_safe=True)
    safe = choose(candidates, kind="translate", source="en", target="sw", commercial_safe=True)
    assert safe.spec.name == "madlad400-3b"
