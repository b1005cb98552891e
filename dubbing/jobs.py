"""What a job is: its states, which may follow which, and what happens after a failure or a crash. Pure decisions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

POOLS = ("cpu", "gpu")
"""Classes of running slots; a job runs in one of them."""
BANDS = 10
"""Priority bands of the queue; band 0 is served first."""
DEFAULT_PRIORITY = 50
DEFAULT_USER_CAP = 2
"""Jobs one user may run at once, until an administrator says otherwise."""
MAX_COST = 10_000
MAX_ATTEMPTS = 5
MAX_CRASHES = 3
"""A job that took its runner down this often is put aside."""
MAX_ORPHANED = 10
"""So is a job that was running at the death of this many dispatchers; more, for most of its company is innocent."""
BACKOFF_FIRST_MS = 10_000
BACKOFF_LONGEST_MS = 600_000
JITTER = 0.2
"""Share of the back-off that varies by job, so that jobs that failed together do not return together."""

Ask = Literal["cancel", "pause"]
Role = Literal["viewer", "user", "admin"]


class State(str, Enum):
    """Where a job is."""

    PENDING = "pending"
    DELAYED = "delayed"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    WARNED = "done_with_warnings"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def shown(self) -> str:
        """The word a user reads."""
        return "queued" if self in WAITING else self.value


WAITING = frozenset({State.PENDING, State.DELAYED})
TERMINAL = frozenset({State.DONE, State.WARNED, State.FAILED, State.CANCELLED})
_START_AGAIN = frozenset({State.PENDING})
LEGAL: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.PAUSED, State.CANCELLED}),
    State.DELAYED: frozenset({State.RUNNING, State.PAUSED, State.CANCELLED}),
    State.RUNNING: frozenset(State) - {State.RUNNING},
    State.PAUSED: frozenset({State.PENDING, State.CANCELLED}),
    State.DONE: _START_AGAIN,
    State.WARNED: _START_AGAIN,
    State.FAILED: _START_AGAIN,
    State.CANCELLED: _START_AGAIN,
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks."""

    user_id: str
    role: Role = "user"

    @property
    def sees_all(self) -> bool:
        """Administrators see the jobs of everybody."""
        return self.role == "admin"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its row says; times are milliseconds since 1970 by the database's clock."""

    id: str
    """32 hexadecimal digits."""
    seq: int
    """Order of submission; travels with the job through retries."""
    user_id: str
    pool: str
    priority: int
    """0..100, higher first."""
    cost: int
    """Share of the user's turn it uses: minutes of audio, at least 1."""
    state: State
    epoch: int
    """Fencing token: grows with every start; writes of an older epoch are refused."""
    attempt: int
    """Failed runs so far; runs that never started do not count."""
    max_attempts: int
    crash_count: int
    """Runs that ended with the death of their runner."""
    orphan_count: int
    """Runs that ended with the death of their dispatcher."""
    run_at_ms: int
    """Not before this time; 0 means at once."""
    lease_until_ms: int
    owner: str
    """Dispatcher that runs it; empty when nobody does, or when a running job fell silent."""
    asked: Ask | None
    """What the user asked of a running job."""
    request: Mapping[str, Any]
    """What the user submitted, as JSON data."""
    progress: Mapping[str, Any] | None
    """Latest progress the runner reported."""
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    """code, message, hint, retryable of the last failure."""
    created_ms: int
    started_ms: int | None
    finished_ms: int | None
    shared: bool = False
    """Whether every user of the server may look at it."""

    @property
    def band(self) -> int:
        """Priority band, see `band_of`."""
        return band_of(self.priority)


def band_of(priority: int) -> int:
    """Map a priority 0..100 (higher first) to a band 0..9 (lower first): steps of ten, 90..100 is band 0."""
    if not 0 <= priority <= 100:
        raise ValueError(f"priority must be 0..100, not {priority}")
    return BANDS - 1 - min(priority // 10, BANDS - 1)


def cost_of(duration_ms: int, targets: int) -> int:
    """Cost of a job in minutes of audio to dub, at least 1, so that a film counts as many short clips."""
    return max(1, min(MAX_COST, round(duration_ms * max(targets, 1) / 60_000)))


def can_become(old: State, new: State) -> bool:
    """Whether a job in state `old` may go to state `new`."""
    return new in LEGAL[old]


def retry_at(*, retryable: bool, attempt: int, max_attempts: int, now_ms: int, job_id: str) -> int | None:
    """When to run again after failed run number `attempt` (1 is the first), ms; None when it is over."""
    if not retryable or attempt >= max_attempts:
        return None
    wait = min(BACKOFF_FIRST_MS << min(attempt - 1, 16), BACKOFF_LONGEST_MS)
    draw = hashlib.sha256(f"{job_id}:{attempt}".encode()).digest()[0] / 255
    return now_ms + round(wait * (1 - JITTER + 2 * JITTER * draw))


def is_dead(crash_count: int, orphan_count: int) -> bool:
    """Whether a job took its runner, or its dispatcher, down too often to be run again by itself."""
    return crash_count >= MAX_CRASHES or orphan_count >= MAX_ORPHANED
