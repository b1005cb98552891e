"""A job that is killed anywhere goes on where it was, and an edit costs one line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import multiprocessing.process
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dubbing.errors import SubtitleError
from tests.e2e import jobs

KILLS = 22
LINES = 24
MANIFEST = Path("film/.work/es/speak.jsonl")


def film(folder: Path) -> tuple[Path, Path]:
    """A minute's programme and its transcript."""
    source = jobs.programme(folder / "film.wav", LINES * 2.5)
    transcript = folder / "film.srt"
    cues = [(i * 2500, i * 2500 + 1800, f"This is sentence number {i} of the film.") for i in range(LINES)]
    transcript.write_text(jobs.srt(cues))
    return source, transcript


def spec_of(folder: Path, output: Path, source: Path, transcript: Path) -> dict[str, Any]:
    options = {
        "fake-translate": {"item_ms": 4, "calls_log": str(folder / f"{output.name}.translate.log")},
        "fake-speak": {"item_ms": 12, "calls_log": str(folder / f"{output.name}.speak.log")},
    }
    return {
        "source": str(source),
        "output_dir": str(output),
        "transcript": str(transcript),
        "targets": ["es"],
        "engines": jobs.FAKES,
        "options": options,
    }


def start(spec: dict[str, Any]) -> multiprocessing.process.BaseProcess:
    """A job in a process of its own that can be killed; forked from one where everything is imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.e2e.jobs"])
    process = context.Process(target=jobs.run_spec, args=(spec,))
    process.start()
    return process


def texts_of(path: Path, field: int | None) -> Counter[str]:
    """How often each text stands in a file of JSON rows; the torn last row of a killed process does not count."""
    found: Counter[str] = Counter()
    for row in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            entry = json.loads(row)
            found[(entry if field is None else entry[field])["text"]] += 1
    return found


def results(output: Path) -> dict[str, str]:
    """Hashes of everything the user gets, except what tells the time."""
    kept = [p for p in (output / "film").iterdir() if p.is_file() and p.suffix in (".m4a", ".mka", ".srt", ".vtt")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


@pytest.mark.slow
def test_a_job_killed_at_random_moments_ends_with_the_same_bytes_and_no_line_is_made_twice(tmp_path: Path) -> None:
    source, transcript = film(tmp_path)
    whole = tmp_path / "whole"
    start(spec_of(tmp_path, whole, source, transcript)).join(120)
    began = time.monotonic()
    undisturbed = start(spec_of(tmp_path, tmp_path / "again", source, transcript))
    undisturbed.join(120)
    length = time.monotonic() - began
    assert undisturbed.exitcode == 0
    assert results(whole) == results(tmp_path / "again")
    entries = texts_of(whole / MANIFEST, 1)
    dice = random.Random(7)
    killed = attempt = 0

    while killed < KILLS:
        attempt += 1
        output = tmp_path / f"killed{attempt}"
        spec = spec_of(tmp_path, output, source, transcript)
        log = tmp_path / f"{output.name}.speak.log"
        finished = False
        while not finished:
            said_before, made_before = texts_of(log, None), texts_of(output / MANIFEST, 1)
            process = start(spec)
            process.join(dice.uniform(0.1, 1.1) * length)
            finished = process.exitcode is not None
            if finished:
                assert process.exitcode == 0
            else:
                process.kill()
                process.join()
                killed += 1
            said = texts_of(log, None) - said_before
            assert not said - (entries - made_before), "a line that was in the manifest was spoken again"
        assert results(output) == results(whole)
        assert texts_of(output / MANIFEST, 1) == entries


def test_a_second_run_of_a_finished_job_does_no_work_again(tmp_path: Path) -> None:
    source, transcript = film(tmp_path)
    spec = spec_of(tmp_path, tmp_path / "out", source, transcript)
    _, first = jobs.dub(jobs.request_of(spec), spec["options"])
    before = results(tmp_path / "out")

    _, second = jobs.dub(jobs.request_of(spec), spec["options"])

    assert first["calls"]["speak.called"] >= LINES and first["calls"]["translate.called"] == LINES
    assert second["calls"] == {"mix.kept": 1, "package.kept": 1, "speak.kept": LINES, "translate.kept": LINES}
    assert results(tmp_path / "out") == before


def test_editing_one_line_of_the_target_subtitle_speaks_one_line(tmp_path: Path) -> None:
    source, transcript = film(tmp_path)
    spec = spec_of(tmp_path, tmp_path / "out", source, transcript)
    result, _ = jobs.dub(jobs.request_of(spec), spec["options"])
    subtitle = result.files["es"][2]
    before = results(tmp_path / "out")
    edited = subtitle.read_text().replace("number 17 of the film.", "diecisiete.")
    assert edited != subtitle.read_text()
    subtitle.write_text(edited)

    _, report = jobs.dub(jobs.request_of(spec), spec["options"])

    assert report["calls"] == {"speak.called": 1, "speak.kept": LINES - 1, "translate.kept": LINES}
    assert "diecisiete." in subtitle.read_text()
    assert results(tmp_path / "out")["film.es.m4a"] != before["film.es.m4a"]

    _, again = jobs.dub(jobs.request_of(spec), spec["options"])
    assert again["calls"] == {"mix.kept": 1, "package.kept": 1, "speak.kept": LINES, "translate.kept": LINES}


def test_an_edited_subtitle_given_as_a_translation_speaks_only_what_changed(tmp_path: Path) -> None:
    source, transcript = film(tmp_path)
    spec = spec_of(tmp_path, tmp_path / "out", source, transcript)
    result, _ = jobs.dub(jobs.request_of(spec), spec["options"])
    mine = tmp_path / "mine.srt"
    mine.write_text(result.files["es"][2].read_text().replace("number 17 of", "diecisiete de"))

    _, report = jobs.dub(
        jobs.request_of(spec | {"transcript": None, "translations": {"es": str(mine)}}), spec["options"]
    )

    assert report["calls"] == {"speak.called": 1, "speak.kept": LINES - 1}


def test_a_subtitle_with_other_cues_than_the_job_wrote_is_refused_and_kept(tmp_path: Path) -> None:
    source, transcript = film(tmp_path)
    spec = spec_of(tmp_path, tmp_path / "out", source, transcript)
    result, _ = jobs.dub(jobs.request_of(spec), spec["options"])
    subtitle = result.files["es"][2]
    fewer = subtitle.read_text().split("\n\n", 1)[1]
    subtitle.write_text(fewer)

    with pytest.raises(SubtitleError, match="--translation es=FILE"):
        jobs.dub(jobs.request_of(spec), spec["options"])

    assert subtitle.read_text() == fewer


def test_a_second_language_recognises_nothing_again(tmp_path: Path, require_program: Any) -> None:
    require_program("flite")
    source = jobs.spoken_wav(
        tmp_path / "film.wav", "Good morning. This is a short film about two languages. It ends here."
    )
    spec = {"source": str(source), "output_dir": str(tmp_path / "out"), "targets": ["es"], "engines": jobs.FAKES}
    _, first = jobs.dub(jobs.request_of(spec))

    _, second = jobs.dub(jobs.request_of(spec | {"targets": ["es", "ca"]}))

    assert first["calls"]["transcribe.called"] >= 1
    assert "transcribe.called" not in second["calls"]
    assert second["calls"]["speak.called"] == first["calls"]["speak.called"]
