"""A dispatcher's sign of life: a file in the state folder, written anew while it runs, whatever queue it uses."""

from __future__ import annotations

import os
import time
from pathlib import Path

NAME = "dispatcher.alive"
FRESH_S = 30.0
"""Written every second or so; a busy machine and the clocks of two nodes may add some."""


def beat(state: Path) -> None:
    """Say that a dispatcher runs. Raises OSError."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state / NAME
    path.touch(mode=0o600)
    os.utime(path)


def age_s(state: Path) -> float | None:
    """Seconds since a dispatcher last said so; None when none ever did."""
    try:
        return max(0.0, time.time() - (state / NAME).stat().st_mtime)
    except OSError:
        return None


def stop(state: Path) -> None:
    """Say that the dispatcher ended in order."""
    (state / NAME).unlink(missing_ok=True)
