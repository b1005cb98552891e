"""The writes of a run. Each names the fencing token it holds; a run that lost its job changes no row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from dubbing.errors import DubbingError, PoisonJobError
from dubbing.jobs import DEFAULT_USER_CAP, TERMINAL, WAITING, Actor, Job, State, can_become, is_dead, retry_at
from dubbing.store.database import changed, run
from dubbing.store.requests import RequestRows, job_of_id
from dubbing.store.rows import WAITING_SQL, as_json, by_index, changed_job, placeholders, write_event, write_events
from dubbing.types import Line

_SAME_BACKEND = "(SELECT backend_epoch FROM queue_state WHERE id = 1) = :backend_epoch"
_FENCED = f"id = :id AND epoch = :epoch AND state = 'running' AND {_SAME_BACKEND}"
_CAP = (
    "coalesce((SELECT value FROM queue_setting WHERE key = 'user:' || user_id || '\\:cap'),"
    " (SELECT value FROM queue_setting WHERE key = 'user:*\\:cap'), :default_cap)"
)
_TAKE = f"""
UPDATE job SET state = 'running', epoch = :epoch, owner = :owner, lease_until_ms = :now + :ttl,
               started_ms = :now, finished_ms = NULL, error = NULL, progress = NULL, indexed = 1
 WHERE id = :id AND epoch = :epoch - 1 AND {WAITING_SQL} AND asked IS NULL AND {_SAME_BACKEND}
   AND (SELECT count(*) FROM job AS other {{by_index}}
        WHERE other.user_id = job.user_id AND other.state = 'running') < {_CAP}
"""
_FINISH = f"""
UPDATE job SET state = :state, result = :result, finished_ms = :now, owner = '', asked = NULL, indexed = 1
 WHERE {_FENCED} RETURNING user_id
"""


@dataclass(frozen=True, slots=True)
class Fence:
    """What a write must hold: the epoch of this run of the job, and the epoch of the queue that started it."""

    job_id: str
    epoch: int
    backend_epoch: int

    def facts(self, **more: Any) -> dict[str, Any]:
        """As parameters of a statement."""
        return {"id": self.job_id, "epoch": self.epoch, "backend_epoch": self.backend_epoch, **more}


class RunRows(RequestRows):
    """Take, heartbeat, finish, retry, reclaim: conditional updates whose row count decides."""

    def take(self, fence: Fence, *, owner: str, ttl_ms: int) -> Job | None:
        """Start one run, see `take_all`."""
        (job,) = self.take_all([fence], owner=owner, ttl_ms=ttl_ms)
        return job

    def take_all(self, fences: Sequence[Fence], *, owner: str, ttl_ms: int) -> list[Job | None]:
        """Start runs: each waiting job becomes ours if its user may run one more, else its answer is None."""
        with self.write() as connection:
            self._lock_users(connection, [fence.job_id for fence in fences])
            now = self.now_ms(connection)
            facts = {"owner": owner, "ttl": ttl_ms, "now": now, "default_cap": DEFAULT_USER_CAP}
            take = _TAKE.format(by_index=by_index(connection, "ix_job_running"))
            jobs = [changed_job(connection, take, fence.facts(**facts)) for fence in fences]
            events = [(job.id, job.user_id, State.RUNNING.value, {"epoch": job.epoch}) for job in jobs if job]
            write_events(connection, events, now)
            return jobs

    def _lock_users(self, connection: Connection, job_ids: Sequence[str]) -> None:
        """Starts of one user take turns, so that two cannot both see a free place; SQLite has one writer anyway."""
        if not self.is_sqlite:
            names, facts = placeholders(job_ids)
            users = f"SELECT user_id FROM job WHERE id IN ({names})"
            # Always in the order of their ids, so that two dispatchers never wait for each other.
            run(connection, f"SELECT 1 FROM app_user WHERE id IN ({users}) ORDER BY id FOR UPDATE", facts)

    def heartbeat(self, fence: Fence, ttl_ms: int) -> Job | None:
        """Renew the lease of a running job; None when it is not ours any more. The answer says what its user asked."""
        with self.write() as connection:
            facts = fence.facts(now=self.now_ms(connection), ttl=ttl_ms)
            return changed_job(connection, f"UPDATE job SET lease_until_ms = :now + :ttl WHERE {_FENCED}", facts)

    def report_progress(self, fence: Fence, progress: Mapping[str, Any]) -> bool:
        """Show how far a running job is; False when it is not ours any more."""
        with self.write() as connection:
            facts = fence.facts(progress=as_json(progress))
            job = changed_job(connection, f"UPDATE job SET progress = :progress WHERE {_FENCED}", facts)
            if job is not None:
                write_event(connection, job, "progress", self.now_ms(connection), progress)
            return job is not None

    def finish(self, fence: Fence, result: Mapping[str, Any], *, warned: bool = False) -> bool:
        """End one run well, see `finish_all`."""
        return self.finish_all([(fence, result, warned)]) == [True]

    def finish_all(self, ends: Sequence[tuple[Fence, Mapping[str, Any], bool]]) -> list[bool]:
        """End runs well, (fence, result, with warnings) each; the answer of one that is not ours any more is False."""
        written: list[bool] = []
        events: list[tuple[str, str, str, Mapping[str, Any]]] = []
        with self.write() as connection:
            now = self.now_ms(connection)
            for fence, result, warned in ends:
                state = (State.WARNED if warned else State.DONE).value
                facts = fence.facts(state=state, result=as_json(result), now=now)
                user = run(connection, _FINISH, facts).fetchone()
                written.append(user is not None)
                if user is not None:
                    events.append((fence.job_id, user[0], state, {}))
            write_events(connection, events, now)
        return written

    def fail(self, fence: Fence, error: Mapping[str, Any]) -> Job | None:
        """End a run with an error (`DubbingError.as_dict()`): the job waits for its next attempt or has failed."""
        with self.write() as connection:
            now = self.now_ms(connection)
            job = self._locked(connection, fence.job_id)
            attempt = job.attempt + 1
            again = retry_at(
                retryable=bool(error.get("retryable")),
                attempt=attempt,
                max_attempts=job.max_attempts,
                now_ms=now,
                job_id=job.id,
            )
            state = _asked_state(job) or (State.FAILED if again is None else State.DELAYED)
            return self._end(connection, fence, state, attempt=attempt, error=as_json(error), run_at_ms=again or 0)

    def crash(self, fence: Fence, detail: str, *, only_expired: bool = True) -> Job | None:
        """Take a job back from a runner that died: it waits again, or is dead after its third crash.

        With `only_expired` the lease in the row must be past; the owner of a run may say so without waiting.
        """
        return self._take_back(fence, detail, only_expired, crashes=1)

    def orphan(self, fence: Fence, detail: str, *, only_expired: bool = True) -> Job | None:
        """Take a job back whose dispatcher died, which is no crash of the job's; it is dead after ten such deaths.

        `only_expired` as in `crash`; whoever knows the dispatcher dead need not wait.
        """
        return self._take_back(fence, detail, only_expired, orphaned=1)

    def _take_back(
        self, fence: Fence, detail: str, only_expired: bool, *, crashes: int = 0, orphaned: int = 0
    ) -> Job | None:
        with self.write() as connection:
            job = self._locked(connection, fence.job_id)
            if only_expired and job.lease_until_ms >= self.now_ms(connection):
                return None
            counts = {"crash_count": job.crash_count + crashes, "orphan_count": job.orphan_count + orphaned}
            error: DubbingError | None = None
            if is_dead(**counts):
                what, count = ("Its process", "crash_count") if crashes else ("The dispatcher", "orphan_count")
                error = PoisonJobError(what=what, count=counts[count], detail=detail)
            state = _asked_state(job) or (State.PENDING if error is None else State.FAILED)
            kept = {} if error is None else {"error": as_json({**error.as_dict(), "detail": detail})}
            return self._end(connection, fence, state, detail, run_at_ms=0, **counts, **kept)

    def disown(self, fence: Fence) -> bool:
        """Note that the run itself fell silent, not its dispatcher; False when it is not ours any more."""
        with self.write() as connection:
            return changed(connection, f"UPDATE job SET owner = '' WHERE {_FENCED}", fence.facts())

    def put_back(self, fence: Fence, *, wait_ms: int) -> Job | None:
        """Return a job that could not be launched; this is no attempt of the job's."""
        with self.write() as connection:
            job = self._locked(connection, fence.job_id)
            state = _asked_state(job) or State.DELAYED
            return self._end(connection, fence, state, run_at_ms=self.now_ms(connection) + wait_ms)

    def stopped(self, fence: Fence) -> Job | None:
        """End a run as its user asked: cancelled or paused. None when nobody asked or it is not ours any more."""
        with self.write() as connection:
            state = _asked_state(self._locked(connection, fence.job_id))
            return None if state is None else self._end(connection, fence, state)

    def save_target(self, fence: Fence, language: str, state: str, result: Mapping[str, Any] | None = None) -> bool:
        """Note how a target language stands; False when the run is not ours any more."""
        with self.write() as connection:
            if not self._holds(connection, fence):
                return False
            connection.execute(
                text("UPDATE target SET state = :state, result = :result WHERE job_id = :id AND language = :language"),
                fence.facts(state=state, result=None if result is None else as_json(result), language=language),
            )
            job = job_of_id(connection, fence.job_id)
            write_event(connection, job, "target", self.now_ms(connection), {"language": language, "state": state})
            return True

    def save_lines(self, fence: Fence, language: str, lines: Sequence[tuple[Line, str, str | None]]) -> bool:
        """Replace the (line, translation, flag) rows of one target; False when the run is not ours any more."""
        with self.write() as connection:
            if not self._holds(connection, fence):
                return False
            where = {"job": fence.job_id, "language": language}
            connection.execute(text("DELETE FROM line WHERE job_id = :job AND language = :language"), where)
            rows = [
                {**where, "n": line.index, "start": line.start_ms, "end": line.end_ms, "source": line.text,
                 "text": translation, "speaker": line.speaker, "flag": flag}
                for line, translation, flag in lines
            ]  # fmt: skip
            if rows:
                connection.execute(
                    text(
                        "INSERT INTO line (job_id, language, position, start_ms, end_ms, source, text, speaker, flag)"
                        " VALUES (:job, :language, :n, :start, :end, :source, :text, :speaker, :flag)"
                    ),
                    rows,
                )
            return True

    def lines(self, actor: Actor, job_id: str, language: str) -> list[Mapping[str, Any]]:
        """Lines of one target: position, start_ms, end_ms, source, text, speaker, flag. Raises NotFoundError."""
        return self._parts(actor, job_id, "line", "language = :language", {"language": language})

    def targets(self, actor: Actor, job_id: str) -> list[Mapping[str, Any]]:
        """Target languages of a job in the order asked for: language, position, state, result (JSON text)."""
        return self._parts(actor, job_id, "target", "1 = 1", {})

    def _parts(
        self, actor: Actor, job_id: str, table: str, condition: str, facts: Mapping[str, Any]
    ) -> list[Mapping[str, Any]]:
        with self.read() as connection:
            self._visible(connection, actor, job_id)
            statement = f"SELECT * FROM {table} WHERE job_id = :job AND {condition} ORDER BY position"
            return [dict(row._mapping) for row in connection.execute(text(statement), {"job": job_id, **facts})]

    def _holds(self, connection: Connection, fence: Fence) -> bool:
        # An update that changes nothing locks the row, so that the run cannot be reclaimed before the commit.
        return changed(connection, f"UPDATE job SET epoch = epoch WHERE {_FENCED}", fence.facts())

    def _end(self, connection: Connection, fence: Fence, state: State, why: str = "", **columns: Any) -> Job | None:
        """running -> `state`, if the run is ours; a waiting job goes to the outbox, for the queue must learn of it."""
        assert can_become(State.RUNNING, state)
        now = self.now_ms(connection)
        values: dict[str, Any] = {
            "state": state.value,
            "indexed": 0 if state in WAITING else 1,
            "owner": "",
            "asked": None,
            "finished_ms": now if state in TERMINAL else None,
            **columns,
        }
        sets = ", ".join(f"{name} = :{name}" for name in values)
        job = changed_job(connection, f"UPDATE job SET {sets} WHERE {_FENCED}", fence.facts(**values))
        if job is None:
            return None
        data: dict[str, Any] = {"reason": why} if why else {}
        if job.error is not None and state in (State.DELAYED, State.FAILED):
            data["error"] = job.error
        write_event(connection, job, state.value, now, data)
        return job


def _asked_state(job: Job) -> State | None:
    """Where a run ends whose user asked for something: a wish outlives failures and crashes."""
    if job.asked is None:
        return None
    return State.CANCELLED if job.asked == "cancel" else State.PAUSED
