"""How the addresses of the database and of Redis, which may hold passwords, reach the dispatcher.

Whatever is handed to Ray, as an argument or as an environment, can be read in its dashboard and in the memory of its
head. So these go by a file in the state folder that only its owner can read.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from dubbing.config import Settings
from dubbing.errors import ClusterError

NAME = "dispatcher.credentials.json"


def put_down(settings: Settings) -> Settings:
    """Write the addresses to the state folder; the settings without them. Raises ClusterError."""
    path = _path(settings)
    half = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            half.unlink()
        with os.fdopen(os.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            json.dump(settings.secrets(), file)
        half.replace(path)
    except OSError as error:
        raise ClusterError(detail=f"{path} cannot be written ({error.strerror})") from error
    return settings.without_secrets()


def pick_up(settings: Settings) -> Settings:
    """The settings that `put_down` was given, on the node of the dispatcher. Raises ClusterError."""
    path = _path(settings)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        detail = f"the dispatcher's node cannot read {path}; DUBBING_STATE_DIR must be one folder for both ({error})"
        raise ClusterError(detail=detail) from error
    return settings.model_copy(update=found)


def remove(settings: Settings) -> None:
    """Leave nothing behind."""
    _path(settings).unlink(missing_ok=True)


def _path(settings: Settings) -> Path:
    return settings.state / NAME
