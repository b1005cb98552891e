"""What lies in a job's folder. A request names a file; it is looked up in what reading the folder found, so that no
part of an address ever becomes part of a path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from dubbing.artifacts import Names
from dubbing.errors import NotFoundError
from dubbing.jobs import Job
from dubbing.web.report import Report

Condition = Literal["done", "done_with_warnings", "unfinished", "unreadable"]

TYPES = {
    ".mp4": "video/mp4",
    ".m4a": "audio/mp4",
    ".mkv": "video/x-matroska",
    ".mka": "audio/x-matroska",
    ".srt": "application/x-subrip; charset=utf-8",
    ".vtt": "text/vtt; charset=utf-8",
    ".json": "application/json",
    ".log": "text/plain; charset=utf-8",
}
"""Everything a job leaves, in the order it is listed, and how it is served."""
_ORDER = list(TYPES)

_TAG = r"\.(?P<{}>[A-Za-z]{{2,3}}(?:-[A-Za-z0-9]{{2,8}})*)\."
_OF_A_LANGUAGE = (
    "(?:" + _TAG.format("tag") + r"(?:mp4|m4a|srt|vtt)"
    r"|\.preview" + _TAG.format("preview_tag") + "(?:mp4|m4a))"
    "|(?:lines|edits)" + _TAG.format("lines_tag") + "json"
)


@dataclass(frozen=True, slots=True)
class File:
    """A result of a job."""

    name: str
    path: Path
    size: int
    """Bytes."""
    changed_ms: int
    """When it was written, since 1970."""
    tag: str | None
    """Language it belongs to, BCP-47; None for files of the whole job."""

    @property
    def content_type(self) -> str:
        """Media type, with its character set for text."""
        return TYPES[self.path.suffix]

    @property
    def is_media(self) -> bool:
        """Whether it plays."""
        return self.content_type.startswith(("audio/", "video/"))

    @property
    def audio_only(self) -> bool:
        """Whether it plays without pictures."""
        return self.content_type.startswith("audio/")


@dataclass(frozen=True)
class Results:
    """One job's folder, as it was when it was read."""

    name: str
    """Of the folder."""
    changed: datetime
    """When the report was written, local time; of an unfinished job, when it was begun."""
    state: Condition
    report: Report | None
    files: dict[str, File]
    """By name: films first, then subtitles, then what a job tells of itself."""
    previews: dict[str, File]
    """By language: the first minutes of a dub, while the rest of it is made."""

    @cached_property
    def targets(self) -> list[str]:
        """Languages there is a dub in: those of the latest run, then those of earlier ones."""
        latest = self.report.targets if self.report else ()
        played = [file.tag for file in self.files.values() if file.tag and file.path.suffix in (".mp4", ".m4a")]
        return list(dict.fromkeys((*latest, *played)))

    def file(self, name: str) -> File:
        """A result by its name. Raises NotFoundError for everything that is not one, whether it exists or not."""
        shown = self.files | {file.name: file for file in self.previews.values()}
        if name not in shown:
            raise NotFoundError(what=f"file named {name}")
        return shown[name]

    def of_language(self, tag: str, *suffixes: str) -> File | None:
        """The first file of a language with one of these suffixes."""
        found = {file.path.suffix: file for file in self.files.values() if file.tag == tag}
        return next((found[suffix] for suffix in suffixes if suffix in found), None)


def original_head(film: File) -> Path | None:
    """What stands in for the beginning of a film to play it with the original's sound; None where that cannot be."""
    if film.tag is None or film.path.suffix not in (".mp4", ".m4a"):
        return None
    head = Names(film.path.parent).original_head(film.tag)
    return head if head.is_file() and not head.is_symlink() else None


def folder_of(job: Job) -> Path | None:
    """A job's folder, as its result says or, before there is one, the run that is under way or was the last."""
    if report := (job.result or {}).get("report"):
        return Path(str(report)).parent
    folder = (job.progress or {}).get("folder")
    return Path(str(folder)) if folder else None


def read(folder: Path) -> Results:
    """What a job has left in its folder so far."""
    found = sorted(_files(folder), key=_rank)
    previews = {file.tag: file for file in found if file.tag and file.name.startswith(f"{folder.name}.preview.")}
    files = {file.name: file for file in found if file not in previews.values()}
    written = files.get(Names(folder).report.name)
    if written is None:
        return Results(folder.name, _changed(folder), "unfinished", None, files, previews)
    try:
        report = Report.model_validate_json(written.path.read_bytes())
    except ValidationError:
        return Results(folder.name, _changed(written.path), "unreadable", None, files, previews)
    return Results(folder.name, _changed(written.path), report.state, report, files, previews)


def kept_bytes(folder: Path) -> int:
    """Bytes of the results in a job's folder."""
    return sum(file.size for file in _files(folder))


def _rank(file: File) -> tuple[int, str]:
    return _ORDER.index(file.path.suffix), file.name


def _files(folder: Path) -> Iterator[File]:
    if not folder.is_dir():
        return
    names = Names(folder)
    told = (names.report, names.timeline, names.peaks, names.loudness)
    whole = {path.name for path in (*told, names.collection(False), names.collection(True))}
    whole.add("job.log")
    of_a_language = re.compile(re.escape(folder.name) + _OF_A_LANGUAGE)
    with os.scandir(folder) as entries:
        for entry in entries:
            own = of_a_language.fullmatch(entry.name)
            if (entry.name in whole or own) and entry.is_file(follow_symlinks=False):
                found = entry.stat(follow_symlinks=False)
                tag = next(filter(None, own.groups())) if own else None
                yield File(entry.name, Path(entry.path), found.st_size, found.st_mtime_ns // 1_000_000, tag)


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime if path.exists() else 0).astimezone()
