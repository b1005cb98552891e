"""Where jobs rest: the one door to SQL."""

from __future__ import annotations

from pathlib import Path

from dubbing.config import Settings
from dubbing.store.access import AccessRows, ApiKey, Audited, Invite, Session
from dubbing.store.database import Clock
from dubbing.store.figures import FigureRows
from dubbing.store.live import LiveRows
from dubbing.store.oversight import OversightRows
from dubbing.store.people import User
from dubbing.store.preferences import PreferenceRows
from dubbing.store.presence import ALIVE_S, BEAT_S, Presence, PresenceRows
from dubbing.store.queue_rows import Backend, Backlog, InCharge, QueueRows
from dubbing.store.requests import Event
from dubbing.store.runs import Fence, RunRows
from dubbing.store.uploads import Upload, UploadRows
from dubbing.store.webhooks import WebhookRows

__all__ = [
    "ALIVE_S",
    "BEAT_S",
    "ApiKey",
    "Audited",
    "Backend",
    "Backlog",
    "Event",
    "Fence",
    "InCharge",
    "Invite",
    "Presence",
    "Session",
    "Store",
    "Upload",
    "User",
    "database_file",
    "database_url",
    "open_store",
]


class Store(
    AccessRows,
    RunRows,
    QueueRows,
    PresenceRows,
    OversightRows,
    LiveRows,
    WebhookRows,
    UploadRows,
    FigureRows,
    PreferenceRows,
):
    """Users, sessions, uploads, jobs, runs, the queue's memory and its dispatchers over one database.

    Methods may be called from any thread.
    """


def database_file(settings: Settings) -> Path:
    """The SQLite file that is used when no DUBBING_DATABASE_URL is set."""
    return settings.state / "dubbing.sqlite3"


def open_store(settings: Settings, clock: Clock | None = None) -> Store:
    """Open the database of these settings, making it if needed. Raises StoreError, SchemaError."""
    return Store(database_url(settings), clock)


def database_url(settings: Settings) -> str:
    """The database of these settings."""
    return settings.database_url or f"sqlite:///{database_file(settings)}"
