"""What the live streams read: jobs that changed, whoever they belong to, and which doors are still open."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import text

from dubbing.jobs import Actor, Job
from dubbing.store.database import run
from dubbing.store.requests import RequestRows
from dubbing.store.rows import as_json, jobs_where, placeholders

_LATEST = "SELECT job_id, max(id) AS id FROM event WHERE id > :after GROUP BY job_id ORDER BY id LIMIT :limit"


@dataclass(frozen=True, slots=True)
class Change:
    """A job and the latest event that made it what it is."""

    event_id: int
    job: Job

    def seen_by(self, actor: Actor) -> bool:
        """Whether somebody may know of it."""
        return actor.sees_all or self.job.shared or self.job.user_id == actor.user_id


class LiveRows(RequestRows):
    """Reads for streams. These do not ask who wants to know: the streams do, for each of their readers."""

    def last_event(self) -> int:
        """Id of the newest event; 0 when there is none."""
        with self.read() as connection:
            ((newest,),) = run(connection, "SELECT coalesce(max(id), 0) FROM event", {}).fetchall()
            return int(newest)

    def changes(self, *, after: int, known: Collection[int] = (), limit: int = 500) -> list[Change]:
        """Jobs with events after an id, each once with its latest event that is not `known`, oldest event first."""
        with self.read() as connection:
            found = run(connection, _LATEST, {"after": after, "limit": limit}).fetchall()
            rows = [(job, newest) for job, newest in found if newest not in known]
            if not rows:
                return []
            names, facts = placeholders(job for job, _ in rows)
            jobs = {job.id: job for job in jobs_where(connection, f"id IN ({names})", facts)}
        return [Change(newest, jobs[job]) for job, newest in rows if job in jobs]

    def is_named(self, column: Literal["request", "progress", "result"], name: str, value: str) -> bool:
        """Whether any job's request, progress or result names this text: jobs over the same film share files."""
        part = re.sub(r"([%_\\])", r"\\\1", as_json({name: value})[1:-1])
        statement = rf"SELECT 1 FROM job WHERE {column} LIKE :part ESCAPE '\' LIMIT 1"
        with self.read() as connection:
            return connection.execute(text(statement), {"part": f"%{part}%"}).first() is not None

    def doors(self) -> Mapping[str, Actor]:
        """Who stands behind each open session and API key, by the hash of its secret."""
        statement = (
            "SELECT d.hash, u.id, u.role FROM"
            " (SELECT hash, user_id, expires_ms FROM session UNION ALL SELECT hash, user_id, expires_ms FROM api_key) d"
            " JOIN app_user u ON u.id = d.user_id"
            " WHERE u.disabled = 0 AND (d.expires_ms = 0 OR d.expires_ms > :now)"
        )
        with self.read() as connection:
            rows = run(connection, statement, {"now": self.now_ms(connection)}).fetchall()
        return {hashed: Actor(user, role) for hashed, user, role in rows}
