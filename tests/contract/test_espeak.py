from __future__ import annotations

import numpy as np
import pytest
from engine_media import require

from dubbing import timing
from dubbing.engines import espeak, rates
from dubbing.engines.base import SpeakItem
from dubbing.errors import BadInputError, EngineError, LanguageError
from dubbing.types import Speech


@pytest.fixture(autouse=True)
def here() -> None:
    require(espeak.SPEAK)


def say(text: str, language: str = "es", voice: str = "es+klatt", rate: float = 1.0) -> Speech:
    engine = espeak.SPEAK.load({})
    try:
        speech: Speech = engine.run([SpeakItem(text, language, voice, rate)])[0]
        return speech
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("es", "es"),
        ("es-ES", "es"),
        ("es-MX", "es-419"),
        ("es-419", "es-419"),
        ("es-AR", "es-419"),
        ("pt", "pt"),
        ("pt-PT", "pt"),
        ("pt-BR", "pt-br"),
        ("fr", "fr-fr"),
        ("fr-FR", "fr-fr"),
        ("fr-CA", "fr-fr"),
        ("en", "en-us"),
        ("en-GB", "en-gb"),
        ("en-AU", "en-us"),
        ("zh", "cmn"),
        ("zh-Hans", "cmn"),
        ("zh-TW", "cmn"),
        ("zh-HK", "yue"),
        ("no", "nb"),
        ("de_DE", "de"),
        ("HI", "hi"),
    ],
)
def test_a_language_tag_finds_its_voice(tag: str, code: str) -> None:
    assert espeak.voice_code(tag) == code
    assert espeak.SPEAK.languages().can(tag.replace("_", "-"), tag.replace("_", "-"))


def test_every_language_that_is_offered_can_be_spoken() -> None:
    engine = espeak.SPEAK.load({})
    tags = sorted(a for a, _ in espeak.SPEAK.languages().pairs)
    speeches = engine.run([SpeakItem("1 2 3 mama мама", tag, espeak.voices(tag)[0].id) for tag in tags])
    engine.close()
    assert len(speeches) > 90
    assert [tag for tag, speech in zip(tags, speeches, strict=True) if speech.duration_ms < 200] == []


def test_the_more_intelligible_voice_comes_first() -> None:
    found = espeak.voices("es-MX")
    assert found[0].id == "es-419+klatt"
    assert found[-1].id == "es-419"
    assert {(v.engine, v.natural, v.language) for v in found} == {("espeak-ng", False, "es-MX")}


def test_a_language_without_a_voice_is_an_error() -> None:
    with pytest.raises(LanguageError, match="espeak-ng has no voice for xx"):
        espeak.voices("xx")
    assert not espeak.SPEAK.languages().can("xx", "xx")


@pytest.mark.parametrize("text", ["", " ", "...", "♪ ♪", "…", "[[h@l'oU]]"[:2], "¿?", "\n"])
def test_text_without_words_is_an_error_and_not_silence(text: str) -> None:
    with pytest.raises(BadInputError):
        say(text)


def test_an_unknown_voice_is_an_error() -> None:
    with pytest.raises(LanguageError, match="no voice tlh"):
        say("hola", voice="tlh")


def test_no_voice_means_the_first_of_the_language() -> None:
    assert np.array_equal(say("hola", voice="").audio, say("hola", voice="es+klatt").audio)


@pytest.mark.parametrize("text", ["-v de hola", "--version hola", "-"])
def test_a_leading_dash_is_text_and_no_option(text: str) -> None:
    if text == "-":
        with pytest.raises(BadInputError):
            say(text)
    else:
        assert say(text).duration_ms > say("hola").duration_ms


def test_double_brackets_are_read_as_text_and_not_as_phonemes() -> None:
    assert np.array_equal(say("[[hola]] amigo").audio, say("hola amigo").audio)


def test_angle_brackets_and_control_characters_do_no_harm() -> None:
    assert say("<b>hola</b> & adiós\x00 amigo\x01").duration_ms > say("hola adiós").duration_ms


def test_silence_around_the_words_is_the_same_small_guard_at_both_ends() -> None:
    speech = say("Buenos días.")
    loud = np.flatnonzero(np.abs(speech.audio.astype(int)) > espeak.QUIET)
    guard = espeak.GUARD_MS * espeak.SAMPLE_RATE // 1000
    assert loud[0] <= guard
    assert speech.audio.size - 1 - loud[-1] <= guard
    assert espeak.trim(np.zeros(1000, np.int16)).size == 0


def test_no_samples_of_the_header_are_heard() -> None:
    assert abs(int(say("Mmm.").audio[0])) <= espeak.QUIET


def test_a_line_is_the_same_alone_and_in_a_batch_of_many() -> None:
    engine = espeak.SPEAK.load({"threads": 4})
    items = [SpeakItem(f"Frase número {i}.", "es", "es+f2", 1.1) for i in range(12)]
    together = [s.audio.tobytes() for s in engine.run(items)]
    assert together == [engine.run([item])[0].audio.tobytes() for item in items]
    assert len(set(together)) == 12
    engine.close()


def test_a_program_that_has_gone_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = espeak.SPEAK.load({})
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match="the program espeak-ng has gone"):
        engine.run([SpeakItem("hola", "es", "es")])
    engine.close()
    assert espeak.SPEAK.locate().install.startswith("apt-get install")


@pytest.mark.parametrize("language", sorted(rates.ESPEAK))
def test_the_table_of_speaking_rates_holds_for_another_sentence(language: str) -> None:
    sentences = {
        "en": "The weather was cold and the road to the village was long.",
        "es": "El tiempo era frío y el camino hasta el pueblo era largo.",
        "fr": "Le temps était froid et la route vers le village était longue.",
        "de": "Das Wetter war kalt und der Weg in das Dorf war lang.",
        "ru": "Погода была холодная, и дорога до деревни была длинной.",
        "zh": "天气很冷。去村子的路很长。",
    }
    if language not in sentences:
        assert 2 < rates.units_per_second(language) < 30
        return
    speech = say(sentences[language], language, "")
    rate = timing.units(sentences[language]) * 1000 / speech.duration_ms
    assert rate == pytest.approx(rates.units_per_second(f"{language}-XX"), rel=0.25)
