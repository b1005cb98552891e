"""Named places where a test may stop or kill the program, to prove that what follows a crash mends it.

Nothing is armed in production: `reach` is then one look into an empty dictionary.
"""

from __future__ import annotations

from collections.abc import Callable

POINTS = (
    "submit.stored",
    "submit.pushed",
    "claim.leased",
    "take.stored",
    "launch.done",
    "renew.index",
    "renew.stored",
    "finish.stored",
    "finish.released",
    "retry.stored",
    "retry.requeued",
    "reclaim.stored",
    "reclaim.requeued",
    "rebuild.wiped",
    "rebuild.loaded",
    "switch.stored",
)

_armed: dict[str, Callable[[], None]] = {}


def arm(point: str, action: Callable[[], None]) -> None:
    """Run `action` when the program reaches `point`."""
    if point not in POINTS:
        raise ValueError(f"there is no failpoint {point}")
    _armed[point] = action


def disarm() -> None:
    """Forget all actions."""
    _armed.clear()


def reach(point: str) -> None:
    """Called by the program at `point`."""
    action = _armed.get(point)
    if action is not None:
        action()
