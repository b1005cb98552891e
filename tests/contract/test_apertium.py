from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from engine_media import require

from dubbing.engines import apertium
from dubbing.engines.apertium import ApertiumEngine
from dubbing.engines.base import TranslateItem
from dubbing.errors import EngineError, LanguageError


@pytest.fixture(scope="module")
def engine() -> Iterator[ApertiumEngine]:
    loaded = ApertiumEngine(require_options())
    yield loaded
    loaded.close()


def require_options() -> dict[str, object]:
    require(apertium.TRANSLATE)
    return {}


def translate(engine: ApertiumEngine, text: str, source: str = "en", target: str = "es") -> str:
    return engine.run([TranslateItem(text, source, target)])[0].text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I am from Barcelona.", "Soy de Barcelona."),
        ("Where is the house?", "¿Dónde es la casa?"),
        ("Where is the house? In the city!", "¿Dónde es la casa? ¡En la ciudad!"),
        ("I live in a house. You live in a city.", "Vivo en una casa. Vives en una ciudad."),
        ("the house", "la casa"),
        ("The house", "La casa"),
        ("THE HOUSE IS BIG", "La casa es grande"),
        ("- The house.", "- La casa."),
        ("the house:", "la casa:"),
        ("the\nhouse.", "la casa."),
    ],
)
def test_punctuation_capitals_and_sentences_come_back(engine: ApertiumEngine, text: str, expected: str) -> None:
    assert translate(engine, text) == expected


def test_spanish_marks_that_open_a_question_do_not_go_into_english(engine: ApertiumEngine) -> None:
    assert translate(engine, "¿Dónde está la casa?", "es", "en").startswith("Where")


def test_unknown_words_stay_without_marks(engine: ApertiumEngine) -> None:
    answer = translate(engine, "A frobnicator sees Quxlington.")
    assert "frobnicator" in answer
    assert "Quxlington" in answer
    assert not set(answer) & set("*#@")


@pytest.mark.parametrize("character", list("\\^$@<>{}[]/*#~+&%|'\"`;()"))
def test_characters_of_the_stream_format_are_text(engine: ApertiumEngine, character: str) -> None:
    answer = translate(engine, f"I see the house {character} the city.")
    assert "casa" in answer
    assert "ciudad" in answer
    assert translate(engine, "The house.") == "La casa.", "the pipeline is still in step"


@pytest.mark.parametrize("text", ["", " ", "♪ ♪", "123", "100 %", "...", "?!"])
def test_text_without_letters_passes_unchanged(engine: ApertiumEngine, text: str) -> None:
    assert translate(engine, text) == text.strip()


def test_nul_and_control_characters_do_not_put_lines_out_of_step(engine: ApertiumEngine) -> None:
    items = [TranslateItem(t, "en", "es") for t in ("The\0 house.", "The city.\0", "The dog.", "\x1b[0mThe cat.")]
    answers = [answer.text for answer in engine.run(items)]
    assert [word in answer for word, answer in zip(("casa", "ciudad", "perro", "gato"), answers, strict=True)] == [
        True
    ] * 4


def test_two_hundred_lines_stay_in_step_on_one_pipeline(engine: ApertiumEngine) -> None:
    translate(engine, "The house.")
    before = len(psutil.Process().children(recursive=True))
    items = [TranslateItem(f"The house number {i} is big.", "en", "es") for i in range(200)]
    assert [i for i, answer in enumerate(engine.run(items)) if f" {i} " not in answer.text] == []
    assert len(psutil.Process().children(recursive=True)) == before


def test_a_very_long_line_is_translated(engine: ApertiumEngine) -> None:
    answer = translate(engine, "The house is big. " * 500)
    assert answer.count("La casa es grande.") == 500


def test_a_program_that_dies_is_started_once_more(engine: ApertiumEngine) -> None:
    translate(engine, "The house.")
    victim = next(p for p in psutil.Process().children(recursive=True) if p.name() == "apertium-tagger")
    victim.send_signal(signal.SIGKILL)
    victim.wait(5)
    assert translate(engine, "The dog.") == "El perro."


def test_a_program_that_hangs_is_started_once_more() -> None:
    others = {p.pid for p in psutil.Process().children(recursive=True)}
    engine = ApertiumEngine({**require_options(), "timeout_s": 3.0})
    translate(engine, "The house.")
    mine = [p for p in psutil.Process().children(recursive=True) if p.pid not in others]
    victim = next(p for p in mine if p.name() == "lrx-proc")
    victim.send_signal(signal.SIGSTOP)
    assert translate(engine, "The dog.") == "El perro."
    assert not victim.is_running()
    engine.close()


@pytest.mark.parametrize(
    ("script", "words"), [("exit 3", "ended by itself"), ("exec sleep 60", "did not answer within 0.3 s")]
)
def test_a_pipeline_that_fails_twice_is_an_engine_error(tmp_path: Path, script: str, words: str) -> None:
    require(apertium.TRANSLATE)
    program = tmp_path / "broken"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "eng-spa.mode").write_text(f"{program} $1\n")
    engine = ApertiumEngine({"modes": str(tmp_path), "timeout_s": 0.3})
    with pytest.raises(EngineError, match=words):
        translate(engine, "The house.")
    engine.close()


def test_a_pipeline_whose_program_is_not_installed_is_an_engine_error(tmp_path: Path) -> None:
    require(apertium.TRANSLATE)
    (tmp_path / "eng-spa.mode").write_text("no-such-program $1\n")
    engine = ApertiumEngine({"modes": str(tmp_path)})
    with pytest.raises(EngineError, match="no-such-program could not be started"):
        translate(engine, "The house.")
    engine.close()


def test_languages_are_those_of_the_installed_modes_and_of_routes_through_one_more(tmp_path: Path) -> None:
    for name in ("eng-spa", "spa-eng", "spa-eng_US", "spa-cat", "cat-fra", "es-pt", "broken", "oci@aran-spa"):
        (tmp_path / f"{name}.mode").write_text("cat\n")
    routes = apertium._routes(tmp_path)
    names = {pair: [file.stem for file in route] for pair, route in routes.items()}
    assert names["en", "es"] == ["eng-spa"]
    assert names["es", "en"] == ["spa-eng"]
    assert names["en", "ca"] == ["eng-spa", "spa-cat"]
    assert names["en", "pt"] == ["eng-spa", "es-pt"]
    assert ("en", "fr") not in names, "two steps at most"
    assert not any(a == b for a, b in names)


def test_a_route_through_a_third_language_is_taken(tmp_path: Path) -> None:
    require(apertium.TRANSLATE)
    modes = apertium._modes(apertium.MODES)
    (tmp_path / "eng-spa.mode").write_text(modes["en", "es"].read_text())
    (tmp_path / "spa-xxx.mode").write_text("sed -u -z s/casa/CASA/\n")
    engine = ApertiumEngine({"modes": str(tmp_path)})
    assert translate(engine, "the house", "en", "xxx") == "la CASA"
    engine.close()


def test_a_pair_without_a_route_is_a_language_error(engine: ApertiumEngine) -> None:
    with pytest.raises(LanguageError, match="no route from en to ja"):
        translate(engine, "The house.", "en", "ja")


def test_without_any_mode_it_is_not_located_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    located = apertium.TRANSLATE.locate()
    assert not located.ok
    assert "apertium-eng-spa" in located.install


def test_the_version_follows_the_installed_data(tmp_path: Path) -> None:
    require(apertium.TRANSLATE)
    data = tmp_path / "eng-spa.bin"
    data.write_bytes(b"1")
    (tmp_path / "eng-spa.mode").write_text(f"lt-proc {data}\n")
    old = ApertiumEngine({"modes": str(tmp_path)}).info.version
    data.write_bytes(b"22")
    assert ApertiumEngine({"modes": str(tmp_path)}).info.version != old


def test_translation_is_much_nearer_to_a_human_one_than_the_source_is(engine: ApertiumEngine) -> None:
    pairs = [
        ("My name is Jordi and I live near the sea.", "Me llamo Jordi y vivo cerca del mar."),
        ("We must find a new home in the stars.", "Tenemos que encontrar un nuevo hogar en las estrellas."),
        ("The child almost hurt the small dog.", "El niño casi hizo daño al perro pequeño."),
        ("Ask what you can do for your country.", "Pregunta qué puedes hacer por tu país."),
        ("I do not know where the book is, but I will look for it.", "No sé dónde está el libro, pero lo buscaré."),
    ]  # fmt: skip
    ours = [chrf(translate(engine, source), human) for source, human in pairs]
    copied = [chrf(source, human) for source, human in pairs]
    assert sum(ours) / len(ours) > sum(copied) / len(copied) + 0.2
    assert sum(ours) / len(ours) > 0.45


def chrf(candidate: str, human: str, longest: int = 6, beta: float = 2.0) -> float:
    """Character n-gram F-score, 0..1."""
    scores = []
    for n in range(1, longest + 1):
        a, b = (grams(text.replace(" ", ""), n) for text in (candidate, human))
        common = sum(min(count, b.get(gram, 0)) for gram, count in a.items())
        precision, recall = common / max(sum(a.values()), 1), common / max(sum(b.values()), 1)
        weight = beta**2 * precision + recall
        scores.append((1 + beta**2) * precision * recall / weight if weight else 0.0)
    return sum(scores) / len(scores)


def grams(text: str, n: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for i in range(len(text) - n + 1):
        found[text[i : i + n]] = found.get(text[i : i + n], 0) + 1
    return found
