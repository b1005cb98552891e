"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from dubbing.errors import DiskFullError


@contextlib.contextmanager
def partial(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, same suffix; a clean exit moves it into place, any other removes it."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105 - says "atomic" where Path.replace does not
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(folder: Path, need_bytes: int) -> Iterator[None]:
    """Turn "no space left", from Python or from ffmpeg, into a DiskFullError that names the folder and the need."""
    try:
        yield
    except (OSError, DiskFullError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOSPC:
            raise
        free = shutil.disk_usage(folder).free
        raise DiskFullError(folder=str(folder), free_mb=free >> 20, need_mb=max(need_bytes >> 20, 1)) from error
