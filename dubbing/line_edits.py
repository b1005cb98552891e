"""Lines changed by hand, in `edits.TAG.json` beside a job's results: written by pages and commands, read by the next run.

An edit names the line it was made for by its number and by a hash of what the line says in the source, so that it never
lands on another line when the script has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dubbing.artifacts import Names, fingerprint, write_atomically
from dubbing.errors import NotFoundError
from dubbing.line_errors import EditsFileError, LineEditError, LineLockedError, StaleEditError

Model = TypeVar("Model", bound=BaseModel)
NO_EDITS = "none"
"""Version of an edits file that does not exist."""
LONGEST_TEXT = 2000
MOST_READINGS = 999
LATEST_MS = 10 * 24 * 3_600_000
SHORTEST_MS = 100
"""A slot shorter than this holds no word."""
MOST_BYTES = 16 << 20


def _plain(text: str) -> str:
    """One line of text, without what cannot be seen."""
    cleaned = " ".join(text.split())
    if not cleaned or not cleaned.isprintable():
        raise ValueError("it must hold something to read, and only what can be read")
    return cleaned


Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_plain)]
Label = Annotated[str, Field(max_length=100), AfterValidator(_plain)]
Milliseconds = Annotated[int, Field(ge=0, le=LATEST_MS)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LineEdit(_Part):
    """What the user wants of one line; None leaves a thing as the job made it."""

    source: str = Field(pattern=r"^[0-9a-f]{32}$")
    """`source_hash` of the line it was made for."""
    text: Text | None = None
    """In the target language."""
    voice: Label | None = None
    """Id of a voice of the engine."""
    speaker: Label | None = None
    """Label of the one who speaks; the line gets that speaker's voice."""
    start_ms: Milliseconds | None = None
    end_ms: Milliseconds | None = None
    locked: bool = False
    """Keeps its words and its spoken clip, whatever engines, translations or subtitles change."""
    redo: int = Field(default=0, ge=0, le=MOST_READINGS)
    """Which reading: each number is spoken anew once."""

    @property
    def wanted(self) -> dict[str, Any]:
        """What it asks the next run to make: everything but the lock, as JSON data."""
        return self.model_dump(mode="json", exclude={"source", "locked"}, exclude_defaults=True)


class EditsFile(_Part):
    """A whole edits file."""

    version: Literal[1] = Field(default=1, alias="schema")
    lines: dict[int, LineEdit] = {}
    """By line number, from 1."""


class Change(_Part):
    """A change of one line: what is not given stays, None takes an edit back."""

    text: Text | None = None
    voice: Label | None = None
    speaker: Label | None = None
    start_ms: Milliseconds | None = None
    end_ms: Milliseconds | None = None
    locked: bool = False
    redo: bool = False
    """True asks for another reading, False goes back to the first."""


class OfferedVoice(BaseModel):
    """A voice that lines may be given."""

    id: str
    name: str = ""


class LineRow(BaseModel):
    """One line as the latest run left it in `lines.TAG.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    line: int
    """From 1."""
    start_ms: int
    end_ms: int
    speaker: str
    source: str
    text: str
    voice: str
    problems: tuple[str, ...] = ()
    dub_start_ms: int | None = None
    dub_end_ms: int | None = None
    rate: float | None = None
    clip: str | None = None
    """Its sound, relative to the job's folder; None when the line is silent."""
    edit: dict[str, Any] = {}
    """What the edit it was made with asked for: `LineEdit.wanted`."""

    def is_changed_by(self, edit: LineEdit | None) -> bool:
        """Whether the next run will look at this line anew."""
        return (edit.wanted if edit else {}) != self.edit


class LinesFile(BaseModel):
    """All lines of a dub."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = Field(alias="schema")
    lines: tuple[LineRow, ...]
    voices: tuple[OfferedVoice, ...] = ()
    """What the engine offers for the language."""

    def row(self, number: int) -> LineRow:
        """A line by its number. Raises NotFoundError."""
        if not 1 <= number <= len(self.lines):
            raise NotFoundError(what=f"line {number}")
        return self.lines[number - 1]

    @property
    def voice_ids(self) -> list[str]:
        """Voices to choose from: those offered, then others that lines have."""
        return list(dict.fromkeys([*(voice.id for voice in self.voices), *(row.voice for row in self.lines)]))

    @property
    def speakers(self) -> list[str]:
        """Labels in order of appearance."""
        return list(dict.fromkeys(row.speaker for row in self.lines))


def source_hash(text: str) -> str:
    """What an edit remembers of the line it was made for."""
    return fingerprint(source=text)


def read_lines(folder: Path, tag: str) -> LinesFile:
    """The lines of a dub as the latest run left them. Raises NotFoundError, EditsFileError."""
    path = Names(folder).lines(tag)
    if not path.is_file():
        raise NotFoundError(what=f"dub into {tag}")
    found = _parsed(LinesFile, path)
    if [row.line for row in found.lines] != list(range(1, len(found.lines) + 1)):
        raise EditsFileError(name=path.name, detail="its lines are not numbered one by one")
    return found


def read_edits(folder: Path, tag: str) -> tuple[EditsFile, str]:
    """The edits of a dub, and their version. Raises EditsFileError."""
    path = Names(folder).edits(tag)
    if not path.is_file():
        return EditsFile(), NO_EDITS
    return _parsed(EditsFile, path), hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _parsed(kind: type[Model], path: Path) -> Model:
    if path.stat().st_size > MOST_BYTES:
        raise EditsFileError(name=path.name, detail="it is too large")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise EditsFileError(name=path.name, detail=f"{where}: {first['msg']}") from error


def applying(lines: LinesFile, edits: EditsFile) -> dict[int, LineEdit]:
    """The edits that are about the lines as they are now, by number."""
    return {
        number: edit
        for number, edit in edits.lines.items()
        if 1 <= number <= len(lines.lines) and edit.source == source_hash(lines.row(number).source)
    }


def change(folder: Path, tag: str, changes: Mapping[int, Change], *, version: str | None = None) -> str:
    """Save changes of lines, all or none; answers the new version.

    `version` is that of the edits the changes were made upon. Raises StaleEditError when somebody saved meanwhile,
    NotFoundError for lines there are none of, LineEditError, LineLockedError, EditsFileError.
    """
    with _alone(folder):
        edits, now = read_edits(folder, tag)
        if version is not None and version != now:
            raise StaleEditError
        lines = read_lines(folder, tag)
        kept = applying(lines, edits)
        for number, wanted in changes.items():
            row = lines.row(number)
            kept[number] = _changed(row, kept.get(number) or LineEdit(source=source_hash(row.source)), wanted)
        for number in changes:
            _check(lines, kept, number)
        fresh = EditsFile(lines={n: edit for n, edit in sorted(kept.items()) if edit.wanted or edit.locked})
        content = fresh.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"schema": fresh.version}
        write_atomically(Names(folder).edits(tag), json.dumps(content, ensure_ascii=False, indent=1))
        return read_edits(folder, tag)[1]


def _changed(row: LineRow, edit: LineEdit, wanted: Change) -> LineEdit:
    fields = {name: getattr(wanted, name) for name in wanted.model_fields_set - {"redo"}}
    if "redo" in wanted.model_fields_set:
        fields["redo"] = max(edit.redo, row.edit.get("redo", 0)) + 1 if wanted.redo else 0
    fresh = edit.model_copy(update=fields)
    if edit.locked and fresh.locked and fresh != edit:
        raise LineLockedError(line=row.line)
    return fresh


def _check(lines: LinesFile, edits: Mapping[int, LineEdit], number: int) -> None:
    """Refuse what the next run could not do."""
    row, edit = lines.row(number), edits[number]
    if edit.redo > MOST_READINGS:
        raise LineEditError(line=number, detail="it was read anew too often")
    if edit.voice is not None and edit.voice not in lines.voice_ids:
        raise LineEditError(
            line=number, detail=f"there is no voice {edit.voice}; there are {', '.join(lines.voice_ids)}"
        )
    start, end = times(row, edit)
    if end - start < SHORTEST_MS:
        raise LineEditError(line=number, detail=f"it would end {end - start} ms after its start")
    around = {n: times(lines.row(n), edits.get(n))[0] for n in (number - 1, number + 1) if 1 <= n <= len(lines.lines)}
    if start < around.get(number - 1, start) or start > around.get(number + 1, start):
        raise LineEditError(line=number, detail="lines keep their order; it must start between the lines around it")


def times(row: LineRow, edit: LineEdit | None) -> tuple[int, int]:
    """Start and end of a line as the next run will have them, ms."""
    if edit is None:
        return row.start_ms, row.end_ms
    return (
        row.start_ms if edit.start_ms is None else edit.start_ms,
        row.end_ms if edit.end_ms is None else edit.end_ms,
    )


def change_of(line: int, fields: Mapping[str, Any]) -> Change:
    """A change from what somebody typed. Raises LineEditError."""
    try:
        return Change(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]).removesuffix("_ms")
        raise LineEditError(line=line, detail=f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def clip_of(folder: Path, tag: str, number: int) -> Path:
    """The sound of a line. Raises NotFoundError for a silent line, and for any path that no run would have written."""
    row = read_lines(folder, tag).row(number)
    speech = folder.resolve() / ".work" / tag / "speech"
    path = folder.resolve() / (row.clip or "")
    if path.suffix != ".wav" or path.parent != speech or not path.is_file() or path.resolve() != path:
        raise NotFoundError(what=f"sound of line {number}")
    return path


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer at a time, of this process or of others."""
    work = folder / ".work"
    if not work.is_dir():
        raise NotFoundError(what="dub to change")
    with (work / "edits.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def milliseconds(text: str, line: int) -> int:
    """A time such as `75`, `1:15` or `0:01:15.25`. Raises LineEditError."""
    parts: Sequence[str] = text.strip().split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or any(not 0 <= n < 1e6 for n in numbers) or any(n >= 60 for n in numbers[1:]):
        raise LineEditError(line=line, detail=f"{text[:20]!r} is not a time such as 75, 1:15 or 0:01:15.25")
    return round(sum(n * 60.0**power for power, n in enumerate(reversed(numbers))) * 1000)


def clock(ms: int) -> str:
    """`1:15.250`, or `1:01:15.250` from an hour on; `milliseconds` reads it."""
    seconds, rest = divmod(ms, 1000)
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}.{rest:03}" if hours else f"{m}:{s:02}.{rest:03}"
