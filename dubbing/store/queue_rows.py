"""What the queue needs from the rows: the outbox, what to rebuild from, who is in charge, caps and pauses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import text

from dubbing.jobs import DEFAULT_USER_CAP, Ask, Job
from dubbing.store.database import Database, changed, run
from dubbing.store.rows import WAITING_SQL, jobs_where, one_job, placeholders

Backend = Literal["redis", "local"]


@dataclass(frozen=True, slots=True)
class InCharge:
    """Which queue orders the jobs now."""

    backend: Backend
    backend_epoch: int
    """Grows with every change; starts that carry an older one are refused."""
    holder: str
    """Dispatcher that made the last change."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs of a pool that run, or could start now if there were slots without end."""

    waiting: Mapping[str, int]
    """User id -> jobs in line; delayed ones whose time has not come are none."""
    running: Mapping[str, int]
    """User id -> running jobs, whoever runs them: they count towards his cap."""
    mine: int
    """Running jobs of the dispatcher that asks."""


class QueueRows(Database):
    """Reading for the dispatcher, which sees the jobs of everybody."""

    def peek(self, job_id: str) -> Job | None:
        """A job, whoever it belongs to."""
        with self.read() as connection:
            return one_job(connection, job_id)

    def outbox(self, limit: int) -> list[Job]:
        """Waiting jobs that the queue may not know of, oldest first."""
        with self.read() as connection:
            condition = f"indexed = 0 AND {WAITING_SQL} ORDER BY seq LIMIT :limit"
            return jobs_where(connection, condition, {"limit": limit}, index="ix_job_outbox")

    def mark_indexed(self, jobs: Iterable[Job], backend_epoch: int) -> None:
        """Note that the queue in charge knows these jobs, as they were when it was told."""
        known = [
            {"id": job.id, "epoch": job.epoch, "run_at": job.run_at_ms, "backend_epoch": backend_epoch} for job in jobs
        ]
        statement = (
            "UPDATE job SET indexed = 1 WHERE id = :id AND epoch = :epoch AND run_at_ms = :run_at"
            f" AND {WAITING_SQL} AND (SELECT backend_epoch FROM queue_state WHERE id = 1) = :backend_epoch"
        )
        if known:
            with self.write() as connection:
                run(connection, statement, known)

    def waiting(self, after_seq: int, limit: int) -> list[Job]:
        """Waiting jobs in the order they were submitted, a page at a time."""
        with self.read() as connection:
            condition = f"{WAITING_SQL} AND seq > :after ORDER BY seq LIMIT :limit"
            return jobs_where(connection, condition, {"after": after_seq, "limit": limit})

    def running(self) -> list[Job]:
        """All running jobs."""
        with self.read() as connection:
            return jobs_where(connection, "state = 'running' ORDER BY seq", {}, index="ix_job_running")

    def wishes(self) -> dict[tuple[str, int], Ask]:
        """What users ask of running jobs, by job id and epoch."""
        with self.read() as connection:
            rows = run(connection, "SELECT id, epoch, asked FROM job WHERE state = 'running' AND asked IS NOT NULL", {})
            return {(job_id, epoch): asked for job_id, epoch, asked in rows.fetchall()}

    def counts(self) -> dict[str, int]:
        """Number of jobs by state."""
        with self.read() as connection:
            rows = connection.execute(text("SELECT state, count(*) AS jobs FROM job GROUP BY state"))
            return {row.state: row.jobs for row in rows}

    def backlog(self, pool: str, owner: str) -> Backlog:
        """What runs and what could start in a pool, for `demand` of the dispatcher `owner`."""
        with self.read() as connection:
            facts = {"pool": pool, "owner": owner, "now": self.now_ms(connection)}
            waiting = connection.execute(
                text(
                    f"SELECT user_id, count(*) AS jobs FROM job WHERE {WAITING_SQL} AND pool = :pool"
                    " AND run_at_ms <= :now GROUP BY user_id"
                ),
                facts,
            ).all()
            running = connection.execute(
                text(
                    "SELECT user_id, count(*) AS jobs, sum(CASE WHEN owner = :owner THEN 1 ELSE 0 END) AS mine"
                    " FROM job WHERE state = 'running' AND pool = :pool GROUP BY user_id"
                ),
                facts,
            ).all()
        return Backlog(
            {row.user_id: row.jobs for row in waiting},
            {row.user_id: row.jobs for row in running},
            sum(row.mine for row in running),
        )

    def in_charge(self) -> InCharge:
        """Which queue orders the jobs now."""
        with self.read() as connection:
            rows = run(connection, "SELECT backend, backend_epoch, holder FROM queue_state WHERE id = 1", {}).fetchall()
        return InCharge(*rows[0])

    def put_in_charge(self, backend: Backend, *, holder: str, seen_epoch: int) -> InCharge | None:
        """Hand the jobs to another queue; None when somebody else did so since `seen_epoch` was read.

        All waiting jobs go to the outbox, for the new queue may never have heard of them.
        """
        facts = {"backend": backend, "holder": holder, "epoch": seen_epoch}
        with self.write() as connection:
            if not changed(
                connection,
                "UPDATE queue_state SET backend = :backend, backend_epoch = backend_epoch + 1, holder = :holder,"
                " rebuild_holder = '', rebuild_until_ms = 0 WHERE id = 1 AND backend_epoch = :epoch",
                facts,
            ):
                return None
            connection.execute(text(f"UPDATE job SET indexed = 0 WHERE {WAITING_SQL}"))
        return InCharge(backend, seen_epoch + 1, holder)

    def lock_rebuild(self, holder: str, ttl_ms: int) -> bool:
        """Become the one who rebuilds the queue, for at most `ttl_ms`; renews the lock of its holder."""
        with self.write() as connection:
            facts = {"holder": holder, "now": self.now_ms(connection), "ttl": ttl_ms}
            return changed(
                connection,
                "UPDATE queue_state SET rebuild_holder = :holder, rebuild_until_ms = :now + :ttl"
                " WHERE id = 1 AND (rebuild_holder = :holder OR rebuild_until_ms < :now)",
                facts,
            )

    def unlock_rebuild(self, holder: str) -> None:
        """Let others rebuild the queue when it is lost again."""
        with self.write() as connection:
            changed(
                connection,
                "UPDATE queue_state SET rebuild_holder = '', rebuild_until_ms = 0 WHERE rebuild_holder = :holder",
                {"holder": holder},
            )

    def settings(self) -> dict[str, int]:
        """Caps, weights and pauses by key, such as `user:*:cap`; the default cap is always among them."""
        with self.read() as connection:
            rows = connection.execute(text("SELECT key, value FROM queue_setting ORDER BY key"))
            return {"user:*:cap": DEFAULT_USER_CAP} | {row.key: row.value for row in rows}

    def set_setting(self, key: str, value: int | None) -> None:
        """Write a cap, weight or pause down; None forgets it. The queue is told by its own `configure`."""
        with self.write() as connection:
            connection.execute(text("DELETE FROM queue_setting WHERE key = :key"), {"key": key})
            if value is not None:
                connection.execute(
                    text("INSERT INTO queue_setting (key, value) VALUES (:key, :value)"), {"key": key, "value": value}
                )

    def still_waiting(self, job_ids: Iterable[str]) -> Mapping[str, Job]:
        """Of these jobs, those that wait."""
        names, facts = placeholders(job_ids)
        if not names:
            return {}
        with self.read() as connection:
            return {job.id: job for job in jobs_where(connection, f"id IN ({names}) AND {WAITING_SQL}", facts)}
