"""sherpa-onnx: two voices are two speakers, one voice is one, and what is wrong with weights or options is said."""

from __future__ import annotations

import shutil
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken_models import spoiled_sherpa
from engine_media import recording

from dubbing.engines import fake, sherpa, vad, weights
from dubbing.engines.base import DiarizeItem, Engine, EngineSpec, Turns
from dubbing.errors import EngineBrokenError, EngineError, UsageError, WeightsDamagedError, WeightsMissingError
from dubbing.media import wav
from tests.e2e import voices
from tests.models.fixtures import generator

MAN, WOMAN = voices.MAN, voices.WOMAN
Talk = Callable[..., tuple[DiarizeItem, list[tuple[int, int, str]]]]


@pytest.fixture(scope="module")
def networks(tiny_diarizer: Path) -> dict[str, str]:
    """Options that name both folders."""
    return {
        "path": str(tiny_diarizer / sherpa.PRINTS.name),
        "segmentation": str(tiny_diarizer / sherpa.SEGMENTATION.name),
    }


@pytest.fixture(scope="module")
def engine(networks: dict[str, str]) -> Iterator[Engine[Any, Any]]:
    loaded = sherpa.DIARIZE.load(networks)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory, require_program: Any) -> Talk:
    """People who speak in turn for about ten seconds each; answers the item and who speaks when."""
    require_program("flite")
    folder = tmp_path_factory.mktemp("talk")

    def make(*who: str, most: int | None = None) -> tuple[DiarizeItem, list[tuple[int, int, str]]]:
        parts, turns, at = [], [], 0
        for i, voice in enumerate(who):
            text = " ".join(voices.SENTENCES[i % 2 :: 2])
            audio = voices.spoken(folder / f"{voice}{i % 2}.wav", voice, text)[::3]
            turns.append((at * 1000 // 16_000, (at + len(audio)) * 1000 // 16_000, voice))
            parts += [audio, np.zeros(14_000, np.int16)]
            at += len(audio) + 14_000
        path = folder / f"{'-'.join(who)}.wav"
        sound = np.concatenate(parts)
        wav.write_wav(path, sound, 16_000)
        return DiarizeItem(path, tuple(vad.speech_spans(sound)), most), turns

    return make


def said_by(found: Turns, turns: list[tuple[int, int, str]]) -> list[str]:
    """For each real turn the label that most of it got."""

    def shared(turn: tuple[int, int, str], label: str) -> int:
        return sum(max(0, min(end, turn[1]) - max(start, turn[0])) for start, end, who in found.turns if who == label)

    labels = sorted({label for *_, label in found.turns})
    return [max(labels, key=lambda label: shared(turn, label)) for turn in turns]


DIARIZERS = [sherpa.DIARIZE, fake.DIARIZE]


@pytest.mark.parametrize("spec", DIARIZERS, ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    ("who", "most", "expected"),
    [
        ((WOMAN, MAN, WOMAN, MAN), None, ["S1", "S2", "S1", "S2"]),
        ((MAN, WOMAN, WOMAN), None, ["S1", "S2", "S2"]),
        ((WOMAN, WOMAN), None, ["S1", "S1"]),
        ((MAN, MAN, MAN), None, ["S1", "S1", "S1"]),
        ((WOMAN, MAN, WOMAN), 1, ["S1", "S1", "S1"]),
        ((WOMAN, WOMAN), 4, ["S1", "S1"]),
    ],
    ids=["two in turn", "two", "one woman", "one man", "one announced", "four announced"],
)
def test_as_many_speakers_as_there_are_voices(
    spec: EngineSpec, networks: dict[str, str], talk: Talk, who: tuple[str, ...], most: int | None, expected: list[str]
) -> None:
    item, turns = talk(*who, most=most)
    engine = spec.load(networks if spec is sherpa.DIARIZE else {})
    try:
        [found] = engine.run([item])
    finally:
        engine.close()

    assert said_by(found, turns) == expected
    assert {label for *_, label in found.turns} == set(expected), "nobody is invented"


def test_turns_lie_within_the_speech_it_was_given(engine: Engine[Any, Any], talk: Talk) -> None:
    item, _ = talk(WOMAN, MAN)
    first_half = DiarizeItem(item.audio, item.speech[:1])
    [found] = engine.run([first_half])

    assert found.turns
    assert all(item.speech[0][0] <= start < end <= item.speech[0][1] for start, end, _ in found.turns)


def test_no_speech_is_nobody(engine: Engine[Any, Any], talk: Talk) -> None:
    item, _ = talk(WOMAN)

    assert engine.run([DiarizeItem(item.audio, ())]) == [Turns(())]


def test_a_real_talk_of_two_gets_turns_in_order(engine: Engine[Any, Any]) -> None:
    path = recording("stereo_diarization.wav")
    spans = vad.speech_spans(wav.read_wav(path)[0])
    [found] = engine.run([DiarizeItem(path, tuple(spans), 2)])

    labels = list(dict.fromkeys(label for *_, label in found.turns))
    assert labels in (["S1"], ["S1", "S2"])
    assert [start for start, *_ in found.turns] == sorted(start for start, *_ in found.turns)


def test_a_recording_at_another_rate_is_refused(engine: Engine[Any, Any], tmp_path: Path) -> None:
    wav.write_wav(tmp_path / "fast.wav", np.zeros(8_000, np.int16), 8_000)

    with pytest.raises(EngineError, match="has 8000 Hz, not 16000"):
        engine.run([DiarizeItem(tmp_path / "fast.wav", ((0, 500),))])


@pytest.mark.parametrize("missing", [sherpa.PRINTS, sherpa.SEGMENTATION], ids=lambda found: found.name)
def test_missing_weights_name_the_command_that_fetches_them(
    networks: dict[str, str], tmp_path: Path, missing: weights.Weights
) -> None:
    option = "path" if missing is sherpa.PRINTS else "segmentation"

    with pytest.raises(WeightsMissingError, match=missing.files[0]) as caught:
        sherpa.DIARIZE.load(networks | {option: str(tmp_path)})
    assert f"dub models fetch {missing.name}" in caught.value.advice


@pytest.mark.parametrize("damaged", [sherpa.PRINTS, sherpa.SEGMENTATION], ids=lambda found: found.name)
def test_a_truncated_network_is_damaged(networks: dict[str, str], tmp_path: Path, damaged: weights.Weights) -> None:
    option = "path" if damaged is sherpa.PRINTS else "segmentation"
    shutil.copytree(networks[option], tmp_path / "copy")
    file = tmp_path / "copy" / damaged.files[0]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    with pytest.raises(WeightsDamagedError, match=f"{damaged.files[0]} cannot be loaded") as caught:
        sherpa.DIARIZE.load(networks | {option: str(tmp_path / "copy")})
    assert "<" not in caught.value.message


def test_a_network_without_its_facts_is_an_error_and_not_the_end_of_the_process(
    networks: dict[str, str], tmp_path: Path
) -> None:
    module = generator("diarizer", "sherpa_onnx", "onnx")
    facts = {name: value for name, value in module.SEGMENTATION_FACTS.items() if name != "window_size"}
    module.write_segmentation(tmp_path / sherpa.SEGMENTATION_FILE, facts)

    with pytest.raises(WeightsDamagedError, match="it does not say its window_size"):
        sherpa.DIARIZE.load(networks | {"segmentation": str(tmp_path)})


def test_an_unknown_option_is_refused_with_those_it_knows(networks: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="has no option device; it knows: path, segmentation, threads"):
        sherpa.DIARIZE.load(networks | {"device": "cuda"})


def test_the_pitch_of_silence_is_nothing_and_of_a_tone_its_own() -> None:
    tone = (np.sin(np.arange(16_000) * 2 * np.pi * 200 / 16_000) * 8_000).astype(np.int16)

    assert fake.pitch_hz(tone) == pytest.approx(200, rel=0.02)
    assert fake.pitch_hz(np.zeros(16_000, np.int16)) == 0.0
    assert fake.pitch_hz(np.zeros(0, np.int16)) == 0.0


def test_the_speech_of_a_film_is_read_without_the_rest(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "none"))
    [found] = fake.DIARIZE.load({}).run([DiarizeItem(tmp_path / "empty.wav", ((0, 100),))])

    assert found.turns == ((0, 100, "S1"),)


def test_a_segmentation_that_breaks_is_noticed_although_it_only_hears_nothing(
    networks: dict[str, str], tmp_path: Path
) -> None:
    own = {name: str(shutil.copytree(folder, tmp_path / name)) for name, folder in networks.items()}
    loaded: Any = sherpa.DIARIZE.load(own)
    loaded.probe()
    file = Path(own["segmentation"]) / sherpa.SEGMENTATION_FILE
    loaded._diarizer = spoiled_sherpa(sherpa.DIARIZE, file, own)._diarizer
    with pytest.raises(EngineBrokenError, match="hears something else"):
        loaded.probe()
