"""What a queue is. Two implementations give the same answers: Redis, and SQLite for one machine.

A queue holds ids, order, leases and caps, never the jobs themselves: rows decide what is true (`store`), the queue
proposes who is next. Order: lower band first; within a band users take turns by weight; within a user first in, first
out. A user at his cap is not in line, so nobody waits behind him. All times are milliseconds since 1970 by the queue's
own clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from dubbing.jobs import BANDS, MAX_COST, Job

Clock = Callable[[], int]
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Ids of jobs and users; they are parts of keys, so separators are not allowed in them."""
Scope = Literal["global", "pool", "user"]
Field = Literal["cap", "slots", "paused", "weight"]
PROMOTED_AT_ONCE = 100
"""Delayed jobs that become ready in one step, so that a thousand alarms at one moment do not hold up a claim."""
COST_SCALE = 1000
"""Virtual time of one minute of audio at weight 1; integers, so that both implementations agree to the digit."""

AGE_MS = 600_000
"""A waiting job rises one band every ten minutes, so that the lowest starts within 90 minutes whatever else arrives."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A waiting job, as the queue knows it."""

    job_id: str
    user: str
    pool: str
    band: int
    """0..9, 0 is served first."""
    seq: int
    """Order within the user's band."""
    epoch: int = 0
    """Epoch of the row; a claim gets epoch + 1 as its fencing token."""
    cost: int = 1
    """Minutes of audio, 1..10 000: what the job uses of its user's turn."""
    run_at_ms: int = 0
    """Not before this time."""

    def __post_init__(self) -> None:
        for name in (self.job_id, self.user, self.pool):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot be part of a key")
        if not (0 <= self.band < BANDS and 1 <= self.cost <= MAX_COST and self.seq >= 0 and self.epoch >= 0):
            raise ValueError(f"out of range: {self}")


def ticket_of(job: Job) -> Ticket:
    """The ticket of a job's row."""
    return Ticket(job.id, job.user_id, job.pool, job.band, job.seq, job.epoch, job.cost, job.run_at_ms)


class Put(str, Enum):
    """Answer to a ticket."""

    OK = "ok"
    """It is in the queue, now or already."""
    LEASED = "leased"
    """The job runs; nothing changed."""
    STALE = "stale"
    """The queue knows a newer epoch of the job; nothing changed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job whose turn it is, leased to the one who asked."""

    job_id: str
    token: int
    """Fencing token: the epoch the row gets if it is taken."""
    user: str
    pool: str
    band: int
    """After ageing."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """Answer to a claim."""

    state: Literal["ok", "paused", "rebuilding"]
    claims: tuple[Claim, ...] = ()
    next_due_ms: int | None = None
    """When the next delayed job becomes ready."""


class Extended(int, Enum):
    """Answer to one renewal."""

    OK = 1
    CANCEL = 2
    """Renewed, and the job's user asked it to stop."""
    FENCED = 0
    """Somebody else holds a newer lease."""
    UNKNOWN = -1
    """There is no lease; the row decides whether to install one (`adopt`)."""


class Cancelled(str, Enum):
    """Answer to a cancel."""

    REMOVED = "removed"
    """It was waiting and will not be claimed."""
    SIGNALLED = "signalled"
    """It is leased; the next renewal says so."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that is past its time."""

    job_id: str
    token: int
    owner: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Answer to a tick."""

    promoted: int
    next_due_ms: int | None


@dataclass(frozen=True, slots=True)
class Stats:
    """How many jobs the queue knows."""

    ready: bool
    """False while the queue is lost or being rebuilt."""
    pending: int
    delayed: int
    leased: int


class JobQueue(Protocol):
    """Who is next. Every method is atomic and may be called from any thread; all raise QueueDownError."""

    name: Literal["redis", "local"]

    def enqueue(self, tickets: Sequence[Ticket]) -> list[Put]:
        """Put jobs in line; the same ticket again changes nothing, a changed one replaces it."""
        ...

    def claim(self, pool: str, count: int, *, owner: str, ttl_ms: int) -> Claimed:
        """Lease the next jobs of a pool, at most `count`, within all caps."""
        ...

    def extend(self, leases: Sequence[tuple[str, int]], ttl_ms: int) -> list[Extended]:
        """Renew (job id, token) leases."""
        ...

    def release(self, leases: Sequence[tuple[str, int]]) -> list[bool]:
        """Forget leased jobs, (job id, token) each; False when the token is not the lease's."""
        ...

    def requeue(self, job_id: str, token: int, *, epoch: int, run_at_ms: int) -> bool:
        """Put a leased job back in its old place, or to wait until `run_at_ms`; False as in `release`."""
        ...

    def cancel(self, job_id: str) -> Cancelled:
        """Remove a waiting job, or mark the lease of a running one."""
        ...

    def configure(self, scope: Scope, name: str, field: Field, value: int | None) -> None:
        """Set or forget a cap, a weight, a pause (0 or 1) or a pool's slots; `user`, `*`, `cap` is everybody's cap."""
        ...

    def expired(self, limit: int, hold_ms: int) -> list[Lease]:
        """Leases past their time, held for `hold_ms` so that one caller at a time sees to them; frees nothing."""
        ...

    def adopt(self, running: Sequence[tuple[Ticket, int, str]], ttl_ms: int) -> list[bool]:
        """Install leases (ticket, token, owner) of jobs that run according to their rows; False when known already."""
        ...

    def age(self, limit: int) -> int:
        """Lift jobs that waited long by one band; how many were lifted."""
        ...

    def tick(self) -> Tick:
        """Let delayed jobs whose time has come into the line."""
        ...

    def hold_expiry(self, grace_ms: int) -> None:
        """Report no expired lease for a while: after a jump of the clock leases look older than they are."""
        ...

    def begin_rebuild(self) -> None:
        """Forget jobs, leases, settings and the latest time seen, not the fair clocks; refuse claims until the end."""
        ...

    def end_rebuild(self, grace_ms: int) -> None:
        """Allow claims again; leases do not expire for `grace_ms`."""
        ...

    def is_ready(self) -> bool:
        """Whether the queue is whole; False after it lost its memory or was restarted, until it is rebuilt."""
        ...

    def now_ms(self) -> int:
        """The queue's clock."""
        ...

    def stats(self) -> Stats:
        """Counts for pages and metrics."""
        ...

    def fsck(self) -> list[str]:
        """Broken invariants as sentences; empty when all is well. Reads everything: for tests and for `dub doctor`."""
        ...

    def wake(self) -> None:
        """End a `wait`, also in other processes; never fails."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Sleep until something changed or the time is over; a hint that may be missed."""
        ...

    def ping(self) -> None:
        """Ask for an answer."""
        ...

    def close(self) -> None:
        """Let go of connections and locks; calling twice is fine."""
        ...


def setting(scope: Scope, name: str, field: Field) -> str:
    """Key of a setting, the same in the queue and in the rows."""
    return f"{scope}:{name}:{field}"


def parse_settings(settings: Iterable[tuple[str, int | None]]) -> list[tuple[Scope, str, Field, int | None]]:
    """Settings of the rows as arguments of `configure`."""
    parsed: list[tuple[Scope, str, Field, int | None]] = []
    for key, value in settings:
        scope, name, field = key.split(":")
        parsed.append((scope, name, field, value))  # type: ignore[arg-type] # written by `setting`
    return parsed
