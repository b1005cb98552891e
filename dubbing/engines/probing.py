"""What probes of engines share: the smallest thing to ask a model, and what its answer must be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dubbing.errors import DubbingError, EngineBrokenError
from dubbing.types import Int16Audio

TONE_HZ = 150.0
"""Within the pitch of voices."""
TONE_LEVEL = 3_000


@contextmanager
def probing(name: str) -> Iterator[None]:
    """Whatever keeps the engine `name` from answering a probe leaves as EngineBrokenError."""
    try:
        yield
    except EngineBrokenError:
        raise
    except DubbingError as error:
        detail = str(error.facts.get("detail", error.message))
        raise EngineBrokenError(name=name, detail=detail) from error
    # What numeric libraries raise: torch and CTranslate2 for CUDA and memory, numpy for shapes.
    except (RuntimeError, ValueError, ArithmeticError, LookupError, OSError, MemoryError) as error:
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EngineBrokenError(name=name, detail=detail) from error


def require_numbers(name: str, what: str, values: Any) -> None:
    """`values` are what a model computed: numbers, at least one. Raises EngineBrokenError otherwise."""
    found = np.asarray(values, np.float64)
    if found.size == 0 or not np.isfinite(found).all():
        raise EngineBrokenError(name=name, detail=f"{what} hold {'no' if found.size == 0 else 'what is no'} number")


def tone(seconds: float, rate: int) -> Int16Audio:
    """A buzz with overtones, shape (samples,): something to hear that is nobody's voice."""
    phase = np.cumsum(np.full(round(seconds * rate), 2 * np.pi * TONE_HZ / rate))
    return np.asarray(TONE_LEVEL * sum(np.sin(n * phase) / n for n in range(1, 8)), np.float64).astype(np.int16)
