"""What engines with weights share when they are loaded: options that are checked, and a version that names the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dubbing.engines.weights import RECORD
from dubbing.errors import UsageError

Options = TypeVar("Options", bound=BaseModel)


def read_options(model: type[Options], options: Mapping[str, Any], engine: str) -> Options:
    """The options of an engine, checked. Raises UsageError that names the option and what the engine knows."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        known = ", ".join(sorted(model.model_fields))
        if first["type"] == "extra_forbidden":
            detail = f"The engine {engine} has no option {name}; it knows: {known}"
        else:
            detail = f"The option {name} of the engine {engine} is {first['input']!r}: {first['msg']}"
        raise UsageError(detail=detail) from error


def weights_version(place: Path, files: Sequence[str]) -> str:
    """12 hex digits that change when any of the files does: from the record of what was fetched, else from the files."""
    record = place / RECORD
    known: dict[str, Any] = json.loads(record.read_text())["files"] if record.is_file() else {}
    digest = hashlib.sha256()
    for name in files:
        told = known.get(name, {}).get("sha256")
        digest.update(str(told).encode() if told else _content(place / name))
    return digest.hexdigest()[:12]


def _content(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()
