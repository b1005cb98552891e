"""Model weights: which files an engine needs, pinned by revision and hash, and where they lie on this machine.

A model's files lie in `<models folder>/<name>/`, as `dub models fetch` put them there; `files.json` beside them says what
was fetched. Engines load from there alone: nothing is downloaded behind a user's back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dubbing import config
from dubbing.errors import WeightsDamagedError, WeightsMissingError

RECORD = "files.json"
"""{"repo", "revision", "files": {name: {"size", "sha256"}}}: a `Record`, written last, when every file is complete."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one engine."""

    name: str
    """Folder name, and what `dub models fetch NAME` takes; `faster-whisper-small`, say."""
    repo: str
    """Repository on the model hub; `Systran/faster-whisper-small`, say."""
    files: tuple[str, ...]
    """Names of the files that are needed."""
    licence: str
    """SPDX id or name of the weights' licence."""
    commercial_use: bool
    """False when the licence of weights or outputs forbids it."""
    size_mb: int
    """About how much is fetched, for the user."""
    revision: str = ""
    """Commit of the repository, 40 hex digits; empty: the newest, which the record then pins."""


@cache
def home() -> Path:
    """Folder of all models."""
    return config.load().models_dir.expanduser()


def folder(weights: Weights, options: Mapping[str, Any]) -> Path:
    """Where the weights lie: the option `path` of the serve config, else the model's own folder."""
    return Path(str(options["path"])) if options.get("path") else home() / weights.name


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the weights in a folder cannot be used."""

    detail: str
    """As the end of a sentence."""
    damaged: bool
    """True when files are there but not as they were fetched; False when something was never fetched."""


def examine(weights: Weights, place: Path) -> Problem | None:
    """What is wrong with the weights in `place`; None when every file is there and has its size.

    Hashes are compared by `dub models verify`; a size is looked up in microseconds.
    """
    for name in weights.files:
        if not (place / name).is_file():
            return Problem(f"{place} has no {name}", damaged=False)
    try:
        record = read_record(place)
    except ValueError:
        return Problem(f"{place / RECORD} cannot be read", damaged=True)
    for name in weights.files:
        size, known = (place / name).stat().st_size, record.files.get(name)
        if known is not None and size != known.size:
            return Problem(f"{place / name} has {size} bytes, not {known.size}", damaged=True)
    return None


def problem(weights: Weights, place: Path) -> str:
    """Why the weights in `place` cannot be used, as the end of a sentence; empty when every file has its size."""
    found = examine(weights, place)
    return found.detail if found else ""


def require(weights: Weights, options: Mapping[str, Any], *, kind: str, engine: str) -> Path:
    """The folder of complete weights. Raises WeightsMissingError or WeightsDamagedError."""
    place = folder(weights, options)
    found = examine(weights, place)
    if found is None:
        return place
    error = WeightsDamagedError if found.damaged else WeightsMissingError
    raise error(kind=kind, name=engine, detail=found.detail, install=f"Run: dub models fetch {weights.name}")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What one file was when it was fetched."""

    size: int
    """Bytes."""
    sha256: str
    """64 hex digits."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was fetched: the content of `files.json`."""

    repo: str = ""
    """Repository on the hub, or the folder it was imported from; empty when there is no record."""
    revision: str = ""
    """Commit of the repository, 40 hex digits; empty when it is not known."""
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    """By name."""


def read_record(place: Path) -> Record:
    """The record in a model's folder; an empty one when there is none. Raises ValueError when it is not a record."""
    path = place / RECORD
    if not path.is_file():
        return Record()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): FileRecord(int(f["size"]), str(f["sha256"])) for name, f in found["files"].items()}
        return Record(str(found["repo"]), str(found["revision"]), files)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a record of weights") from error


def version(place: Path) -> str:
    """A short name of exactly these weights, for `EngineInfo.version`: it changes when any recorded file does.

    Without a record, as in a folder named by the option `path`, sizes and times of the files stand for their content.
    """
    record = read_record(place)
    facts = sorted((name, file.sha256) for name, file in record.files.items())
    if not facts:
        seen = ((path, path.stat()) for path in sorted(place.rglob("*")) if path.is_file())
        facts = [(str(path.relative_to(place)), f"{told.st_size} {told.st_mtime_ns}") for path, told in seen]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
