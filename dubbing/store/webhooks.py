"""Webhooks and what is sent to them. A delivery is written with the event it tells of, so that none is forgotten."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from dubbing.errors import NotFoundError, UsageError
from dubbing.jobs import Job, State
from dubbing.store.database import Database, changed, run

MOST_WEBHOOKS = 10
"""Of one user."""
WAITS_S = (10, 60, 300, 1_800, 7_200, 21_600, 43_200)
"""From one attempt to the next; after the last wait comes the last attempt, 18 hours behind the first."""
KEPT = 20
"""Deliveries of a webhook that are remembered after they have ended."""
_TYPES = {
    State.DONE: "job.done",
    State.WARNED: "job.done",
    State.FAILED: "job.failed",
    State.CANCELLED: "job.cancelled",
}


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told how the jobs of its owner end."""

    id: str
    url: str
    secret: str
    """Signs what is sent; shown once."""
    created_ms: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that is to be sent now."""

    id: str
    url: str
    secret: str
    body: str
    """JSON; the same bytes at every attempt."""
    attempt: int
    """1 for the first."""
    trusted: bool
    """Whether its owner is an administrator, who may name addresses of the own network."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How a delivery stands, for its owner."""

    webhook_id: str
    event_id: int
    attempt: int
    """Attempts so far."""
    due_ms: int
    """When the next attempt is; 0 when there is none, because it arrived or was given up."""
    status: int
    """HTTP status of the last answer; 0 when there was none."""


class WebhookRows(Database):
    """What the store knows about webhooks; those of others do not exist."""

    def add_webhook(self, user_id: str, url: str, secret: str) -> Webhook:
        """Tell an address of the user's jobs from now on. Raises UsageError when he has too many."""
        with self.write() as connection:
            count = connection.execute(
                text("SELECT count(*) FROM webhook WHERE user_id = :user"), {"user": user_id}
            ).scalar_one()
            if count >= MOST_WEBHOOKS:
                raise UsageError(detail=f"There are {count} webhooks already, and {MOST_WEBHOOKS} are allowed")
            webhook = Webhook(uuid.uuid4().hex[:16], url, secret, self.now_ms(connection))
            connection.execute(
                text(
                    "INSERT INTO webhook (id, user_id, url, secret, created_ms) VALUES (:id, :user, :url, :secret, :now)"
                ),
                {"id": webhook.id, "user": user_id, "url": url, "secret": secret, "now": webhook.created_ms},
            )
        return webhook

    def webhooks(self, user_id: str) -> list[Webhook]:
        """Webhooks of a user, oldest first."""
        statement = "SELECT id, url, secret, created_ms FROM webhook WHERE user_id = :user ORDER BY created_ms, id"
        with self.read() as connection:
            return [Webhook(**row._mapping) for row in connection.execute(text(statement), {"user": user_id})]

    def end_webhook(self, user_id: str, webhook_id: str) -> None:
        """Forget a webhook and what it has not received yet. Raises NotFoundError."""
        with self.write() as connection:
            statement = "DELETE FROM webhook WHERE user_id = :user AND id = :id"
            if not changed(connection, statement, {"user": user_id, "id": webhook_id}):
                raise NotFoundError(what=f"webhook {webhook_id}")

    def deliveries(self, user_id: str) -> list[Sent]:
        """What is and was sent to a user's webhooks, the latest first."""
        statement = (
            "SELECT d.webhook_id, d.event_id, d.attempt, d.due_ms, d.status FROM delivery d"
            " JOIN webhook w ON w.id = d.webhook_id WHERE w.user_id = :user ORDER BY d.event_id DESC, d.webhook_id"
        )
        with self.read() as connection:
            return [Sent(**row._mapping) for row in connection.execute(text(statement), {"user": user_id})]

    def take_deliveries(self, limit: int) -> list[Delivery]:
        """What is due now, each with its next attempt arranged already: a sender that dies loses nothing."""
        statement = (
            "SELECT d.id, d.body, d.attempt, d.due_ms, w.url, w.secret, u.role FROM delivery d"
            " JOIN webhook w ON w.id = d.webhook_id JOIN app_user u ON u.id = w.user_id"
            " WHERE d.due_ms > 0 AND d.due_ms <= :now AND u.disabled = 0 ORDER BY d.due_ms, d.id LIMIT :limit"
        )
        with self.read() as connection:
            facts = {"now": self.now_ms(connection), "limit": limit}
            due = connection.execute(text(statement), facts).all()
        if not due:
            return []
        taken = []
        with self.write() as connection:
            now = self.now_ms(connection)
            for row in due:
                wait = WAITS_S[row.attempt] * 1000 if row.attempt < len(WAITS_S) else None
                facts = {"id": row.id, "seen": row.due_ms, "next": 0 if wait is None else now + wait}
                update = "UPDATE delivery SET attempt = attempt + 1, due_ms = :next WHERE id = :id AND due_ms = :seen"
                if changed(connection, update, facts):
                    trusted = row.role == "admin"
                    taken.append(Delivery(row.id, row.url, row.secret, row.body, row.attempt + 1, trusted))
        return taken

    def settle_delivery(self, delivery_id: str, status: int, *, arrived: bool) -> None:
        """Note how an attempt went; what arrived is not sent again."""
        done = ", due_ms = 0" if arrived else ""
        with self.write() as connection:
            facts = {"id": delivery_id, "status": status, "kept": KEPT}
            connection.execute(text(f"UPDATE delivery SET status = :status{done} WHERE id = :id"), facts)
            mine = "webhook_id = (SELECT webhook_id FROM delivery WHERE id = :id)"
            connection.execute(
                text(
                    f"DELETE FROM delivery WHERE due_ms = 0 AND {mine} AND id NOT IN"
                    f" (SELECT id FROM delivery WHERE {mine} ORDER BY event_id DESC LIMIT :kept)"
                ),
                facts,
            )


def hooked(connection: Connection, users: set[str]) -> set[str]:
    """Those of the users who have a webhook."""
    named = {f"u{n}": user for n, user in enumerate(sorted(users))}
    places = ", ".join(f":{name}" for name in named)
    found = run(connection, f"SELECT DISTINCT user_id FROM webhook WHERE user_id IN ({places})", named).fetchall()
    return {row[0] for row in found}


def message_of(job: Job, kind: str, event_id: int, at_ms: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """What webhooks are told of the event that ended a job."""
    state = State(kind)
    warnings = (job.result or {}).get("warnings", ()) if state in (State.DONE, State.WARNED) else ()
    facts = {"id": job.id, "state": kind, "targets": list(job.request.get("targets", ())), "warnings": list(warnings)}
    error = data.get("error") if state is State.FAILED else None
    return {"id": event_id, "type": _TYPES[state], "created_ms": at_ms, "job": {**facts, "error": error}}


def write_deliveries(connection: Connection, user_id: str, event_id: int, body: str, at_ms: int) -> None:
    """Put a message in the outbox of every webhook of a user, inside the transaction that made it true."""
    connection.execute(
        text(
            "INSERT INTO delivery (id, webhook_id, event_id, body, due_ms)"
            " SELECT w.id || :suffix, w.id, :event, :body, :now FROM webhook w WHERE w.user_id = :user"
        ),
        {"suffix": f".{event_id}", "event": event_id, "body": body, "now": at_ms, "user": user_id},
    )
