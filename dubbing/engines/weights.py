"""Model weights: which files an engine needs, pinned by revision and hash, and where they lie on this machine.

A model's files lie in `<models folder>/<name>/`, as `dub models fetch` put them there; `files.json` beside them says what
was fetched. Engines load from there alone: nothing is downloaded behind a user's back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dubbing import config
from dubbing.errors import WeightsDamagedError, WeightsMissingError

RECORD = "files.json"
"""{"repo", "revision", "files": {name: {"size", "sha256"}}}, written last, when every file is complete."""


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


def problem(weights: Weights, place: Path) -> str:
    """Why the weights in `place` cannot be used, as the end of a sentence; empty when every file has its size.

    Hashes are compared by `dub models verify`; a size is looked up in microseconds.
    """
    missing = [name for name in weights.files if not (place / name).is_file()]
    if missing:
        return f"{place} has no {missing[0]}"
    record = place / RECORD
    known = json.loads(record.read_text())["files"] if record.is_file() else {}
    for name in weights.files:
        size = (place / name).stat().st_size
        if name in known and size != known[name]["size"]:
            return f"{place / name} has {size} bytes, not {known[name]['size']}"
    return ""


def require(weights: Weights, options: Mapping[str, Any], *, kind: str, engine: str) -> Path:
    """The folder of complete weights. Raises WeightsMissingError or WeightsDamagedError."""
    place = folder(weights, options)
    detail = problem(weights, place)
    if detail:
        error = WeightsDamagedError if "bytes" in detail else WeightsMissingError
        raise error(kind=kind, name=engine, detail=detail, install=f"Run: dub models fetch {weights.name}")
    return place


def version(place: Path) -> str:
    """A short name of exactly these weights, for `EngineInfo.version`: it changes when any recorded file does.

    Without a record, as in a folder named by the option `path`, sizes of the files stand for their content.
    """
    record = place / RECORD
    if record.is_file():
        facts = sorted((name, file["sha256"]) for name, file in json.loads(record.read_text())["files"].items())
    else:
        facts = sorted((file.name, str(file.stat().st_size)) for file in place.iterdir() if file.is_file())
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
