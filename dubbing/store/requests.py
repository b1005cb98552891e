"""What users ask of jobs: submit, look, cancel, pause, resume, retry. Every method takes who asks."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from dubbing.errors import ForbiddenError, IdempotencyError, NotFoundError, StateConflictError, UsageError
from dubbing.jobs import (
    BANDS,
    DEFAULT_PRIORITY,
    MAX_ATTEMPTS,
    MAX_COST,
    POOLS,
    TERMINAL,
    WAITING,
    Actor,
    Job,
    State,
)
from dubbing.store.database import Database, changed, run
from dubbing.store.rows import as_json, jobs_where, one_job, placeholders, write_event

_INSERT_JOB = """
INSERT INTO job (id, user_id, pool, priority, cost, state, max_attempts, run_at_ms, request, created_ms)
VALUES (:id, :user, :pool, :priority, :cost, :state, :max_attempts, :run_at, :request, :now)
"""
_INSERT_TARGET = "INSERT INTO target (job_id, language, position) VALUES (:job, :language, :position)"
_INSERT_KEY = """
INSERT INTO idempotency_key (user_id, key, request_hash, job_id, created_ms) VALUES (:user, :key, :digest, :job, :now)
"""
View = Literal["all", "mine", "shared"]
"""Which jobs a list shows: everything the actor may see, his own, or what others share."""
_SEEN: Mapping[View, str] = {
    "all": "(user_id = :user OR shared = 1)",
    "mine": "user_id = :user",
    "shared": "(shared = 1 AND user_id <> :user)",
}
KEY = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job."""

    id: int
    """Grows; a reader asks for events after the last id it saw."""
    job_id: str
    at_ms: int
    kind: str
    """The job's new state, or `asked`, `progress`, `target`."""
    data: Mapping[str, Any]


class RequestRows(Database):
    """Jobs as their owners see them; the jobs of others do not exist for them."""

    def submit(
        self,
        actor: Actor,
        request: Mapping[str, Any],
        *,
        targets: Sequence[str] = (),
        pool: str = "cpu",
        priority: int = DEFAULT_PRIORITY,
        cost: int = 1,
        run_at_ms: int = 0,
        max_attempts: int = MAX_ATTEMPTS,
        key: str | None = None,
    ) -> tuple[Job, bool]:
        """Write a job down; (job, False) when the idempotency key was used for this request before.

        Raises UsageError, ForbiddenError (viewers), IdempotencyError (the key was used for another request).
        """
        _check(actor, pool, priority, cost, key)
        digest = hashlib.sha256(
            as_json({"request": request, "targets": list(targets), "pool": pool}).encode()
        ).hexdigest()
        with self.write() as connection:
            known = key and self._known(connection, actor, key, digest)
            if known:
                return known, False
            now = self.now_ms(connection)
            facts = {
                "id": uuid.uuid4().hex, "user": actor.user_id, "pool": pool, "priority": priority, "cost": cost,
                "state": (State.DELAYED if run_at_ms > now else State.PENDING).value, "max_attempts": max_attempts,
                "run_at": run_at_ms, "request": as_json(request), "now": now,
            }  # fmt: skip
            run(connection, _INSERT_JOB, facts)
            for position, language in enumerate(targets):
                run(connection, _INSERT_TARGET, {"job": facts["id"], "language": language, "position": position})
            job = self._mine(connection, actor, str(facts["id"]))
            if key:
                used = {"user": actor.user_id, "key": key, "digest": digest, "job": job.id, "now": now}
                run(connection, _INSERT_KEY, used)
            write_event(connection, job, job.state.value, now, {})
        return job, True

    def job(self, actor: Actor, job_id: str) -> Job:
        """One job of the actor's, or one that was shared. Raises NotFoundError, also for all other jobs of others."""
        with self.read() as connection:
            return self._visible(connection, actor, job_id)

    def own_job(self, actor: Actor, job_id: str) -> Job:
        """One job that the actor may change. Raises NotFoundError, also for one that others only show him."""
        with self.read() as connection:
            return self._mine(connection, actor, job_id)

    def jobs(
        self,
        actor: Actor,
        *,
        states: Iterable[State] = (),
        view: View = "all",
        search: str = "",
        beginning: str = "",
        before_seq: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Jobs the actor may see, newest first; the next page starts before the last one's seq.

        `search` is part of the request's text, such as the name of the source; `beginning` the first digits of the id.
        """
        names, facts = placeholders(state.value for state in states)
        conditions = [_SEEN[view] if view != "all" or not actor.sees_all else "1 = 1"]
        conditions += [f"state IN ({names})"] if names else []
        conditions += [] if before_seq is None else ["seq < :before"]
        conditions += [r"lower(request) LIKE :search ESCAPE '\'"] if search else []
        conditions += ["substr(id, 1, :digits) = :beginning"] if beginning else []
        sought = "%" + re.sub(r"([%_\\])", r"\\\1", as_json({"": search.lower()})[5:-2]) + "%"
        with self.read() as connection:
            return jobs_where(
                connection,
                " AND ".join(conditions) + " ORDER BY seq DESC LIMIT :limit",
                {
                    **facts,
                    "user": actor.user_id,
                    "before": before_seq,
                    "limit": limit,
                    "search": sought,
                    "digits": len(beginning),
                    "beginning": beginning,
                },
            )

    def events(self, actor: Actor, *, after: int = 0, job_id: str | None = None, limit: int = 500) -> list[Event]:
        """Events of the actor's jobs, or of one job he may see, after an id, oldest first."""
        if job_id is not None:
            self.job(actor, job_id)
        conditions = ["id > :after"]
        conditions += [] if actor.sees_all or job_id is not None else ["user_id = :user"]
        conditions += [] if job_id is None else ["job_id = :job"]
        statement = (
            f"SELECT id, job_id, at_ms, kind, data FROM event WHERE {' AND '.join(conditions)} ORDER BY id LIMIT :limit"
        )
        facts = {"after": after, "user": actor.user_id, "job": job_id, "limit": limit}
        with self.read() as connection:
            rows = connection.execute(text(statement), facts).all()
        return [Event(row.id, row.job_id, row.at_ms, row.kind, json.loads(row.data)) for row in rows]

    def open_request(self, actor: Actor, request: Mapping[str, Any]) -> Job | None:
        """The user's newest job of exactly this request that has not ended; None when there is none."""
        names, facts = placeholders(state.value for state in State if state not in TERMINAL)
        condition = f"user_id = :user AND request = :request AND state IN ({names}) ORDER BY seq DESC LIMIT 1"
        with self.read() as connection:
            found = jobs_where(connection, condition, {**facts, "user": actor.user_id, "request": as_json(request)})
        return found[0] if found else None

    def ahead(self, job: Job) -> int:
        """How many waiting jobs are before this one by priority and order; fair turns may change that."""
        statement = (
            "SELECT count(*) FROM job WHERE state = 'pending' AND pool = :pool"
            " AND (priority > :above OR (priority >= :from AND seq < :seq))"
        )
        lowest = 10 * (BANDS - 1 - job.band)
        above = 100 if job.band == 0 else lowest + 9
        facts = {"pool": job.pool, "above": above, "from": lowest, "seq": job.seq}
        with self.read() as connection:
            return int(connection.execute(text(statement), facts).scalar_one())

    def cancel(self, actor: Actor, job_id: str) -> Job:
        """End a waiting or paused job; ask a running one to stop. Raises NotFoundError, StateConflictError."""
        with self.write() as connection:
            job = self._mine(connection, actor, job_id, lock=True)
            if job.state is State.RUNNING:
                return self._ask(connection, job, "cancel")
            if job.state in TERMINAL:
                raise StateConflictError(name=job.id, state=job.state.shown, action="cancelled")
            return self._move(connection, job, State.CANCELLED)

    def pause(self, actor: Actor, job_id: str) -> Job:
        """Take a waiting job out of the line; ask a running one to stop after its line. Raises as `cancel`."""
        with self.write() as connection:
            job = self._mine(connection, actor, job_id, lock=True)
            if job.state is State.RUNNING and job.asked is None:
                return self._ask(connection, job, "pause")
            if job.state not in WAITING:
                raise StateConflictError(name=job.id, state=job.state.shown, action="paused")
            return self._move(connection, job, State.PAUSED)

    def resume(self, actor: Actor, job_id: str) -> Job:
        """Put a paused job back in its old place in the line. Raises NotFoundError, StateConflictError."""
        with self.write() as connection:
            job = self._mine(connection, actor, job_id, lock=True)
            if job.state is not State.PAUSED:
                raise StateConflictError(name=job.id, state=job.state.shown, action="resumed")
            return self._move(connection, job, State.PENDING)

    def retry(self, actor: Actor, job_id: str) -> Job:
        """Run an ended job again, with all its attempts; finished lines are kept. Raises as `resume`."""
        with self.write() as connection:
            job = self._mine(connection, actor, job_id, lock=True)
            if job.state not in TERMINAL:
                raise StateConflictError(name=job.id, state=job.state.shown, action="run again")
            return self._move(connection, job, State.PENDING)

    def delete(self, actor: Actor, job_id: str) -> None:
        """Forget an ended job with its events and lines; its folder is the caller's. Raises as `resume`."""
        with self.write() as connection:
            job = self._mine(connection, actor, job_id, lock=True)
            if job.state not in TERMINAL:
                raise StateConflictError(name=job.id, state=job.state.shown, action="deleted")
            connection.execute(text("DELETE FROM job WHERE id = :id"), {"id": job_id})

    def share(self, actor: Actor, job_id: str, shared: bool) -> Job:
        """Show a job to every user of this server, or stop doing so. Raises NotFoundError."""
        with self.write() as connection:
            job = self._mine(connection, actor, job_id, lock=True)
            facts = {"shared": int(shared), "id": job.id}
            connection.execute(text("UPDATE job SET shared = :shared WHERE id = :id"), facts)
            return job_of_id(connection, job.id)

    def set_priority(self, actor: Actor, job_id: str, priority: int) -> Job:
        """Change the priority of a waiting job; the queue has to hear of it again.

        Raises ForbiddenError (administrators only), UsageError, NotFoundError, StateConflictError.
        """
        if not actor.sees_all:
            raise ForbiddenError(role=actor.role, action="change priorities")
        _check_priority(priority)
        with self.write() as connection:
            job = self._mine(connection, actor, job_id, lock=True)
            if job.state not in WAITING:
                raise StateConflictError(name=job.id, state=job.state.shown, action="given another priority")
            facts = {"priority": priority, "id": job.id}
            connection.execute(text("UPDATE job SET priority = :priority, indexed = 0 WHERE id = :id"), facts)
            return job_of_id(connection, job.id)

    def _visible(self, connection: Connection, actor: Actor, job_id: str) -> Job:
        job = one_job(connection, job_id)
        if job is None or not (actor.sees_all or job.shared or job.user_id == actor.user_id):
            raise NotFoundError(what=f"job {job_id}")
        return job

    def _mine(self, connection: Connection, actor: Actor, job_id: str, *, lock: bool = False) -> Job:
        if lock:
            self._lock(connection, job_id)
        job = one_job(connection, job_id)
        if job is None or not (actor.sees_all or job.user_id == actor.user_id):
            raise NotFoundError(what=f"job {job_id}")
        return job

    def _lock(self, connection: Connection, job_id: str) -> None:
        """Nobody else may change the job before this transaction ends; SQLite has one writer anyway."""
        if not self.is_sqlite:
            connection.execute(text("SELECT 1 FROM job WHERE id = :id FOR UPDATE"), {"id": job_id})

    def _locked(self, connection: Connection, job_id: str) -> Job:
        self._lock(connection, job_id)
        return job_of_id(connection, job_id)

    def _known(self, connection: Connection, actor: Actor, key: str, digest: str) -> Job | None:
        if not self.is_sqlite:
            # Two submissions with one key meet here: the second waits for the first one's commit.
            connection.execute(text("SELECT 1 FROM app_user WHERE id = :user FOR UPDATE"), {"user": actor.user_id})
        row = connection.execute(
            text("SELECT request_hash, job_id FROM idempotency_key WHERE user_id = :user AND key = :key"),
            {"user": actor.user_id, "key": key},
        ).first()
        if row is None:
            return None
        if row.request_hash != digest:
            raise IdempotencyError(key=key)
        return self._mine(connection, actor, row.job_id)

    def _ask(self, connection: Connection, job: Job, what: str) -> Job:
        changed(connection, "UPDATE job SET asked = :what WHERE id = :id", {"what": what, "id": job.id})
        write_event(connection, job, "asked", self.now_ms(connection), {"asked": what})
        return job_of_id(connection, job.id)

    def _move(self, connection: Connection, job: Job, state: State) -> Job:
        """Change the state of a job that nobody runs; back in the line it starts with a clean slate."""
        now = self.now_ms(connection)
        again = state is State.PENDING
        connection.execute(
            text(
                "UPDATE job SET state = :state, indexed = :indexed, asked = NULL, run_at_ms = 0,"
                " finished_ms = :finished, attempt = CASE WHEN :fresh = 1 THEN 0 ELSE attempt END,"
                " crash_count = CASE WHEN :fresh = 1 THEN 0 ELSE crash_count END,"
                " orphan_count = CASE WHEN :fresh = 1 THEN 0 ELSE orphan_count END WHERE id = :id"
            ),
            {
                "state": state.value,
                "indexed": 0 if again else 1,
                "fresh": int(again and job.state in TERMINAL),
                "finished": now if state in TERMINAL else None,
                "id": job.id,
            },
        )
        write_event(connection, job, state.value, now, {})
        return job_of_id(connection, job.id)


def job_of_id(connection: Connection, job_id: str) -> Job:
    """The job of an id that is known to exist."""
    (job,) = jobs_where(connection, "id = :id", {"id": job_id})
    return job


def _check(actor: Actor, pool: str, priority: int, cost: int, key: str | None) -> None:
    if actor.role == "viewer":
        raise ForbiddenError(role=actor.role, action="submit jobs")
    if pool not in POOLS:
        raise UsageError(detail=f"The pool must be one of {', '.join(POOLS)}, not {pool}")
    _check_priority(priority)
    if not 1 <= cost <= MAX_COST:
        raise UsageError(detail=f"The cost must be 1 to {MAX_COST} minutes, not {cost}")
    if key is not None and not KEY.fullmatch(key):
        raise UsageError(detail="An idempotency key is 1 to 200 printable ASCII characters without spaces")


def _check_priority(priority: int) -> None:
    if not 0 <= priority <= 100:
        raise UsageError(detail=f"The priority must be 0 to 100 (higher runs first), not {priority}")
