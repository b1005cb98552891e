"""Rows to values and values to rows: the one place that knows how a Job lies in its table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, text

from dubbing.jobs import TERMINAL, Job, State
from dubbing.store.webhooks import message_of, write_deliveries

JOB_COLUMNS = (
    "id, seq, user_id, pool, priority, cost, state, epoch, attempt, max_attempts, crash_count, run_at_ms, "
    "lease_until_ms, owner, asked, request, progress, result, error, created_ms, started_ms, finished_ms, shared"
)
_ENDS = frozenset(state.value for state in TERMINAL)
WAITING_SQL = "state IN ('pending', 'delayed')"


def job_of(row: Row[Any]) -> Job:
    """The job a row of JOB_COLUMNS describes."""
    facts = dict(row._mapping)
    facts["state"], facts["shared"] = State(facts["state"]), bool(facts["shared"])
    facts["request"] = json.loads(facts["request"])
    for name in ("progress", "result", "error"):
        facts[name] = None if facts[name] is None else json.loads(facts[name])
    return Job(**facts)


def jobs_where(connection: Connection, condition: str, facts: Mapping[str, Any]) -> list[Job]:
    """Jobs that meet an SQL condition (with its ORDER BY and LIMIT)."""
    rows = connection.execute(text(f"SELECT {JOB_COLUMNS} FROM job WHERE {condition}"), dict(facts))
    return [job_of(row) for row in rows]


def one_job(connection: Connection, job_id: str) -> Job | None:
    """The job of that id, whoever it belongs to."""
    found = jobs_where(connection, "id = :id", {"id": job_id})
    return found[0] if found else None


def write_event(connection: Connection, job: Job, kind: str, at_ms: int, data: Mapping[str, Any]) -> None:
    """Add an event; a progress event replaces the last one, for only the newest counts."""
    if kind == "progress":
        connection.execute(text("DELETE FROM event WHERE job_id = :id AND kind = 'progress'"), {"id": job.id})
    connection.execute(
        text("INSERT INTO event (job_id, user_id, at_ms, kind, data) VALUES (:job, :user, :at, :kind, :data)"),
        {"job": job.id, "user": job.user_id, "at": at_ms, "kind": kind, "data": as_json(data)},
    )
    if kind in _ENDS:
        event_id = int(
            connection.execute(text("SELECT max(id) FROM event WHERE job_id = :id"), {"id": job.id}).scalar_one()
        )
        message = message_of(job, kind, event_id, at_ms, data)
        write_deliveries(connection, job.user_id, event_id, as_json(message), at_ms)


def as_json(data: Mapping[str, Any]) -> str:
    """Compact JSON with sorted keys, so that equal data are equal text."""
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def placeholders(values: Iterable[str]) -> tuple[str, dict[str, str]]:
    """`:v0, :v1` and its facts, for an IN list."""
    facts = {f"v{n}": value for n, value in enumerate(values)}
    return ", ".join(f":{name}" for name in facts), facts
