"""The language of the speech: said, read from the track, or assumed and then listened to."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dubbing import config
from dubbing.errors import LanguageError, SpokenLanguageError
from dubbing.prepare import prepare
from dubbing.stages.transcribe import other_language
from dubbing.types import DubRequest
from tests.e2e import jobs
from tests.models import whisper


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[..., str]) -> Path:
    """Three sentences with long pauses between them; a WAV has no language label."""
    require_program("flite")
    folder = tmp_path_factory.mktemp("talk")
    path = folder / "talk.wav"
    with wave.open(str(path), "wb") as out:
        for i, text in enumerate(("Good morning to you all.", "It is very nice outside.", "Let us begin the work.")):
            with wave.open(str(jobs.spoken_wav(folder / f"{i}.wav", text))) as sentence:
                if not i:
                    out.setparams(sentence.getparams())
                out.writeframes(sentence.readframes(sentence.getnframes()) + bytes(2 * 16_000 * 3))
    return path


def request(talk: Path, folder: Path, **what: Any) -> DubRequest:
    return DubRequest(**{"source": talk, "targets": ("es",), "output_dir": folder, "source_language": "auto"} | what)


def dub(talk: Path, folder: Path, hears: Sequence[tuple[str, float]], **what: Any) -> Mapping[str, Any]:
    """The report of a dub by doubles, whose recogniser detects these languages."""
    options = {"fake-transcribe": {"hears": hears, "calls_log": str(folder / "calls.jsonl")}}
    _, report = jobs.dub(request(talk, folder, engines=jobs.FAKES, **what), options)
    return report


def asked(folder: Path) -> list[str]:
    """The languages the recogniser was asked for, sorted."""
    calls = (folder / "calls.jsonl").read_text().splitlines()
    return sorted(json.loads(call)["text"].split()[1] for call in calls)


def test_an_assumed_language_that_is_heard_costs_no_extra_call(talk: Path, tmp_path: Path) -> None:
    report = dub(talk, tmp_path, [("en", 0.97)])
    assert report["calls"]["transcribe.called"] == 3
    assert asked(tmp_path) == ["auto"] * 3
    assert report["source"]["language"] == "en"


def test_another_language_than_the_assumed_one_ends_the_job_before_anything_is_translated(
    talk: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpokenLanguageError) as caught:
        dub(talk, tmp_path, [("fr", 0.9)])
    assert caught.value.message == "The speech in talk.wav is probably Français (fr), not English (en)"
    assert "--from fr" in caught.value.advice
    assert not list(tmp_path.rglob("translate.jsonl")) and not list(tmp_path.rglob("*.srt"))


def test_a_stretch_that_sounds_foreign_among_others_is_recognised_again_in_the_assumed_language(
    talk: Path, tmp_path: Path
) -> None:
    report = dub(talk, tmp_path, [("en", 0.9), ("fr", 0.9), ("en", 0.9)])
    assert report["calls"]["transcribe.called"] == 4
    assert asked(tmp_path) == ["auto", "auto", "auto", "en"]


def test_a_language_that_was_said_is_not_questioned(talk: Path, tmp_path: Path) -> None:
    dub(talk, tmp_path, [("fr", 0.99)], source_language="en")
    assert asked(tmp_path) == ["en"] * 3


def test_a_recogniser_that_detects_nothing_is_asked_for_the_assumed_language(talk: Path, tmp_path: Path) -> None:
    dub(talk, tmp_path, [])
    assert asked(tmp_path) == ["en"] * 3


def test_what_was_heard_is_remembered_for_the_next_run(talk: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(SpokenLanguageError):
            dub(talk, tmp_path, [("fr", 0.9)])
    assert len(asked(tmp_path)) == 3, "the second run knows without listening"
    report = dub(talk, tmp_path, [("fr", 0.9)], source_language="fr")
    assert report["source"]["language"] == "fr"


def test_a_target_in_the_assumed_language_is_refused_with_the_way_out(talk: Path, tmp_path: Path) -> None:
    with pytest.raises(LanguageError) as caught:
        asyncio.run(prepare(request(talk, tmp_path, targets=("en",)), config.load({}, env_file=None)))
    assert "no label" in caught.value.message and "--from" in caught.value.message


@pytest.mark.parametrize(
    ("heard", "other"),
    [
        ([], None),
        ([(9_000, "en", 0.4)], None),
        ([(9_000, "fr", 0.9)], "fr"),
        ([(9_000, "fr", 0.5)], None),
        ([(9_000, "fr", 0.9), (20_000, "en", 0.6)], None),
        ([(9_000, "en", 0.9), (20_000, "fr", 0.8)], "fr"),
        ([(5_000, "fr", 0.9), (5_000, "de", 0.9), (5_000, "it", 0.9)], None),
        ([(9_000, "und", 0.0), (9_000, "en", 0.9)], None),
    ],
)
def test_another_language_must_be_more_likely_than_not(heard: list[tuple[int, str, float]], other: str | None) -> None:
    assert other_language("en-GB", heard) == other


def command(talk: Path, folder: Path, models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    engines = ("transcribe=faster-whisper-small", "translate=fake-translate", "speak=fake-speak")
    chosen = [word for engine in engines for word in ("--engine", engine)]
    return subprocess.run(
        [sys.executable, "-m", "dubbing.cli", "run", talk, "--to", "es", "--in-process", *chosen, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "DUBBING_MODELS_DIR": str(models)},
        timeout=120,
    )


def test_whisper_hears_what_its_weights_say(talk: Path, tmp_path: Path, tiny_models: Path) -> None:
    done = command(talk, tmp_path, tiny_models, "--json")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "Output" / "talk"
    subtitles = (folder / "talk.en.srt").read_text()
    assert subtitles.lower().count("good morning the house listens now") == 3
    assert "[es] Good morning" in (folder / "talk.es.srt").read_text()
    engines = {engine["kind"]: engine for engine in json.loads((folder / "report.json").read_text())["engines"]}
    assert (engines["transcribe"]["name"], engines["transcribe"]["weights_licence"]) == ("faster-whisper-small", "MIT")


def test_whisper_tells_another_language_and_dubs_from_it_when_told_to(talk: Path, tmp_path: Path) -> None:
    whisper.make(tmp_path / "models" / "faster-whisper-small", {"fr": "bonjour à tous", "en": "hello all of you"})
    stopped = command(talk, tmp_path, tmp_path / "models")
    assert stopped.returncode == 3
    assert "The speech in talk.wav is probably Français (fr), not English (en)" in stopped.stderr
    assert "--from fr" in stopped.stderr

    done = command(talk, tmp_path, tmp_path / "models", "--from", "fr")
    assert done.returncode == 0, done.stderr
    assert "onjour à tous" in (tmp_path / "Output" / "talk" / "talk.fr.srt").read_text()
