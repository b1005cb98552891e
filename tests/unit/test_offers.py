"""Better models are offered once, only where they help, and never fetched against the user's will."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing import offers
from dubbing.config import Settings
from dubbing.engines import fake, weights
from dubbing.engines.base import EngineSpec, Languages, Located
from dubbing.engines.weights import Weights
from dubbing.model_errors import (
    HubDownError,
)
from dubbing.types import DubRequest
from tests import hub_server
from tests.hub_server import HubServer

GERMAN = Languages(frozenset({("en", "de")}))


def _spec(
    base: EngineSpec, name: str, models: Path, size_mb: int, *, library: bool = True, **facts: object
) -> EngineSpec:
    needed = Weights(f"{name}-weights", "maker/model", ("model.bin",), "MIT", True, size_mb)

    def locate() -> Located:
        if not library:
            return Located(False, "torch is not installed", "pip install torch")
        problem = weights.problem(needed, models / needed.name)
        return Located(not problem, problem, f"Run: dub models fetch {needed.name}")

    return dataclasses.replace(
        base,
        name=name,
        quality="good",
        hidden=False,
        weights=needed,
        locate=locate,
        **facts,  # type: ignore[arg-type]
    )


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a machine with three good translators, of which one lacks its library, and one good speaker."""
    models = tmp_path / "models"
    specs = [
        _spec(fake.TRANSLATE, "large-mt", models, 3),
        _spec(fake.TRANSLATE, "small-mt", models, 2, languages=lambda: GERMAN),
        _spec(fake.TRANSLATE, "no-library-mt", models, 1, library=False),
        _spec(fake.SPEAK, "good-voice", models, 1, commercial_use=False),
    ]
    module = types.ModuleType("offered_engines")
    lines = []
    for i, spec in enumerate(specs):
        setattr(module, f"SPEC{i}", spec)
        lines.append(f"{spec.name} = offered_engines:SPEC{i}\n")
    monkeypatch.setitem(sys.modules, "offered_engines", module)
    info = tmp_path / "plugin" / "offered_engines-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offered-engines\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[dubbing.engines]\n" + "".join(lines))
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    with hub_server.serve(HubServer({"model.bin": b"weights"})) as hub:
        yield Settings(models_dir=models, hub_url=hub.url)


def request(target: str = "de", **options: object) -> DubRequest:
    engines = {"transcribe": "pocketsphinx", "separate": "none", "diarize": "none"}
    facts = {"engines": engines, "source_language": "en", **options}
    return DubRequest(Path("talk.mp4"), (target,), Path("Output"), **facts)  # type: ignore[arg-type]


class Asked:
    def __init__(self, answer: str) -> None:
        self.answer, self.questions = answer, list[str]()

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        return self.answer


def test_the_smallest_model_that_knows_the_languages_is_fetched_after_a_yes(settings: Settings) -> None:
    asked = Asked("y\n")
    assert offers.offer(request(), settings, yes=False, ask=asked) == ["small-mt-weights", "good-voice-weights"]
    (question,) = asked.questions
    assert "small-mt-weights: translate, 2 MB, licence MIT\n" in question
    assert "Fetch them now, 3 MB?" in question
    assert offers.offer(request(), settings, yes=False, ask=asked) == []
    assert len(asked.questions) == 1


def test_who_declines_is_not_asked_again(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    asked = Asked("\n")
    assert offers.offer(request("fr"), settings, yes=False, ask=asked) == []
    assert offers.offer(request("fr"), settings, yes=False, ask=asked) == []
    assert len(asked.questions) == 1
    assert "later: dub models fetch good-voice-weights large-mt-weights" in capsys.readouterr().err
    assert not (settings.models_dir / "large-mt-weights").exists()
    assert offers.offer(request("fr"), settings, yes=True) == ["large-mt-weights", "good-voice-weights"]


def test_nobody_is_asked_where_there_is_no_terminal(settings: Settings) -> None:
    assert offers.offer(request(), settings, yes=False) == []
    assert not settings.models_dir.exists()


@pytest.mark.parametrize(
    ("change", "options"),
    [({"offline": True}, {}), ({"ray_address": "head:6379"}, {}), ({}, {"quality": "draft"})],
)
def test_nothing_is_offered_that_could_not_be_used(
    settings: Settings, change: dict[str, object], options: dict[str, object]
) -> None:
    assert offers.offer(request(**options), settings.model_copy(update=change), yes=True) == []


def test_work_that_is_not_needed_and_engines_that_were_named_are_left_alone(settings: Settings) -> None:
    asked = request(translations={"de": Path("talk.de.srt")}, engines={"speak": "espeak-ng", "separate": "none"})
    assert list(offers.better(asked, settings)) == []


def test_models_that_forbid_commercial_use_are_not_offered_where_only_safe_ones_may(settings: Settings) -> None:
    safe = settings.model_copy(update={"commercial_safe": True})
    assert [model.weights.name for model in offers.better(request(), safe)] == ["small-mt-weights"]


def test_a_hub_that_does_not_answer_ends_the_command_that_said_yes(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"hub_url": "http://hub.invalid"})
    with pytest.raises(HubDownError):
        offers.offer(request(), nowhere, yes=True)
