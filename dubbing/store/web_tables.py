"""The tables of the web; see tables.py. Secrets are stored as SHA-256 of what the holder has, never as themselves."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

BIG = BigInteger().with_variant(Integer, "sqlite")


def _text(default: str | None = None) -> Column[str]:
    return Column(Text, nullable=False, server_default=default)


def _key() -> Column[str]:
    return Column(Text, primary_key=True)


def _ms() -> Column[int]:
    return Column(BIG, nullable=False, server_default="0")


def _user() -> Column[str]:
    return Column(Text, ForeignKey("app_user.id", ondelete="CASCADE"), nullable=False)


class SessionRow(SQLModel, table=True):
    """A browser that is logged in."""

    __tablename__ = "session"
    __table_args__ = (Index("ix_session_user_id", "user_id"),)

    hash: str = Field(sa_column=_key())
    user_id: str = Field(sa_column=_user())
    created_ms: int = Field(sa_column=_ms())
    used_ms: int = Field(sa_column=_ms())
    expires_ms: int = Field(sa_column=_ms())
    agent: str = Field(default="", sa_column=_text(""))
    address: str = Field(default="", sa_column=_text(""))


class ApiKeyRow(SQLModel, table=True):
    """A program that may act for a user."""

    __tablename__ = "api_key"

    id: str = Field(sa_column=_key())
    hash: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    user_id: str = Field(sa_column=_user())
    name: str = Field(sa_column=_text())
    scope: str = Field(sa_column=_text())
    created_ms: int = Field(sa_column=_ms())
    used_ms: int = Field(sa_column=_ms())
    expires_ms: int = Field(sa_column=_ms())


class InviteRow(SQLModel, table=True):
    """A link that makes one user; the first administrator's is made at the first start."""

    __tablename__ = "invite"

    hash: str = Field(sa_column=_key())
    id: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    role: str = Field(sa_column=_text())
    created_by: str = Field(default="", sa_column=_text(""))
    created_ms: int = Field(sa_column=_ms())
    expires_ms: int = Field(sa_column=_ms())


class AuditRow(SQLModel, table=True):
    """Who did what to whom, for administrators."""

    __tablename__ = "audit"
    __table_args__ = {"sqlite_autoincrement": True}

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    at_ms: int = Field(sa_column=_ms())
    user_id: str = Field(default="", sa_column=_text(""))
    action: str = Field(sa_column=_text())
    subject: str = Field(default="", sa_column=_text(""))
    address: str = Field(default="", sa_column=_text(""))


class UploadRow(SQLModel, table=True):
    """A file on its way in, or arrived and waiting for its job; its bytes lie in the uploads folder under its id."""

    __tablename__ = "upload"
    __table_args__ = (Index("ix_upload_user_id", "user_id"),)

    id: str = Field(sa_column=_key())
    user_id: str = Field(sa_column=_user())
    name: str = Field(sa_column=_text())
    size: int = Field(sa_column=_ms())
    received: int = Field(default=0, sa_column=_ms())
    created_ms: int = Field(sa_column=_ms())
    used_ms: int = Field(sa_column=_ms())
    expires_ms: int = Field(sa_column=_ms())


class WebhookRow(SQLModel, table=True):
    """An address that is told how a user's jobs end. Its secret signs what is sent, so it is kept readable."""

    __tablename__ = "webhook"

    id: str = Field(sa_column=_key())
    user_id: str = Field(sa_column=_user())
    url: str = Field(sa_column=_text())
    secret: str = Field(sa_column=_text())
    created_ms: int = Field(sa_column=_ms())


class DeliveryRow(SQLModel, table=True):
    """One message to one webhook; `status` is the last answer's, 0 before the first."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id", name="uq_delivery_webhook_id"),
        Index("ix_delivery_due_ms", "due_ms"),
    )

    id: str = Field(sa_column=_key())
    webhook_id: str = Field(sa_column=Column(Text, ForeignKey("webhook.id", ondelete="CASCADE"), nullable=False))
    event_id: int = Field(sa_column=_ms())
    body: str = Field(sa_column=_text())
    attempt: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    due_ms: int = Field(sa_column=_ms())
    status: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))


class PreferenceRow(SQLModel, table=True):
    """What a user chose once for all his dubs, such as `voice:es`."""

    __tablename__ = "preference"

    user_id: str = Field(sa_column=Column(Text, ForeignKey("app_user.id", ondelete="CASCADE"), primary_key=True))
    name: str = Field(sa_column=_key())
    value: str = Field(sa_column=_text())
