"""The queue without Redis: the same answers from an SQLite file, for one dispatcher on one machine.

The file is an index like Redis's memory: it may be deleted, and is rebuilt from the rows. A lock on a file beside it
keeps a second dispatcher out; the kernel drops the lock with the process, however that ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dubbing.queue.base import (
    AGE_MS,
    COST_SCALE,
    Cancelled,
    Claim,
    Claimed,
    Clock,
    Extended,
    Field,
    Lease,
    Put,
    Scope,
    Stats,
    Tick,
    Ticket,
    setting,
)
from dubbing.queue.local_index import LocalIndex, ticket_in
from dubbing.queue.local_lock import Bell, DispatcherLock


class LocalQueue:
    """A JobQueue over an SQLite file on a local disk."""

    name: Literal["redis", "local"] = "local"

    def __init__(self, path: Path, *, age_ms: int = AGE_MS, clock: Clock | None = None) -> None:
        """Open or make the file; `clock` (ms) replaces this host's in tests. Raises QueueDownError."""
        self.path = path
        self.lock = DispatcherLock(path)
        self._index = LocalIndex(path, age_ms=age_ms, clock=clock)
        self._bell = Bell(path.with_name(path.name + ".wake"))

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tickets: Sequence[Ticket]) -> list[Put]:
        """See JobQueue."""
        with self._index.change() as now:
            answers = [self._put(ticket, now) for ticket in tickets]
        self.wake()
        return answers

    def _put(self, ticket: Ticket, now: int) -> Put:
        known = self._index.entry(ticket.job_id)
        if known and known["place"] == "leased":
            return Put.LEASED
        if known and known["epoch"] > ticket.epoch:
            return Put.STALE
        if known:
            if ticket_in(known) == ticket:
                return Put.OK
            self._index.forget(known)
        self._index.insert(ticket)
        self._index.begin_wait(ticket.job_id, ticket.run_at_ms, now)
        self._index.refresh(ticket.user)
        return Put.OK

    def claim(self, pool: str, count: int, *, owner: str, ttl_ms: int) -> Claimed:
        """See JobQueue."""
        with self._index.change() as now:
            if self._index.meta("state") != "ready":
                return Claimed("rebuilding")
            _, next_due = self._index.promote(now)
            if self._index.setting("global", "", "paused") == 1 or self._index.setting("pool", pool, "paused") == 1:
                return Claimed("paused", (), next_due)
            claims: list[Claim] = []
            room = min(count, self._room(pool))
            while len(claims) < room and (claim := self._claim_first(pool, owner, now + ttl_ms)):
                claims.append(claim)
        return Claimed("ok", tuple(claims), next_due)

    def _room(self, pool: str) -> int:
        """How many more jobs the caps of the pool and of the whole allow."""
        running = self._index.count("place = 'leased' AND pool = ?", pool)
        room = [self._index.setting("pool", pool, field) for field in ("cap", "slots")]
        left = [limit - running for limit in room if limit is not None]
        whole = self._index.setting("global", "", "cap")
        if whole is not None:
            left.append(whole - self._index.count("place = 'leased'"))
        return min(left, default=1 << 30)

    def _claim_first(self, pool: str, owner: str, expires: int) -> Claim | None:
        """Lease the first job of the first user; see claim.lua for the fair turn."""
        first = self._index.row("SELECT user FROM ready WHERE pool = ? ORDER BY band, vt, user LIMIT 1", pool)
        if first is None:
            return None
        user = first["user"]
        job = self._index.head(pool, user)
        assert job is not None
        token = job["epoch"] + 1
        self._index.db.execute(
            "UPDATE entry SET place = 'leased', lift_at = NULL, token = ?, owner = ?, cancel = 0, expires = ?"
            " WHERE id = ?",
            (token, owner, expires, job["id"]),
        )
        turn = max(1, job["cost"] * COST_SCALE // (self._index.setting("user", user, "weight") or 1))
        pool_clock = self._index.vt(pool, "")
        start = max(self._index.vt(pool, user), pool_clock)
        self._index.db.executemany(
            "INSERT OR REPLACE INTO vt VALUES (?, ?, ?)",
            [(pool, "", max(pool_clock, start)), (pool, user, start + turn)],
        )
        self._index.refresh(user)
        return Claim(job["id"], token, user, pool, job["band"])

    def extend(self, leases: Sequence[tuple[str, int]], ttl_ms: int) -> list[Extended]:
        """See JobQueue."""
        answers = []
        with self._index.change() as now:
            for job_id, token in leases:
                held = self._index.entry(job_id)
                if held is None or held["place"] != "leased":
                    answers.append(Extended.UNKNOWN)
                elif held["token"] != token:
                    answers.append(Extended.FENCED)
                else:
                    self._index.db.execute("UPDATE entry SET expires = ? WHERE id = ?", (now + ttl_ms, job_id))
                    answers.append(Extended.CANCEL if held["cancel"] else Extended.OK)
        return answers

    def release(self, leases: Sequence[tuple[str, int]]) -> list[bool]:
        """See JobQueue."""
        answers = []
        with self._index.change():
            for job_id, token in leases:
                held = self._index.held(job_id, token)
                if held is not None:
                    self._index.forget(held)
                answers.append(held is not None)
        self.wake()
        return answers

    def requeue(self, job_id: str, token: int, *, epoch: int, run_at_ms: int) -> bool:
        """See JobQueue."""
        with self._index.change() as now:
            held = self._index.held(job_id, token)
            if held is None:
                return False
            self._index.db.execute(
                "UPDATE entry SET epoch = ?, run_at = ?, token = NULL, owner = NULL, expires = NULL WHERE id = ?",
                (epoch, run_at_ms, job_id),
            )
            self._index.begin_wait(job_id, run_at_ms, now)
            self._index.refresh(held["user"])
        self.wake()
        return True

    def cancel(self, job_id: str) -> Cancelled:
        """See JobQueue."""
        with self._index.change():
            known = self._index.entry(job_id)
            if known is None:
                return Cancelled.UNKNOWN
            if known["place"] == "leased":
                self._index.db.execute("UPDATE entry SET cancel = 1 WHERE id = ?", (job_id,))
            else:
                self._index.forget(known)
        self.wake()
        return Cancelled.SIGNALLED if known["place"] == "leased" else Cancelled.REMOVED

    def configure(self, scope: Scope, name: str, field: Field, value: int | None) -> None:
        """See JobQueue."""
        with self._index.change():
            key = setting(scope, name, field)
            self._index.db.execute("DELETE FROM config WHERE key = ?", (key,))
            if value is not None:
                self._index.db.execute("INSERT INTO config VALUES (?, ?)", (key, value))
            if scope == "user":
                everybody = "SELECT DISTINCT user FROM entry WHERE place = 'pending'"
                users = [name] if name != "*" else [row["user"] for row in self._index.rows(everybody)]
                for user in users:
                    self._index.refresh(user)
        self.wake()

    # --- time ---------------------------------------------------------------------------------------------------------

    def expired(self, limit: int, hold_ms: int) -> list[Lease]:
        """See JobQueue."""
        with self._index.change() as now:
            if now < int(self._index.meta("grace_until") or 0):
                return []
            past = "SELECT * FROM entry WHERE place = 'leased' AND expires <= ? ORDER BY expires, id LIMIT ?"
            found = [Lease(row["id"], row["token"], row["owner"]) for row in self._index.rows(past, now, limit)]
            for lease in found:
                self._index.db.execute("UPDATE entry SET expires = ? WHERE id = ?", (now + hold_ms, lease.job_id))
        return found

    def adopt(self, running: Sequence[tuple[Ticket, int, str]], ttl_ms: int) -> list[bool]:
        """See JobQueue."""
        with self._index.change() as now:
            return [self._adopt(ticket, token, owner, now + ttl_ms) for ticket, token, owner in running]

    def _adopt(self, ticket: Ticket, token: int, owner: str, expires: int) -> bool:
        known = self._index.entry(ticket.job_id)
        if known is not None:
            newest = known["token"] if known["place"] == "leased" else known["epoch"]
            if newest >= token:
                return False
            self._index.forget(known)
        self._index.insert(ticket)
        self._index.db.execute(
            "UPDATE entry SET place = 'leased', token = ?, owner = ?, cancel = 0, expires = ? WHERE id = ?",
            (token, owner, expires, ticket.job_id),
        )
        self._index.refresh(ticket.user)
        return True

    def age(self, limit: int) -> int:
        """See JobQueue."""
        with self._index.change() as now:
            old = list(
                self._index.rows("SELECT * FROM entry WHERE lift_at <= ? ORDER BY lift_at, id LIMIT ?", now, limit)
            )
            for job in old:
                lift_at = now + self._index.age_ms if job["band"] > 1 else None
                self._index.db.execute(
                    "UPDATE entry SET band = band - 1, lift_at = ? WHERE id = ?", (lift_at, job["id"])
                )
                self._index.refresh(job["user"])
        return len(old)

    def tick(self) -> Tick:
        """See JobQueue."""
        with self._index.change() as now:
            return Tick(*self._index.promote(now))

    def hold_expiry(self, grace_ms: int) -> None:
        """See JobQueue."""
        with self._index.change() as now:
            self._index.set_meta("grace_until", now + grace_ms)

    def now_ms(self) -> int:
        """See JobQueue."""
        return self._index.now_ms()

    # --- whole queue --------------------------------------------------------------------------------------------------

    def begin_rebuild(self) -> None:
        """See JobQueue."""
        with self._index.change():
            for table in ("config", "entry", "ready"):
                self._index.db.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
            self._index.set_meta("state", "rebuilding")
            self._index.set_meta("last", 0)

    def end_rebuild(self, grace_ms: int) -> None:
        """See JobQueue."""
        with self._index.change() as now:
            self._index.set_meta("grace_until", now + grace_ms)
            self._index.set_meta("state", "ready")
        self.wake()

    def is_ready(self) -> bool:
        """See JobQueue."""
        with self._index.look():
            return bool(self._index.meta("state") == "ready")

    def stats(self) -> Stats:
        """See JobQueue."""
        with self._index.look():
            counts = dict(self._index.db.execute("SELECT place, count(*) FROM entry GROUP BY place").fetchall())
            pending, delayed, leased = (counts.get(place, 0) for place in ("pending", "delayed", "leased"))
            return Stats(self._index.meta("state") == "ready", pending, delayed, leased)

    def fsck(self) -> list[str]:
        """See JobQueue."""
        wrong = []
        with self._index.change():
            for job in self._index.rows("SELECT * FROM entry"):
                leased = job["place"] == "leased"
                if job["place"] not in ("pending", "delayed", "leased"):
                    wrong.append(f"job {job['id']} is nowhere")
                if (job["lift_at"] is not None) != (job["place"] == "pending" and job["band"] > 0):
                    wrong.append(f"job {job['id']} ages wrongly")
                if any((job[field] is not None) != leased for field in ("token", "owner", "expires")):
                    wrong.append(f"job {job['id']} is leased without holder or held without lease")
            found = {(r["pool"], r["user"]): (r["band"], r["vt"]) for r in self._index.rows("SELECT * FROM ready")}
            users = [row["user"] for row in self._index.rows("SELECT DISTINCT user FROM entry")]
            right = {(pool, user): place for user in users for pool, place in self._index.places(user).items()}
        return wrong + [f"{key} has the wrong place in line" for key in found.items() ^ right.items()]

    def wake(self) -> None:
        """See JobQueue."""
        self._bell.ring()

    def wait(self, timeout_s: float) -> bool:
        """See JobQueue."""
        return self._bell.wait(timeout_s)

    def ping(self) -> None:
        """See JobQueue."""
        with self._index.look():
            self._index.db.execute("SELECT 1")

    def close(self) -> None:
        """See JobQueue."""
        self._bell.close()
        self.lock.release()
        self._index.close()
