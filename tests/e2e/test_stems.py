"""Studio quality: two people over music become a dub with two voices over the same music."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubbing.artifacts import JobFolder
from dubbing.engines import weights
from dubbing.media import wav
from dubbing.stages.mix import BACKGROUND_DUCK_DB
from dubbing.types import DubRequest
from tests.e2e import jobs, voices
from tests.models.fixtures import generator

DOUBLES = jobs.FAKES | {"speak": "espeak-ng", "separate": "fake-separate", "diarize": "fake-diarize"}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, require_program: Any) -> voices.Film:
    require_program("flite")
    require_program("espeak-ng")
    return voices.two_people(tmp_path_factory.mktemp("film"))


def good(film: voices.Film, folder: Path) -> DubRequest:
    """The film to be dubbed from what is said in it, without names."""
    words = film.path.with_name("words.srt")
    words.write_text(jobs.srt([(a, b, text) for (a, b, _), text in zip(film.turns, voices.SENTENCES, strict=True)]))
    return DubRequest(film.path, ("es",), folder, quality="good", transcript=words, engines=DOUBLES)


@pytest.fixture(scope="module")
def dubbed(film: voices.Film, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], DubRequest]:
    """The film dubbed with doubles: its file, its report and what was asked."""
    request = good(film, tmp_path_factory.mktemp("dubbed"))
    result, report = jobs.dub(request)
    return result.files["es"][0], report, request


def middle_and_side(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What both channels share and what they do not."""
    stereo = voices.sound_of(path).astype(np.float64)
    return stereo.sum(axis=1) / 2, (stereo[:, 0] - stereo[:, 1]) / 2


def test_two_people_get_two_voices(dubbed: tuple[Path, dict[str, Any], DubRequest], film: voices.Film) -> None:
    speakers = dubbed[1]["speakers"]

    assert list(speakers) == ["S1", "S2"]
    assert speakers["S1"]["voices"]["es"] != speakers["S2"]["voices"]["es"]
    assert sum(speaker["share"] for speaker in speakers.values()) == pytest.approx(1, abs=0.01)
    total = sum(end - start for start, end, _ in film.turns)
    hers = sum(end - start for start, end, voice in film.turns if voice == voices.WOMAN)
    assert speakers["S1"]["share"] == pytest.approx(hers / total, abs=0.05)


def test_the_music_stays_and_the_voices_go(dubbed: tuple[Path, dict[str, Any], DubRequest], film: voices.Film) -> None:
    middle, side = middle_and_side(dubbed[0])
    frames = min(len(side), len(film.music))
    before, under = slice(0, voices.RATE * 8 // 10), slice(voices.RATE * 25 // 10, voices.RATE * 45 // 10)

    assert voices.share(side[:frames], film.music[:frames])[1] > 0.95, "the music is there all the time"
    in_the_pause, likeness = voices.share(side[before], film.music[before])
    under_the_line, _ = voices.share(side[under], film.music[under])
    assert likeness > 0.98
    assert 20 * np.log10(in_the_pause / under_the_line) == pytest.approx(BACKGROUND_DUCK_DB, abs=0.7)
    assert abs(voices.share(middle[:frames], film.voices[:frames])[1]) < 0.1, "the original voices are gone"


def test_the_dub_stands_to_the_music_as_the_voices_did(
    dubbed: tuple[Path, dict[str, Any], DubRequest], film: voices.Film
) -> None:
    def loud(sound: np.ndarray[Any, Any]) -> float:
        frames = sound[: len(sound) // 2400 * 2400].astype(np.float64).reshape(-1, 2400)
        power = (frames**2).mean(axis=1)
        return float(10 * np.log10(power[power >= power.max() / 100].mean()))

    middle, side = middle_and_side(dubbed[0])
    pause = slice(0, voices.RATE * 8 // 10)
    was = loud(film.voices) - loud(film.music[pause])
    now = loud(middle) - loud(side[pause])

    assert now == pytest.approx(was, abs=2.0)


def test_the_report_says_who_did_what_under_which_licence(
    dubbed: tuple[Path, dict[str, Any], DubRequest],
) -> None:
    report = dubbed[1]
    kinds = {engine["kind"]: engine for engine in report["engines"]}

    assert set(kinds) == {"translate", "speak", "separate", "diarize"}
    assert all(engine["licence"] and engine["reason"] and engine["version"] for engine in kinds.values())
    assert report["background"]["separated"] is True
    assert -40 < report["background"]["voices_dbfs"] < -10
    assert {"separate", "diarize"} <= set(report["time"]["by_stage"])
    assert report["calls"]["diarize.called"] == 1
    assert report["calls"]["separate.called"] == 5


def test_the_same_again_separates_and_diarizes_nothing(
    dubbed: tuple[Path, dict[str, Any], DubRequest],
) -> None:
    before = dubbed[0].read_bytes()
    _, report = jobs.dub(dubbed[2])

    assert not [name for name in report["calls"] if name.endswith(".called")]
    assert report["calls"]["separate.kept"] == report["calls"]["diarize.kept"] == 1
    assert dubbed[0].read_bytes() == before
    assert list(report["speakers"]) == ["S1", "S2"]


def test_the_stems_are_the_whole_sound(dubbed: tuple[Path, dict[str, Any], DubRequest], film: voices.Film) -> None:
    stems = JobFolder(dubbed[0].parent).work / "stems"
    vocals, background = (
        wav.read_frames(wav.wav_info(stems / f"{name}.wav"), 0, 1 << 40).astype(int)
        for name in ("vocals", "background")
    )

    assert np.abs(vocals + background - wav.read_frames(wav.wav_info(film.path), 0, 1 << 40)).max() <= 1


def test_recognised_words_are_parted_where_the_speaker_changes(film: voices.Film, tmp_path: Path) -> None:
    _, report = jobs.dub(replace(good(film, tmp_path), transcript=None))

    assert report["calls"]["transcribe.called"] == 1, "all that was said came in one segment"
    assert {label: told["lines"] for label, told in report["speakers"].items()} == {"S1": 2, "S2": 2}


def test_names_in_subtitles_win_over_what_is_heard(film: voices.Film, tmp_path: Path) -> None:
    names = ("Anna", "Ben", "Anna", "Carl")
    words = tmp_path / "words.vtt"
    cues = [
        f"00:{start // 1000:02}.{start % 1000:03} --> 00:{end // 1000:02}.{end % 1000:03}\n<v {name}>{text}\n"
        for (start, end, _), name, text in zip(film.turns, names, voices.SENTENCES, strict=True)
    ]
    words.write_text("WEBVTT\n\n" + "\n".join(cues))
    request = replace(good(film, tmp_path), transcript=words)

    assert list(jobs.dub(request)[1]["speakers"]) == ["Anna", "Ben", "Carl"]


def test_a_translation_without_names_gets_the_speakers_that_are_heard(film: voices.Film, tmp_path: Path) -> None:
    text = tmp_path / "es.srt"
    text.write_text(jobs.srt([(start, end, "Una frase.") for start, end, _ in film.turns]))
    request = replace(good(film, tmp_path), transcript=None, translations={"es": text})
    _, report = jobs.dub(request)

    assert {label: told["lines"] for label, told in report["speakers"].items()} == {"S1": 2, "S2": 2}
    assert "transcribe.called" not in report["calls"]


def test_one_speaker_announced_is_one_voice(film: voices.Film, tmp_path: Path) -> None:
    engines = {kind: name for kind, name in DOUBLES.items() if kind != "diarize"}
    request = replace(good(film, tmp_path), speakers=1, engines=engines)
    _, report = jobs.dub(request)

    assert list(report["speakers"]) == ["S1"]
    assert "diarize" not in {engine["kind"] for engine in report["engines"]}


def test_without_background_only_the_dub_is_left(film: voices.Film, tmp_path: Path) -> None:
    engines = {kind: name for kind, name in DOUBLES.items() if kind != "separate"}
    result, report = jobs.dub(replace(good(film, tmp_path), keep_background=False, engines=engines))
    _, side = middle_and_side(result.files["es"][0])

    assert report["background"] is None
    assert np.abs(side).max() < 200


@pytest.fixture
def networks(tmp_path: Path, tiny_diarizer: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A models folder with a separator that looks at whole pieces, and a diarizer."""
    home = tmp_path / "models"
    shutil.copytree(tiny_diarizer, home, ignore=shutil.ignore_patterns("htdemucs"))
    generator("separator", "torch", "demucs").make(home / "htdemucs")
    monkeypatch.setenv("DUBBING_MODELS_DIR", str(home))
    weights.home.cache_clear()
    yield
    weights.home.cache_clear()


@pytest.mark.usefixtures("networks")
def test_real_networks_are_found_and_take_the_same_road(film: voices.Film, tmp_path: Path) -> None:
    asked = replace(good(film, tmp_path / "out"), quality="auto", engines=jobs.FAKES | {"speak": "espeak-ng"})
    result, report = jobs.dub(asked)

    assert list(report["speakers"]) == ["S1", "S2"]
    engines = {engine["kind"]: engine for engine in report["engines"]}
    assert engines["separate"]["reason"].startswith("demucs parts speech from background: the best that is installed")
    assert (engines["separate"]["licence"], engines["separate"]["commercial_use"]) == ("MIT", False)
    assert "scientific purposes" in engines["separate"]["weights_licence"]
    assert engines["diarize"]["name"] == "sherpa-onnx-diarize"
    assert engines["diarize"]["weights_licence"] == "MIT (segmentation), CC-BY-4.0 (voice prints)"
    assert report["calls"]["separate.called"] == 5
    assert result.files["es"][0].exists()


@pytest.mark.usefixtures("networks")
def test_a_draft_uses_none_of_it(film: voices.Film, tmp_path: Path) -> None:
    asked = replace(good(film, tmp_path / "out"), quality="draft", engines=jobs.FAKES | {"speak": "espeak-ng"})
    _, report = jobs.dub(asked)

    assert {engine["kind"] for engine in report["engines"]} == {"translate", "speak"}
    assert report["background"] == {"separated": False}
    assert list(report["speakers"]) == ["S1"]
    assert not list((tmp_path / "out").rglob("stems"))
