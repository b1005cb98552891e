"""Where jobs rest: the one door to SQL."""

from __future__ import annotations

from pathlib import Path

from dubbing.config import Settings
from dubbing.store.access import AccessRows, ApiKey, Audited, Invite, Session
from dubbing.store.database import Clock
from dubbing.store.figures import FigureRows
from dubbing.store.people import User
from dubbing.store.queue_rows import Backend, InCharge, QueueRows
from dubbing.store.requests import Event
from dubbing.store.runs import Fence, RunRows

__all__ = [
    "ApiKey",
    "Audited",
    "Backend",
    "Event",
    "Fence",
    "InCharge",
    "Invite",
    "Session",
    "Store",
    "User",
    "database_file",
    "open_store",
]


class Store(AccessRows, RunRows, QueueRows, FigureRows):
    """Users, sessions, jobs, runs and the queue's memory over one database. Methods may be called from any thread."""


def database_file(settings: Settings) -> Path:
    """The SQLite file that is used when no DUBBING_DATABASE_URL is set."""
    return settings.state / "dubbing.sqlite3"


def open_store(settings: Settings, clock: Clock | None = None) -> Store:
    """Open the database of these settings, making it if needed. Raises StoreError, SchemaError."""
    return Store(settings.database_url or f"sqlite:///{database_file(settings)}", clock)
