"""Which dispatchers are alive: each says so every other second, by the database's clock, whatever queue is in use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from dubbing.store.database import Database
from dubbing.store.rows import as_json

BEAT_S = 2.0
"""Between two signs of life."""
ALIVE_S = 10.0
"""A dispatcher that was silent for so long counts as dead: five beats, for a machine may be busy."""
FORGET_MS = 3_600_000
_BEAT = """
INSERT INTO dispatcher (name, serves, facts, beat_ms) VALUES (:name, :serves, :facts, :now)
ON CONFLICT (name) DO UPDATE SET serves = :serves, facts = :facts, beat_ms = :now
"""


@dataclass(frozen=True, slots=True)
class Presence:
    """A dispatcher that is alive."""

    name: str
    """As in a running job's `owner`."""
    serves: bool
    """Takes the jobs of everybody; False for the one inside a `dub run`, which takes that command's job alone."""
    facts: Mapping[str, Any]
    """`engines`: kind -> names of those it can use, when it knows."""
    beat_ms: int
    """Its last sign of life."""


class PresenceRows(Database):
    """The dispatchers' signs of life."""

    def beat(self, name: str, facts: Mapping[str, Any], *, serves: bool = True) -> None:
        """Say that a dispatcher lives, and forget those that have long been dead."""
        with self.write() as connection:
            now = self.now_ms(connection)
            what = {"name": name, "serves": int(serves), "facts": as_json(facts), "now": now}
            connection.execute(text(_BEAT), what)
            connection.execute(text("DELETE FROM dispatcher WHERE beat_ms < :past"), {"past": now - FORGET_MS})

    def leave(self, name: str) -> None:
        """Say that a dispatcher has ended."""
        with self.write() as connection:
            connection.execute(text("DELETE FROM dispatcher WHERE name = :name"), {"name": name})

    def present(self) -> list[Presence]:
        """The dispatchers that are alive, the latest sign of life first."""
        statement = "SELECT name, serves, facts, beat_ms FROM dispatcher WHERE beat_ms > :past ORDER BY beat_ms DESC"
        with self.read() as connection:
            past = self.now_ms(connection) - round(ALIVE_S * 1000)
            rows = connection.execute(text(statement), {"past": past}).all()
        return [Presence(row.name, bool(row.serves), json.loads(row.facts), row.beat_ms) for row in rows]
