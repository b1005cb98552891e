"""The tables of the local queue, and `refresh`, which alone decides who is in line. The operations are one file up."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dubbing.jobs import POOLS
from dubbing.queue.base import PROMOTED_AT_ONCE, Clock, Field, Scope, Ticket, setting
from dubbing.queue_errors import QueueDownError

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS config (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
  id TEXT PRIMARY KEY, user TEXT, pool TEXT, band INTEGER, base INTEGER, seq INTEGER, epoch INTEGER, cost INTEGER,
  run_at INTEGER, place TEXT, lift_at INTEGER, token INTEGER, owner TEXT, cancel INTEGER, expires INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS in_line ON entry (pool, user, band, seq, id) WHERE place = 'pending';
CREATE INDEX IF NOT EXISTS due ON entry (run_at, id) WHERE place = 'delayed';
CREATE INDEX IF NOT EXISTS lifts ON entry (lift_at, id) WHERE lift_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS leases ON entry (expires, id) WHERE place = 'leased';
CREATE INDEX IF NOT EXISTS running_user ON entry (user) WHERE place = 'leased';
CREATE INDEX IF NOT EXISTS running_pool ON entry (pool) WHERE place = 'leased';
CREATE TABLE IF NOT EXISTS vt (pool TEXT, user TEXT, value INTEGER, PRIMARY KEY (pool, user)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ready (
  pool TEXT, user TEXT, band INTEGER, vt INTEGER, PRIMARY KEY (pool, user)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS first ON ready (pool, band, vt, user);
"""


class LocalIndex:
    """Jobs, leases and fair clocks in one SQLite file. Everything but `change` and `look` runs inside one of them."""

    def __init__(self, path: Path, *, age_ms: int, clock: Clock | None) -> None:
        self.path = path
        self.age_ms = age_ms
        self._clock = clock
        self._mutex = threading.Lock()
        with self._guarded():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self.db.row_factory = sqlite3.Row
            self.db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def now_ms(self) -> int:
        """This host's clock."""
        return self._clock() if self._clock is not None else time.time_ns() // 1_000_000

    @contextmanager
    def change(self) -> Iterator[int]:
        """One transaction; gives the time, which never goes back."""
        with self.look(), self.db:
            self.db.execute("BEGIN IMMEDIATE")
            now = max(self.now_ms(), int(self.meta("last") or 0))
            self.set_meta("last", now)
            yield now

    @contextmanager
    def look(self) -> Iterator[None]:
        """Nobody else of this process touches the connection."""
        with self._guarded(), self._mutex:
            yield

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise QueueDownError(address=self.path, detail=str(error)) from error

    def rows(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """All rows of a SELECT."""
        return self.db.execute(statement, values).fetchall()

    def row(self, statement: str, *values: object) -> sqlite3.Row | None:
        """The first row of a SELECT."""
        found: sqlite3.Row | None = self.db.execute(statement, values).fetchone()
        return found

    def count(self, condition: str, *values: object) -> int:
        """Jobs that meet a condition."""
        return int(self.db.execute(f"SELECT count(*) FROM entry WHERE {condition}", values).fetchone()[0])  # noqa: S608

    def meta(self, key: str) -> Any:
        """state, last (latest time seen) or grace_until; None when it was never set."""
        found = self.row("SELECT value FROM meta WHERE key = ?", key)
        return None if found is None else found["value"]

    def set_meta(self, key: str, value: object) -> None:
        """Remember a fact about the whole queue."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def setting(self, scope: Scope, name: str, field: Field) -> int | None:
        """A cap, a weight or a pause."""
        found = self.row("SELECT value FROM config WHERE key = ?", setting(scope, name, field))
        return None if found is None else int(found["value"])

    def vt(self, pool: str, user: str) -> int:
        """Virtual time of a user, or the virtual clock of the pool for user ``."""
        found = self.row("SELECT value FROM vt WHERE pool = ? AND user = ?", pool, user)
        return found["value"] if found else 0

    def entry(self, job_id: str) -> sqlite3.Row | None:
        """What is known of a job."""
        return self.row("SELECT * FROM entry WHERE id = ?", job_id)

    def held(self, job_id: str, token: int) -> sqlite3.Row | None:
        """A leased job, if the token is its lease's."""
        return self.row("SELECT * FROM entry WHERE id = ? AND place = 'leased' AND token = ?", job_id, token)

    def head(self, pool: str, user: str) -> sqlite3.Row | None:
        """The user's first job in a pool."""
        first = "SELECT * FROM entry WHERE place = 'pending' AND pool = ? AND user = ? ORDER BY band, seq, id LIMIT 1"
        return self.row(first, pool, user)

    def insert(self, ticket: Ticket) -> None:
        """A job that is in no place yet."""
        self.db.execute(
            "INSERT INTO entry (id, user, pool, band, base, seq, epoch, cost, run_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (ticket.job_id, ticket.user, ticket.pool, ticket.band, ticket.band, ticket.seq, ticket.epoch, ticket.cost,
             ticket.run_at_ms),
        )  # fmt: skip

    def forget(self, known: sqlite3.Row) -> None:
        """A job leaves the queue."""
        self.db.execute("DELETE FROM entry WHERE id = ?", (known["id"],))
        self.refresh(known["user"])

    def begin_wait(self, job_id: str, run_at_ms: int, now: int) -> None:
        """A job begins to wait: in line, or aside until its time comes."""
        if run_at_ms > now:
            self.db.execute("UPDATE entry SET band = base, place = 'delayed' WHERE id = ?", (job_id,))
        else:
            self.db.execute("UPDATE entry SET band = base WHERE id = ?", (job_id,))
            self._into_line(job_id, now)

    def _into_line(self, job_id: str, now: int) -> None:
        self.db.execute(
            "UPDATE entry SET place = 'pending', lift_at = CASE WHEN band > 0 THEN ? END WHERE id = ?",
            (now + self.age_ms, job_id),
        )

    def promote(self, now: int) -> tuple[int, int | None]:
        """Delayed jobs whose time has come enter the line; how many, and when the next is due."""
        due = self.rows(
            "SELECT id, user FROM entry WHERE place = 'delayed' AND run_at <= ? ORDER BY run_at, id LIMIT ?",
            now,
            PROMOTED_AT_ONCE,
        )
        for job in due:
            self._into_line(job["id"], now)
            self.refresh(job["user"])
        return len(due), self.db.execute("SELECT min(run_at) FROM entry WHERE place = 'delayed'").fetchone()[0]

    def refresh(self, user: str) -> None:
        """Put the user in line, or take him out, in all pools. Every change of a user's jobs ends here."""
        self.db.executemany("DELETE FROM ready WHERE pool = ? AND user = ?", [(pool, user) for pool in POOLS])
        for pool, (band, vt) in self.places(user).items():
            self.db.execute("INSERT INTO ready VALUES (?, ?, ?, ?)", (pool, user, band, vt))

    def places(self, user: str) -> dict[str, tuple[int, int]]:
        """Where the user should be in line: pool -> (band, virtual time)."""
        if self.setting("user", user, "paused") == 1:
            return {}
        cap = self.setting("user", user, "cap")
        cap = cap if cap is not None else self.setting("user", "*", "cap")
        if cap is not None and self.count("place = 'leased' AND user = ?", user) >= cap:
            return {}
        heads = {pool: self.head(pool, user) for pool in POOLS}
        return {pool: (head["band"], self.vt(pool, user)) for pool, head in heads.items() if head is not None}


def ticket_in(known: sqlite3.Row) -> Ticket:
    """The ticket a job came with."""
    return Ticket(
        known["id"], known["user"], known["pool"], known["base"], known["seq"], known["epoch"], known["cost"],
        known["run_at"],
    )  # fmt: skip
