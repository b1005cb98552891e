"""Backup and restore of the SQLite database. PostgreSQL has pg_dump, which does it better."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dubbing.errors import BackupError
from dubbing.store.database import SCHEMA

_COUNTED = ("app_user", "job", "target", "line", "event", "queue_setting")


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds."""

    path: Path
    schema: str
    """Newest migration it has seen."""
    rows: Mapping[str, int]
    """By table."""


def backup(database: Path, target: Path) -> BackupReport:
    """Copy a database that may be in use to a new file, and check the copy. Raises BackupError."""
    if not database.is_file():
        raise BackupError(name=database, detail="there is no database to copy")
    if target.exists():
        raise BackupError(name=target, detail="the file exists and is not overwritten")
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source:
            source.execute("VACUUM INTO ?", (str(part),))
        part.chmod(0o600)
        check(part)
        part.replace(target)
    except (sqlite3.Error, OSError) as error:
        part.unlink(missing_ok=True)
        raise BackupError(name=target, detail=str(error)) from error
    return check(target)


def check(path: Path) -> BackupReport:
    """Read a backup through: integrity, schema version, counts. Raises BackupError."""
    if not path.is_file():
        raise BackupError(name=path, detail="there is no such file")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                raise BackupError(name=path, detail=f"it is damaged ({verdict.splitlines()[0]})")
            (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            rows = {t: connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in _COUNTED}
    except sqlite3.Error as error:
        raise BackupError(name=path, detail=str(error)) from error
    if schema > SCHEMA:
        raise BackupError(name=path, detail=f"it was made by a newer version (schema {schema}, known {SCHEMA})")
    return BackupReport(path, schema, rows)


def restore(path: Path, database: Path) -> BackupReport:
    """Put a checked backup in the place of a database that nobody uses; the old one is kept beside it.

    Raises BackupError, also when the database is in use.
    """
    report = check(path)
    part = database.with_name(database.name + ".part")
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_while_in_use(database)
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source:
            source.execute("VACUUM INTO ?", (str(part),))
        part.chmod(0o600)
        if database.exists():
            database.replace(database.with_name(database.name + ".before-restore"))
        for left_over in ("-wal", "-shm"):
            database.with_name(database.name + left_over).unlink(missing_ok=True)
        part.replace(database)
        os.sync()
    except (sqlite3.Error, OSError) as error:
        raise BackupError(name=path, detail=str(error)) from error
    return report


def _refuse_while_in_use(database: Path) -> None:
    """Only the last connection can leave write-ahead mode, so leaving it proves that nobody else is there."""
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=0.2)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        raise BackupError(
            name=database, detail="a server or a command still uses the database; stop it first"
        ) from error
