"""Rows to values and values to rows: the one place that knows how a Job lies in its table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from dubbing.jobs import TERMINAL, Job, State
from dubbing.store.database import run
from dubbing.store.webhooks import hooked, message_of, write_deliveries

JOB_COLUMNS = (
    "id, seq, user_id, pool, priority, cost, state, epoch, attempt, max_attempts, crash_count, orphan_count, "
    "run_at_ms, lease_until_ms, owner, asked, request, progress, result, error, created_ms, started_ms, finished_ms, "
    "shared"
)
JOB_FIELDS = JOB_COLUMNS.split(", ")
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
_ENDS = frozenset(state.value for state in TERMINAL)
WAITING_SQL = "state IN ('pending', 'delayed')"


def job_of(row: Sequence[Any]) -> Job:
    """The job a row of JOB_COLUMNS describes."""
    facts: dict[str, Any] = dict(zip(JOB_FIELDS, row, strict=True))
    facts["state"], facts["shared"] = State(facts["state"]), bool(facts["shared"])
    facts["request"] = json.loads(facts["request"])
    for name in ("progress", "result", "error"):
        facts[name] = None if facts[name] is None else json.loads(facts[name])
    return Job(**facts)


def by_index(connection: Connection, index: str) -> str:
    """Names the index a statement must use: without statistics SQLite would read all jobs that ever were."""
    return f"INDEXED BY {index}" if connection.dialect.name == "sqlite" else ""


def jobs_where(connection: Connection, condition: str, facts: Mapping[str, Any], *, index: str = "") -> list[Job]:
    """Jobs that meet an SQL condition (with its ORDER BY and LIMIT), found by an index when one is named."""
    source = f"job {by_index(connection, index)}" if index else "job"
    rows = run(connection, f"SELECT {JOB_COLUMNS} FROM {source} WHERE {condition}", dict(facts)).fetchall()
    return [job_of(row) for row in rows]


def changed_job(connection: Connection, statement: str, facts: Mapping[str, Any]) -> Job | None:
    """Run an UPDATE of one job that names the state it expects; the job as it is now, None when it was not so."""
    row = run(connection, f"{statement} RETURNING {JOB_COLUMNS}", dict(facts)).fetchone()
    return None if row is None else job_of(row)


def one_job(connection: Connection, job_id: str) -> Job | None:
    """The job of that id, whoever it belongs to."""
    found = jobs_where(connection, "id = :id", {"id": job_id})
    return found[0] if found else None


def write_event(connection: Connection, job: Job, kind: str, at_ms: int, data: Mapping[str, Any]) -> None:
    """Add an event; a progress event replaces the last one, for only the newest counts."""
    if kind == "progress":
        run(connection, "DELETE FROM event WHERE job_id = :id AND kind = 'progress'", {"id": job.id})
    write_events(connection, [(job.id, job.user_id, kind, data)], at_ms)


def write_events(connection: Connection, events: Iterable[tuple[str, str, str, Mapping[str, Any]]], at_ms: int) -> None:
    """Add (job id, user id, kind, data) events of one moment, in this order."""
    events = list(events)
    facts = [
        {"job": job_id, "user": user, "at": at_ms, "kind": kind, "data": as_json(data)}
        for job_id, user, kind, data in events
    ]
    if facts:
        statement = "INSERT INTO event (job_id, user_id, at_ms, kind, data) VALUES (:job, :user, :at, :kind, :data)"
        run(connection, statement, facts)
        _tell_webhooks(connection, [event for event in events if event[2] in _ENDS], at_ms)


def _tell_webhooks(connection: Connection, ends: Sequence[tuple[str, str, str, Mapping[str, Any]]], at_ms: int) -> None:
    """Put the ends of jobs in the outboxes of their users' webhooks, inside the transaction that made them true."""
    listening = hooked(connection, {user for _, user, _, _ in ends}) if ends else set()
    for job_id, user, kind, data in ends:
        if user in listening:
            newest = run(connection, "SELECT max(id) FROM event WHERE job_id = :id", {"id": job_id}).fetchone()
            job = one_job(connection, job_id)
            assert job is not None and newest is not None
            event_id = int(newest[0])
            write_deliveries(connection, user, event_id, as_json(message_of(job, kind, event_id, at_ms, data)), at_ms)


def as_json(data: Mapping[str, Any]) -> str:
    """Compact JSON with sorted keys, so that equal data are equal text."""
    return _ENCODER.encode(data)


def placeholders(values: Iterable[str]) -> tuple[str, dict[str, str]]:
    """`:v0, :v1` and its facts, for an IN list."""
    facts = {f"v{n}": value for n, value in enumerate(values)}
    return ", ".join(f":{name}" for name in facts), facts
