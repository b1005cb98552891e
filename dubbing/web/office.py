"""What every route may use: settings, store, queue and identity, opened once and closed once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from dubbing.config import Settings
from dubbing.intake import Intake
from dubbing.jobs import Job
from dubbing.queue.choose import Choice, choose_queue
from dubbing.store import Store, open_store
from dubbing.web.arrivals import Arrivals
from dubbing.web.identity import Identity
from dubbing.web.results import Results, folder_of, read
from dubbing.web.traffic import Traffic


@dataclass(frozen=True)
class Office:
    """The web's own desk. The web process never opens media and never loads a model: it writes rows and serves files."""

    settings: Settings
    """With absolute paths."""
    store: Store
    choice: Choice
    """The queue in use, and why."""
    intake: Intake
    identity: Identity
    arrivals: Arrivals = field(default_factory=Arrivals)
    """Uploads that are being received."""
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def uploads(self) -> Path:
        """Folder of files on their way in, named by upload id."""
        return self.settings.state / "uploads"

    @property
    def films(self) -> Path:
        """Folder of uploads that jobs have taken: a folder for each, named by upload id."""
        return self.settings.output_dir / "_uploads"

    def results(self, job: Job) -> Results | None:
        """What lies in a job's folder; None before it has one."""
        folder = folder_of(job)
        return read(folder) if folder else None


@contextmanager
def open_office(settings: Settings) -> Iterator[Office]:
    """Open store and queue for the web. Raises StoreError, SchemaError, QueueDownError, SettingsError."""
    settings = settings.absolute()
    store = open_store(settings)
    try:
        choice = choose_queue(settings, now_ms=store.clock_ms())
        try:
            yield Office(settings, store, choice, Intake(store, choice.queue), Identity(store))
        finally:
            choice.close()
    finally:
        store.close()


async def first_administrator(office: Office) -> str | None:
    """While there is no administrator: make the one of ADMIN_USERNAME, or a setup link; its path, or None.

    Raises WeakPasswordError, NameTakenError, UsageError.
    """
    if office.store.has_admin():
        return None
    name, password = office.settings.admin_username, office.settings.admin_password
    if name and password:
        office.store.add_user(name, "admin", await office.identity.passwords.hash(password))
        return None
    secret = secrets.token_urlsafe(24)
    office.store.add_invite(secret, "admin", by=None)
    return f"/ui/setup/{secret}"


async def _office(request: Request) -> Office:  # a plain function would cost each request a thread
    office: Office = request.app.state.office
    return office


Desk = Annotated[Office, Depends(_office)]
"""A route's parameter of this type is the office."""
