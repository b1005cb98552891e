"""The connections: one writer, many readers, over SQLite (write-ahead log, local disk) or PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import SQLAlchemyError

from dubbing.errors import SchemaError, StoreError

SCHEMA = "0005"
"""Newest migration this version knows."""
MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 10_000
OLDEST_SQLITE = (3, 35)
"""The first with UPDATE ... RETURNING."""
Clock = Callable[[], int]


class Database:
    """A database with its schema up to date. Every write is one short transaction; nothing is kept in memory."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        """Open and migrate; `clock` (ms) replaces the database's clock in tests. Raises StoreError, SchemaError."""
        self.url = make_url(url.replace("postgresql://", "postgresql+psycopg://", 1))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._clock = clock
        if self.is_sqlite:
            self._writer, self._reader = _sqlite_engines(Path(str(self.url.database)))
        else:
            self._writer = self._reader = self._postgres_engine()
        try:
            self._migrate()
        except SQLAlchemyError as error:
            self.close()
            raise StoreError(name=self.name, detail=_first_line(error)) from error
        except SchemaError:
            self.close()
            raise

    def _postgres_engine(self) -> Engine:
        try:
            return create_engine(self.url, pool_size=5, pool_pre_ping=True)
        except ImportError as error:
            install = 'pip install "dubbing-pipeline[postgres]"'
            raise StoreError(name=self.name, detail=f"{error.name} is not installed; {install} adds it") from error

    @property
    def name(self) -> str:
        """Where the database is, without its password."""
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections; calling twice is fine."""
        self._writer.dispose()
        self._reader.dispose()

    def ping(self) -> None:
        """Ask the database for an answer. Raises StoreError."""
        with self.read() as connection:
            connection.execute(text("SELECT 1"))

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One write transaction: committed on leaving, rolled back on an error. Raises StoreError."""
        with self._guarded(self._writer) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent reading. Raises StoreError."""
        with self._guarded(self._reader) as connection, connection.begin():
            yield connection

    @contextmanager
    def _guarded(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, self._writer.dialect.loaded_dbapi.Error) as error:
            raise StoreError(name=self.name, detail=_first_line(error)) from error

    def now_ms(self, connection: Connection) -> int:
        """The database host's clock, ms since 1970: the only clock rows are stamped with."""
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return time.time_ns() // 1_000_000
        return int(connection.execute(text("SELECT extract(epoch FROM clock_timestamp()) * 1000")).scalar_one())

    def clock_ms(self) -> int:
        """What the database's clock says now, ms since 1970."""
        with self.read() as connection:
            return self.now_ms(connection)

    def schema_version(self) -> str | None:
        """Newest migration the database has seen; None before the first."""
        with self.read() as connection:
            return _version(connection)

    def _migrate(self) -> None:
        with self._writer.connect() as connection, connection.begin():
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(6083276)"))
            found = _version(connection)
            if found == SCHEMA:
                return
            if found is not None and found > SCHEMA:
                raise SchemaError(name=self.name, found=found, known=SCHEMA)
            upgrade(connection)


def upgrade(connection: Connection) -> None:
    """Run the migrations that the database has not seen, inside the caller's transaction."""
    from alembic import command  # noqa: PLC0415 - most starts have nothing to migrate
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def run(connection: Connection, statement: str, facts: dict[str, Any] | list[dict[str, Any]]) -> DBAPICursor:
    """Run a statement with `:name` parameters as `execute(text(statement), facts)` does, for an eighth of its CPU.

    Several sets of facts run it once for each. The answer is the driver's cursor, whose rows are tuples.
    """
    cursor = connection.connection.cursor()
    ready = _for_driver(statement, connection.dialect.paramstyle)
    if isinstance(facts, list):
        cursor.executemany(ready, facts)
    else:
        cursor.execute(ready, facts)
    return cursor


@lru_cache(maxsize=256)
def _for_driver(statement: str, paramstyle: Any) -> str:
    return str(text(statement).compile(dialect=DefaultDialect(paramstyle=paramstyle)))


def changed(connection: Connection, statement: str, facts: Mapping[str, Any]) -> bool:
    """Run an UPDATE that names the state it expects; True when it found it (one row changed)."""
    return run(connection, statement, dict(facts)).rowcount == 1


def _version(connection: Connection) -> str | None:
    from sqlalchemy import inspect  # noqa: PLC0415 - for migrations only

    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return version


def check_sqlite(path: Path, version: tuple[int, ...]) -> None:
    """Raises StoreError when Python's SQLite is too old."""
    if version < OLDEST_SQLITE:
        found, wanted = (".".join(str(part) for part in numbers) for numbers in (version, OLDEST_SQLITE))
        raise StoreError(name=str(path), detail=f"Python was built with SQLite {found}; {wanted} or newer is needed")


def _sqlite_engines(path: Path) -> tuple[Engine, Engine]:
    """A writer with one connection whose transactions begin IMMEDIATE, and readers that cannot write."""
    check_sqlite(path, sqlite3.sqlite_version_info)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(name=str(path), detail=error.strerror) from error
    shared: dict[str, Any] = {"connect_args": {"check_same_thread": False}, "paramstyle": "named"}
    writer = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0, **shared)
    # as many as the web server has threads: a connection above this number would be opened and closed by each request
    reader = create_engine(f"sqlite:///{path}", pool_size=40, **shared)

    def prepare(connection: Any, query_only: int) -> None:
        # The driver must not begin transactions by itself: it would begin them deferred, and a deferred
        # transaction that turns into a write fails at once instead of waiting for its turn.
        connection.isolation_level = None
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.execute(f"PRAGMA query_only={query_only}").close()

    event.listen(writer, "connect", lambda connection, _: prepare(connection, 0))
    event.listen(reader, "connect", lambda connection, _: prepare(connection, 1))
    event.listen(writer, "begin", lambda connection: run(connection, "BEGIN IMMEDIATE", {}))
    event.listen(reader, "begin", lambda connection: run(connection, "BEGIN", {}))
    return writer, reader


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
