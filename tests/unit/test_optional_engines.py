"""Separating and diarizing are chosen by quality: never in a draft, if they are here in auto, insisted on in good and best."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dubbing import cli, config, orders
from dubbing.engines import weights
from dubbing.errors import EngineMissingError, UsageError
from dubbing.prepare import optional_engines
from dubbing.types import DubRequest, Quality

NAMED = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Anna>Hello.\n"
UNNAMED = "1\n00:00:01,000 --> 00:00:02,000\nHello.\n"


@pytest.fixture
def nothing_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUBBING_MODELS_DIR", str(tmp_path / "none"))
    weights.home.cache_clear()


@pytest.fixture
def all_here(tiny_separator: Path, tiny_diarizer: Path, use_models: Path) -> None:
    """Both models lie in the models folder."""


def request(quality: Quality = "good", **more: object) -> DubRequest:
    return DubRequest(Path("film.mp4"), ("es",), Path("out"), quality=quality, **more)  # type: ignore[arg-type]


def chosen(asked: DubRequest, **env: str) -> dict[str, str]:
    choices, _ = optional_engines(asked, config.load(env, env_file=None), "en", None)
    return {choice.kind: choice.name for choice in choices}


@pytest.mark.usefixtures("all_here")
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request("draft"), {}),
        (request("auto"), {"separate": "demucs", "diarize": "sherpa-onnx-diarize"}),
        (request("good"), {"separate": "demucs", "diarize": "sherpa-onnx-diarize"}),
        (request("best"), {"separate": "demucs", "diarize": "sherpa-onnx-diarize"}),
        (request(keep_background=False), {"diarize": "sherpa-onnx-diarize"}),
        (request(speakers=1), {"separate": "demucs"}),
        (request(speakers=2), {"separate": "demucs", "diarize": "sherpa-onnx-diarize"}),
        (request("draft", engines={"separate": "fake-separate"}), {"separate": "fake-separate"}),
    ],
    ids=["draft", "auto", "good", "best", "no background", "one speaker", "two speakers", "named in a draft"],
)
def test_quality_decides(asked: DubRequest, expected: dict[str, str]) -> None:
    assert chosen(asked) == expected


@pytest.mark.usefixtures("all_here")
def test_the_reason_is_told() -> None:
    choices, notes = optional_engines(request("auto"), config.load({}, env_file=None), "en", None)

    assert [choice.reason for choice in choices] == [
        "demucs parts speech from background: the best that is installed here (good quality).",
        "sherpa-onnx-diarize tells speakers apart: the best that is installed here (good quality).",
    ]
    assert notes == ()


@pytest.mark.usefixtures("all_here")
@pytest.mark.parametrize(
    ("transcript", "translation", "diarized"),
    [(NAMED, None, False), (UNNAMED, None, True), (None, NAMED, False), (None, UNNAMED, True), (UNNAMED, NAMED, True)],
)
def test_nobody_is_told_apart_where_every_text_has_names(
    tmp_path: Path, transcript: str | None, translation: str | None, diarized: bool
) -> None:
    more: dict[str, object] = {}
    if transcript is not None:
        more["transcript"] = tmp_path / "words.vtt"
        (tmp_path / "words.vtt").write_text(transcript)
    if translation is not None:
        (tmp_path / "es.vtt").write_text(translation)
        more["translations"] = {"es": tmp_path / "es.vtt"}

    assert ("diarize" in chosen(request(**more))) is diarized  # type: ignore[arg-type]


@pytest.mark.usefixtures("nothing_fetched")
def test_auto_goes_without_what_is_not_here() -> None:
    assert optional_engines(request("auto"), config.load({}, env_file=None), "en", None) == ((), ())


@pytest.mark.usefixtures("nothing_fetched")
@pytest.mark.parametrize(
    ("asked", "kind", "fetch"),
    [(request(), "separate", "htdemucs"), (request(keep_background=False), "diarize", "speaker-segmentation")],
)
def test_good_quality_names_what_to_fetch(asked: DubRequest, kind: str, fetch: str) -> None:
    pytest.importorskip("demucs")
    pytest.importorskip("sherpa_onnx")
    with pytest.raises(EngineMissingError, match=f"The {kind} engine") as caught:
        chosen(asked)
    assert caught.value.advice == f"dub models fetch {fetch}"


@pytest.mark.usefixtures("all_here")
def test_where_licences_forbid_every_engine_the_work_is_left_out_and_said_to_be() -> None:
    settings = config.load({"DUBBING_COMMERCIAL_SAFE": "1"}, env_file=None)
    choices, notes = optional_engines(request(), settings, "en", None)

    assert [choice.kind for choice in choices] == ["diarize"]
    [note] = notes
    assert note.startswith(
        "Nothing here parts speech from background: DUBBING_COMMERCIAL_SAFE is on and forbids demucs"
    )


@pytest.mark.usefixtures("all_here")
def test_on_a_cluster_only_what_it_hosts_is_chosen() -> None:
    settings = config.load({}, env_file=None)
    hosted = {"separate": ["demucs"]}

    assert [c.name for c in optional_engines(request("auto"), settings, "en", hosted)[0]] == ["demucs"]
    with pytest.raises(EngineMissingError, match="not deployed on this cluster") as caught:
        optional_engines(request(), settings, "en", hosted)
    assert "args.engines.diarize" in caught.value.advice


def test_an_engine_of_another_kind_cannot_separate() -> None:
    with pytest.raises(UsageError, match="There is no separate engine named espeak-ng"):
        chosen(request(engines={"separate": "espeak-ng"}))


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "101", ""])
def test_a_number_of_speakers_is_a_number_of_people(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of people, 1 to 100"):
        cli.people(text)


def test_the_number_of_speakers_survives_the_queue() -> None:
    arguments = cli.parser().parse_args(["run", "film.mp4", "--to", "es", "--speakers", "3"])
    asked = request(speakers=arguments.speakers)

    assert orders.from_json(orders.to_json(asked)).speakers == 3
    older = orders.to_json(asked)
    del older["speakers"]
    assert orders.from_json(older).speakers is None, "a job submitted before there was the option"
