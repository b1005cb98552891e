"""Edits of lines: what is kept, for which line, and what two writers may do to one another."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing import line_edits
from dubbing.artifacts import JobFolder
from dubbing.line_edits import Change, LineEdit
from dubbing.line_errors import LineEditError, StaleEditError
from tests.web.conftest import line_result, write_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = JobFolder.open(tmp_path, "talk", "talk").path
    write_lines(made, [line_result(i, f"frase {i}") for i in range(6)])
    return made


def test_an_edit_belongs_to_what_the_line_says_and_not_to_its_number(folder: Path) -> None:
    line_edits.change(folder, "es", {2: Change(text="dos"), 3: Change(text="tres")})
    lines = folder / "lines.es.json"
    lines.write_text(lines.read_text().replace('"source": "line 1"', '"source": "new"'))

    kept = line_edits.applying(line_edits.read_lines(folder, "es"), line_edits.read_edits(folder, "es")[0])
    line_edits.change(folder, "es", {4: Change(text="cuatro")})

    assert list(kept) == [3]
    assert list(line_edits.read_edits(folder, "es")[0].lines) == [3, 4]


def test_what_asks_for_nothing_is_not_kept(folder: Path) -> None:
    line_edits.change(folder, "es", {2: Change(text="dos", locked=True)})
    line_edits.change(folder, "es", {2: Change(text=None, locked=False)})

    assert json.loads((folder / "edits.es.json").read_text()) == {"schema": 1, "lines": {}} or json.loads(
        (folder / "edits.es.json").read_text()
    ) == {"schema": 1}


def test_each_request_for_another_reading_asks_for_one_that_never_was(folder: Path) -> None:
    for _ in range(2):
        line_edits.change(folder, "es", {2: Change(redo=True)})
    lines = folder / "lines.es.json"
    made = json.loads(lines.read_text())
    made["lines"][1]["edit"] = {"redo": 5}
    lines.write_text(json.dumps(made))

    line_edits.change(folder, "es", {2: Change(redo=True)})

    assert line_edits.read_edits(folder, "es")[0].lines[2].redo == 6


def test_of_writers_that_begin_with_the_same_version_one_saves(folder: Path) -> None:
    def save(number: int) -> bool:
        try:
            line_edits.change(folder, "es", {number: Change(text=f"de {number}")}, version=line_edits.NO_EDITS)
        except StaleEditError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        saved = list(pool.map(save, range(1, 7)))

    assert sum(saved) == 1
    assert list(line_edits.read_edits(folder, "es")[0].lines) == [saved.index(True) + 1]


def test_the_same_content_has_the_same_version(folder: Path) -> None:
    first = line_edits.change(folder, "es", {2: Change(text="dos")})
    other = line_edits.change(folder, "es", {2: Change(text="zwei")})
    again = line_edits.change(folder, "es", {2: Change(text="dos")})

    assert first == again != other


@given(st.integers(0, line_edits.LATEST_MS))
def test_times_can_be_typed_as_they_are_shown(ms: int) -> None:
    assert line_edits.milliseconds(line_edits.clock(ms), 1) == ms


@pytest.mark.parametrize("text", ["", "x", "1:60", "-1", "1:2:3:4", "1e9", "nan", "inf", "1:nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(LineEditError, match="is not a time"):
        line_edits.milliseconds(text, 1)


def test_a_line_is_changed_only_by_what_the_last_run_did_not_make() -> None:
    row = line_edits.LineRow.model_validate(
        {"line": 1, "start_ms": 0, "end_ms": 9, "speaker": "S1", "source": "one", "text": "uno", "voice": "es"}
        | {"edit": {"text": "uno"}}
    )
    edit = LineEdit(source=line_edits.source_hash("one"), text="uno")

    assert not row.is_changed_by(edit) and not row.is_changed_by(edit.model_copy(update={"locked": True}))
    assert row.is_changed_by(None) and row.is_changed_by(edit.model_copy(update={"redo": 1}))
