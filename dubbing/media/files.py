"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def partial(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, same suffix; a clean exit moves it into place, any other removes it."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105 - says "atomic" where Path.replace does not
    finally:
        temporary.unlink(missing_ok=True)
