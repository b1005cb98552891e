"""Whether what concurrent clients saw can have happened one after the other (Wing and Gong's search, with memory).

A job is a small register machine, and every operation that names the job is a step of it. A history is fine when there
is an order of its operations that keeps real time (what returned before another was called comes first) and in which
every answer is the one the machine gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

GONE = ("gone", 0)


@dataclass(frozen=True)
class Operation:
    """What a client asked of one job, what it was told, and when (any growing clock)."""

    name: str
    token: int
    """put: the ticket's epoch; claim: the token that was given; others: the token that was shown."""
    answer: Any
    called: float
    returned: float


State = tuple[str, int]
"""("gone", 0), ("waiting", epoch) or ("leased", token)."""


def after(state: State, name: str, token: int) -> tuple[Any, State]:
    """The answer a job in this state gives, and its next state."""
    place, number = state
    if name == "put":
        if place == "leased":
            return "leased", state
        return ("stale", state) if place == "waiting" and number > token else ("ok", ("waiting", token))
    if name == "claim":
        return (True, ("leased", token)) if state == ("waiting", token - 1) else (False, state)
    held = state == ("leased", token)
    if name == "extend":
        return (1 if held else 0 if place == "leased" else -1), state
    if not held:
        return False, state
    return True, (GONE if name == "release" else ("waiting", token))


def is_linearizable(history: Sequence[Operation], start: State = GONE) -> bool:
    """Search for an order; an operation may come next if it was called before any other open one returned."""
    operations = sorted(history, key=lambda operation: operation.called)
    everything = (1 << len(operations)) - 1
    todo, seen = [(0, start)], {(0, start)}
    while todo:
        done, state = todo.pop()
        if done == everything:
            return True
        first_return = float("inf")
        for n in range(_first_open(done), len(operations)):
            operation = operations[n]
            if operation.called > first_return:
                break
            if done >> n & 1:
                continue
            first_return = min(first_return, operation.returned)
            answer, new = after(state, operation.name, operation.token)
            step = (done | 1 << n, new)
            if answer == operation.answer and step not in seen:
                seen.add(step)
                todo.append(step)
    return False


def _first_open(done: int) -> int:
    """Number of the lowest bit that is 0."""
    return ((done + 1) & ~done).bit_length() - 1
