"""The tables. Times are milliseconds since 1970; JSON columns hold text so that both databases read the same."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Text, text
from sqlmodel import Field, SQLModel

BIG = BigInteger().with_variant(Integer, "sqlite")
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
SQLModel.metadata.naming_convention = NAMING


def _counter() -> Column[int]:
    return Column(BIG, primary_key=True, autoincrement=True)


def _big(default: int | None = 0) -> Column[int]:
    return Column(BIG, nullable=default is None, server_default=None if default is None else str(default))


def _flag() -> Column[int]:
    return Column(Integer, nullable=False, server_default="0")


def _job() -> Column[str]:
    return Column(Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)


def _json() -> Column[str]:
    return Column(Text, nullable=True)


class AppUser(SQLModel, table=True):
    """Somebody who may ask for dubs."""

    __tablename__ = "app_user"
    __table_args__ = (Index("uq_app_user_tailscale_login", "tailscale_login", unique=True),)

    id: str = Field(sa_column=Column(Text, primary_key=True))
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    role: str = Field(sa_column=Column(Text, nullable=False))
    password_hash: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    disabled: int = Field(default=0, sa_column=_flag())
    created_ms: int = Field(sa_column=_big())
    quota_mb: int = Field(default=0, sa_column=_flag())
    tailscale_login: str | None = Field(default=None, sa_column=Column(Text, nullable=True))


class JobRow(SQLModel, table=True):
    """A job: the truth about it. `seq` orders submissions and is never used twice."""

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_waiting", "seq", sqlite_where=text("state IN ('pending', 'delayed')"),
              postgresql_where=text("state IN ('pending', 'delayed')")),
        Index("ix_job_outbox", "seq", sqlite_where=text("indexed = 0"), postgresql_where=text("indexed = 0")),
        Index("ix_job_running", "user_id", sqlite_where=text("state = 'running'"),
              postgresql_where=text("state = 'running'")),
        Index("ix_job_user_seq", "user_id", "seq"),
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    seq: int | None = Field(default=None, sa_column=_counter())
    id: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    user_id: str = Field(sa_column=Column(Text, ForeignKey("app_user.id"), nullable=False))
    pool: str = Field(sa_column=Column(Text, nullable=False))
    priority: int = Field(sa_column=Column(Integer, nullable=False))
    cost: int = Field(sa_column=Column(Integer, nullable=False))
    state: str = Field(sa_column=Column(Text, nullable=False))
    epoch: int = Field(default=0, sa_column=_big())
    attempt: int = Field(default=0, sa_column=_flag())
    max_attempts: int = Field(sa_column=Column(Integer, nullable=False))
    crash_count: int = Field(default=0, sa_column=_flag())
    orphan_count: int = Field(default=0, sa_column=_flag())
    run_at_ms: int = Field(default=0, sa_column=_big())
    lease_until_ms: int = Field(default=0, sa_column=_big())
    owner: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    asked: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    indexed: int = Field(default=0, sa_column=_flag())
    request: str = Field(sa_column=Column(Text, nullable=False))
    progress: str | None = Field(default=None, sa_column=_json())
    result: str | None = Field(default=None, sa_column=_json())
    error: str | None = Field(default=None, sa_column=_json())
    created_ms: int = Field(sa_column=_big())
    started_ms: int | None = Field(default=None, sa_column=_big(None))
    finished_ms: int | None = Field(default=None, sa_column=_big(None))
    shared: int = Field(default=0, sa_column=_flag())


class TargetRow(SQLModel, table=True):
    """One target language of a job."""

    __tablename__ = "target"

    job_id: str = Field(sa_column=_job())
    language: str = Field(sa_column=Column(Text, primary_key=True))
    position: int = Field(sa_column=Column(Integer, nullable=False))
    state: str = Field(default="pending", sa_column=Column(Text, nullable=False, server_default="pending"))
    result: str | None = Field(default=None, sa_column=_json())


class LineRow(SQLModel, table=True):
    """One line of one target language, as the pages show it; the job's folder holds its audio."""

    __tablename__ = "line"

    job_id: str = Field(sa_column=_job())
    language: str = Field(sa_column=Column(Text, primary_key=True))
    position: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    start_ms: int = Field(sa_column=_big())
    end_ms: int = Field(sa_column=_big())
    source: str = Field(sa_column=Column(Text, nullable=False))
    text: str = Field(sa_column=Column(Text, nullable=False))
    speaker: str = Field(sa_column=Column(Text, nullable=False))
    flag: str | None = Field(default=None, sa_column=Column(Text, nullable=True))


class EventRow(SQLModel, table=True):
    """What happened to a job; ids grow, so a reader asks for what came after the last one it saw."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_job_id_id", "job_id", "id"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, sa_column=_counter())
    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id", ondelete="CASCADE"), nullable=False))
    user_id: str = Field(sa_column=Column(Text, nullable=False))
    at_ms: int = Field(sa_column=_big())
    kind: str = Field(sa_column=Column(Text, nullable=False))
    data: str = Field(sa_column=Column(Text, nullable=False))


class IdempotencyKey(SQLModel, table=True):
    """A submission that was answered before."""

    __tablename__ = "idempotency_key"

    user_id: str = Field(sa_column=Column(Text, primary_key=True))
    key: str = Field(sa_column=Column(Text, primary_key=True))
    request_hash: str = Field(sa_column=Column(Text, nullable=False))
    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id", ondelete="CASCADE"), nullable=False))
    created_ms: int = Field(sa_column=_big())


class QueueState(SQLModel, table=True):
    """One row: which queue orders the jobs now. Every start carries its backend_epoch."""

    __tablename__ = "queue_state"

    id: int = Field(default=1, sa_column=Column(Integer, primary_key=True, autoincrement=False))
    backend: str = Field(sa_column=Column(Text, nullable=False))
    backend_epoch: int = Field(sa_column=_big())
    holder: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    rebuild_holder: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    rebuild_until_ms: int = Field(default=0, sa_column=_big())


class QueueSetting(SQLModel, table=True):
    """A cap, a weight or a pause, such as `user:ana:cap` = 3."""

    __tablename__ = "queue_setting"

    key: str = Field(sa_column=Column(Text, primary_key=True))
    value: int = Field(sa_column=Column(Integer, nullable=False))


class DispatcherRow(SQLModel, table=True):
    """A dispatcher and its last sign of life."""

    __tablename__ = "dispatcher"

    name: str = Field(sa_column=Column(Text, primary_key=True))
    serves: int = Field(default=0, sa_column=_flag())
    facts: str = Field(sa_column=Column(Text, nullable=False))
    beat_ms: int = Field(sa_column=_big())
