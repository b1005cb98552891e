"""Cloned voices through a whole job: who has a reference, what it covers, and what an edit costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dubbing.media import wav
from tests.e2e import jobs


def job_of(folder: Path, **more: Any) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """40 s with Ana, who says much, and Bob, who says little."""
    source = jobs.programme(folder / "film.wav", 40)
    cues = [(i * 4000, i * 4000 + 3000, "Bob" if i == 4 else "Ana") for i in range(9)]
    cues[4] = (16_000, 17_500, "Bob")
    (folder / "film.vtt").write_text(
        "WEBVTT\n\n"
        + "\n".join(
            f"{jobs.srt([(start, end, '')]).splitlines()[1].replace(',', '.')}\n<v {who}>This is sentence number {i}.\n"
            for i, (start, end, who) in enumerate(cues)
        )
    )
    log = folder / "speak.log"
    spec = {
        "source": str(source),
        "output_dir": str(folder / "out"),
        "transcript": str(folder / "film.vtt"),
        "targets": ["es"],
        "engines": jobs.FAKES,
    } | more
    return spec, {"fake-speak": {"clones": True, "calls_log": str(log)}}, log


def calls(log: Path) -> list[dict[str, Any]]:
    rows = [json.loads(row) for row in log.read_text().splitlines()]
    log.unlink()
    return rows


def test_who_says_enough_is_cloned_and_who_does_not_has_a_preset_and_a_warning(tmp_path: Path) -> None:
    spec, options, log = job_of(tmp_path)
    _, report = jobs.dub(jobs.request_of(spec), options)
    said = calls(log)
    ana, bob = [c for c in said if c.get("speaker") == "Ana"], [c for c in said if "reference" not in c]
    assert {c["voice"] for c in ana} == {"clone Ana"}
    assert {c["voice"] for c in bob} == {"tone-1"}
    assert {c["text"] for c in bob} == {"[es] This is sentence number 4."}
    [reference] = {c["reference"] for c in ana}
    audio, rate = wav.read_wav(Path(reference))
    assert 5 <= len(audio) / rate <= 15
    assert any("Bob says too little to be cloned" in warning for warning in report["warnings"])
    assert report["targets"]["es"]["spoken"] == 9

    _, report = jobs.dub(jobs.request_of(spec), options)
    assert report["calls"]["speak.kept"] == 9
    assert not log.exists()


def test_other_speech_of_a_speaker_makes_his_lines_again_and_nobody_elses(tmp_path: Path) -> None:
    spec, options, log = job_of(tmp_path)
    jobs.dub(jobs.request_of(spec), options)
    calls(log)
    transcript = tmp_path / "film.vtt"
    transcript.write_text(transcript.read_text().replace("00:00:07.000", "00:00:06.200"))
    jobs.dub(jobs.request_of(spec), options)
    assert {c.get("speaker") for c in calls(log)} == {"Ana"}


def test_a_preset_that_was_asked_for_needs_no_reference(tmp_path: Path) -> None:
    spec, options, log = job_of(tmp_path, voices={"Ana": "tone-2"})
    _, report = jobs.dub(jobs.request_of(spec), options)
    said = calls(log)
    assert {c["voice"] for c in said if "number 4" not in c["text"]} == {"tone-2"}
    assert not any("reference" in c for c in said)
    assert not any("Ana" in warning for warning in report["warnings"])


def test_an_engine_and_a_voice_may_be_asked_for_in_one_language_alone(tmp_path: Path) -> None:
    engines = {kind: name for kind, name in jobs.FAKES.items() if kind != "speak"}
    engines |= {"speak:es": "fake-speak", "speak:fr": "fake-speak"}
    voices = {"es:*": "tone-2", "*": "tone-3"}
    spec, options, log = job_of(tmp_path, voices=voices, engines=engines, targets=["es", "fr"])
    jobs.dub(jobs.request_of(spec), options)
    said = {(c["text"][1:3], c["voice"]) for c in calls(log)}
    assert said == {("es", "tone-2"), ("fr", "tone-3")}


def test_a_reading_that_fails_is_made_again_with_another_seed(tmp_path: Path) -> None:
    spec, options, log = job_of(tmp_path)
    options["fake-speak"] |= {"draws_lots": True, "poison": "number 3"}
    _, report = jobs.dub(jobs.request_of(spec), options)
    assert report["targets"]["es"]["silent"] == []
    assert [c["seed"] for c in calls(log) if "number 3" in c["text"]] == [1]


def test_a_whole_job_speaks_with_xtts_and_keeps_what_it_has_spoken(
    tmp_path: Path, tiny_xtts: Path, use_models: Path
) -> None:
    source = jobs.programme(tmp_path / "film.wav", 12)
    cues = [(0, 5000, "This is the first sentence."), (6000, 11_000, "And this is the second one.")]
    (tmp_path / "film.srt").write_text(jobs.srt(cues))
    spec = {
        "source": str(source),
        "output_dir": str(tmp_path / "out"),
        "transcript": str(tmp_path / "film.srt"),
        "targets": ["es"],
        "engines": jobs.FAKES | {"speak": "xtts-v2"},
    }
    options = {"xtts-v2": {"threads": 1, "device": "cpu"}}
    _, report = jobs.dub(jobs.request_of(spec), options)
    assert report["targets"]["es"]["spoken"] == 2
    [engine] = [e for e in report["engines"] if e["kind"] == "speak"]
    assert (engine["name"], engine["commercial_use"], engine["licence"]) == ("xtts-v2", False, "MPL-2.0")
    assert engine["weights_licence"].startswith("Coqui Public Model License")
    assert len(list((tmp_path / "out" / "film" / ".work" / "references").glob("*.wav"))) == 1

    _, report = jobs.dub(jobs.request_of(spec), options)
    assert (report["calls"]["speak.kept"], report["calls"].get("speak.called")) == (2, None)
