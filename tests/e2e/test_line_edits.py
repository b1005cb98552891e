"""Lines changed by hand: the next run speaks those lines and no others, and a locked line stays as it is."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dubbing import line_edits, subtitles
from dubbing.errors import NotFoundError
from dubbing.line_edits import Change, LineRow
from dubbing.line_errors import EditsFileError
from tests.e2e import jobs

LINES = 10


@dataclass(frozen=True)
class Dub:
    """A dubbed film that can be dubbed again."""

    spec: dict[str, Any]
    folder: Path

    def again(self, **options: Any) -> dict[str, Any]:
        """Run it once more, with these options of the voice; the report."""
        given = {"fake-speak": {"calls_log": str(self.folder.parent / "spoken.log")} | options}
        return jobs.dub(jobs.request_of(self.spec), given)[1]

    def change(self, number: int, **fields: Any) -> None:
        line_edits.change(self.folder, "es", {number: Change(**fields)})

    def row(self, number: int) -> LineRow:
        return line_edits.read_lines(self.folder, "es").row(number)

    def cue(self, number: int) -> str:
        return subtitles.read_subtitles(self.subtitle)[number - 1].text

    @property
    def subtitle(self) -> Path:
        return self.folder / "film.es.srt"

    def spoken(self) -> list[str]:
        """What the voice was asked to say since this was last asked."""
        log = self.folder.parent / "spoken.log"
        rows = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [json.loads(row)["text"] for row in rows]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    jobs.programme(folder / "film.wav", LINES * 2.5)
    who = ["Ana", "Ben"]
    cues = [(i * 2500, i * 2500 + 1800, f"<v {who[i % 2]}>This is sentence {i} of it.") for i in range(LINES)]
    (folder / "words.vtt").write_text("WEBVTT\n\n" + jobs.srt(cues).replace(",", "."))
    Dub(spec_of(folder), folder / "out" / "film").again()
    return folder


def spec_of(folder: Path) -> dict[str, Any]:
    return {
        "source": str(folder / "film.wav"),
        "output_dir": str(folder / "out"),
        "transcript": str(folder / "words.vtt"),
        "targets": ["es"],
        "engines": jobs.FAKES,
    }


@pytest.fixture
def dub(original: Path, tmp_path: Path) -> Dub:
    """The film, dubbed once, two people speaking in turn with a voice each."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    made = Dub(spec_of(tmp_path), tmp_path / "out" / "film")
    assert [made.row(n).voice for n in (1, 2, 3)] == ["tone-1", "tone-2", "tone-1"]
    made.spoken()
    return made


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": "Algo muy distinto."}, "Algo muy distinto."),
        ({"voice": "tone-2"}, "[es] This is sentence 6 of it."),
        ({"speaker": "Ben"}, "[es] This is sentence 6 of it."),
        ({"redo": True}, "[es] This is sentence 6 of it."),
        ({"end_ms": 15_400}, "[es] This is sentence 6 of it."),
    ],
    ids=["text", "voice", "speaker", "another reading", "a slot that needs another pace"],
)
def test_each_kind_of_edit_speaks_one_line_again_and_only_once(dub: Dub, fields: dict[str, Any], said: str) -> None:
    if "end_ms" in fields:
        dub.change(8, start_ms=15_500)  # so that the line before it has nothing to borrow
        dub.again()
        dub.spoken()
    dub.change(7, **fields)

    report = dub.again()
    again = dub.again()

    assert set(dub.spoken()) == {said}
    assert report["calls"]["speak.kept"] == LINES - 1
    assert report["calls"]["translate.kept"] == LINES
    assert again["calls"] == {"mix.kept": 1, "package.kept": 1, "speak.kept": LINES, "translate.kept": LINES}
    assert dub.row(7).text == said == dub.cue(7)
    assert dub.row(7).edit == ({"redo": 1} if "redo" in fields else fields)
    assert dub.row(7).voice == ("tone-2" if {"voice", "speaker"} & set(fields) else "tone-1")


def test_a_line_that_is_moved_starts_there_and_keeps_its_clip(dub: Dub) -> None:
    clip = dub.row(7).clip
    dub.change(7, start_ms=15_300, end_ms=17_100)

    report = dub.again()

    assert dub.spoken() == []
    assert "mix.kept" not in report["calls"]
    row = dub.row(7)
    assert (row.start_ms, row.end_ms, row.dub_start_ms, row.clip) == (15_300, 17_100, 15_300, clip)
    assert subtitles.read_subtitles(dub.subtitle)[6].start_ms == 15_300


def test_a_line_given_to_somebody_new_leaves_the_voices_of_the_others(dub: Dub) -> None:
    before = [row.voice for row in line_edits.read_lines(dub.folder, "es").lines]
    line_edits.change(dub.folder, "es", {1: Change(speaker="Ben"), 2: Change(speaker="Cleo")})

    dub.again()

    after = [row.voice for row in line_edits.read_lines(dub.folder, "es").lines]
    assert after[:2] == ["tone-2", "tone-1"] and after[2:] == before[2:]
    assert len(dub.spoken()) == 2


def test_an_edit_that_is_taken_back_leaves_the_line_as_it_was(dub: Dub) -> None:
    before = dub.row(7)
    dub.change(7, text="Algo.", voice="tone-2")
    dub.again()
    dub.change(7, text=None, voice=None)
    dub.spoken()

    report = dub.again()

    assert dub.spoken() == [] and report["calls"]["speak.kept"] == LINES
    assert dub.row(7) == before and dub.cue(7) == before.text


def test_locked_lines_survive_a_new_version_of_the_engine(dub: Dub) -> None:
    line_edits.change(dub.folder, "es", {3: Change(locked=True), 4: Change(text="Mi frase.", locked=True)})
    dub.again()
    assert dub.spoken() == ["Mi frase."]
    kept = {n: dub.row(n).clip for n in range(1, LINES + 1)}

    report = dub.again(seed_version="2")

    assert report["calls"]["speak.kept"] == 2 and len(dub.spoken()) == LINES - 2
    assert {n for n in kept if dub.row(n).clip == kept[n]} == {3, 4}
    dub.change(3, locked=False)
    dub.again(seed_version="2")
    assert len(dub.spoken()) == 1 and dub.row(3).clip != kept[3]


def test_a_locked_line_keeps_its_words_when_the_subtitle_is_edited(dub: Dub) -> None:
    dub.change(3, locked=True)
    before = dub.row(3)
    dub.subtitle.write_text(dub.subtitle.read_text().replace("sentence 2 of", "nada de"))

    report = dub.again()

    assert dub.spoken() == [] and dub.row(3) == before and dub.cue(3) == before.text
    assert (
        "line 3 was changed in film.es.srt, but it is locked in edits.es.json" in (dub.folder / "job.log").read_text()
    )
    assert report["calls"]["speak.kept"] == LINES


def test_words_in_the_edits_file_count_before_those_in_the_subtitle(dub: Dub) -> None:
    dub.change(3, text="De la lista.")
    edited = dub.subtitle.read_text().replace("sentence 2 of", "del subtítulo de").replace("sentence 4 of", "otra de")
    dub.subtitle.write_text(edited)

    dub.again()

    assert sorted(dub.spoken()) == ["De la lista.", "[es] This is otra de it."]
    assert (dub.cue(3), dub.cue(5)) == ("De la lista.", "[es] This is otra de it.")
    assert (
        "line 3 was changed in film.es.srt, but it has other words there, which count"
        in (dub.folder / "job.log").read_text()
    )


def test_an_edit_of_a_line_that_says_something_else_now_is_named_and_not_applied(dub: Dub) -> None:
    line_edits.change(dub.folder, "es", {3: Change(text="Algo."), 5: Change(text="Más.")})
    words = Path(dub.spec["transcript"])
    words.write_text(words.read_text().replace("sentence 2 of", "phrase 2 of"))

    report = dub.again()

    assert set(dub.spoken()) == {"Más.", "[es] This is phrase 2 of it."}
    assert any(
        "1 of 2 edits were made for lines that say something else now" in w and w.endswith(": 3")
        for w in report["warnings"]
    )


def test_a_damaged_edits_file_ends_the_run_before_anything_is_spoken(dub: Dub) -> None:
    (dub.folder / "edits.es.json").write_text('{"schema": 1, "lines": {"3": {"source": "?"}}}')

    with pytest.raises(EditsFileError, match=r"edits\.es\.json cannot be used: lines\.3\.source"):
        dub.again()

    assert dub.spoken() == []


def test_the_source_is_drawn_from_ten_values_a_second(dub: Dub) -> None:
    made = json.loads((dub.folder / "peaks.json").read_text())

    assert (made["per_second"], made["full"]) == (10, 100)
    assert abs(len(made["peaks"]) - LINES * 25) <= 1
    assert 5 < max(made["peaks"]) <= 100


def test_there_is_nothing_to_change_in_a_language_that_was_not_dubbed(dub: Dub) -> None:
    with pytest.raises(NotFoundError, match="There is no dub into fr here"):
        line_edits.change(dub.folder, "fr", {1: Change(text="Bonjour.")})
