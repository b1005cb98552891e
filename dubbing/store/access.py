"""Who is let in: sessions, API keys, invitations, and the log of what was done with them.

Secrets arrive as SHA-256 digests (`digest`): this package never stores one that could be used.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from dubbing.errors import ForbiddenError, NotFoundError
from dubbing.jobs import Actor, Role
from dubbing.store.database import changed, run
from dubbing.store.people import USER_COLUMNS, User, UserRows, user_of

SESSION_MS = 30 * 86_400_000
"""A session not used for this long has ended."""
TOUCH_MS = 60_000
"""`used_ms` is written at most this often."""
INVITE_MS = 7 * 86_400_000
Scope = Literal["read", "write"]
_HOLDER_FIELDS = USER_COLUMNS.split(", ")
_HOLDER = ", ".join(f"u.{column}" for column in _HOLDER_FIELDS)


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is logged in, as its user sees it."""

    id: str
    """The first 16 digits of the hash: enough to name it, useless to enter with."""
    created_ms: int
    used_ms: int
    agent: str
    """User-Agent of the browser, shortened."""
    address: str
    """Where it logged in from."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A program that may act for its user."""

    id: str
    name: str
    scope: Scope
    created_ms: int
    used_ms: int
    """0 when it was never used."""
    expires_ms: int
    """0 for never."""


@dataclass(frozen=True, slots=True)
class Invite:
    """A link that makes one user."""

    id: str
    role: Role
    created_by: str
    """Id of the administrator; empty for the first one's own."""
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Audited:
    """Something somebody did."""

    id: int
    at_ms: int
    user_id: str
    action: str
    """`login`, `login_failed`, `user_added`, ..."""
    subject: str
    address: str


def digest(secret: str) -> str:
    """What is stored of a secret of 128 bits or more; passwords need argon2 instead."""
    return hashlib.sha256(secret.encode()).hexdigest()


class AccessRows(UserRows):
    """What the store knows about who may come in."""

    # --- sessions -------------------------------------------------------------------------------------------------

    def open_session(self, user_id: str, secret: str, *, agent: str = "", address: str = "") -> None:
        """Log a browser in."""
        with self.write() as connection:
            now = self.now_ms(connection)
            facts = {"hash": digest(secret), "user": user_id, "now": now, "end": now + SESSION_MS}
            connection.execute(
                text(
                    "INSERT INTO session (hash, user_id, created_ms, used_ms, expires_ms, agent, address)"
                    " VALUES (:hash, :user, :now, :now, :end, :agent, :address)"
                ),
                {**facts, "agent": agent[:200], "address": address},
            )
            connection.execute(text("DELETE FROM session WHERE expires_ms < :now"), {"now": now})

    def session_user(self, secret: str) -> User | None:
        """The user of a session that is still open; None otherwise."""
        found = self._who_holds("session", "'write'", secret, extend=True)
        return found[0] if found else None

    def sessions(self, user_id: str) -> list[Session]:
        """Open sessions of a user, the latest used first."""
        with self.read() as connection:
            rows = connection.execute(
                text(
                    "SELECT hash, created_ms, used_ms, agent, address FROM session"
                    " WHERE user_id = :user AND expires_ms > :now ORDER BY used_ms DESC, hash"
                ),
                {"user": user_id, "now": self.now_ms(connection)},
            ).all()
        return [Session(row.hash[:16], row.created_ms, row.used_ms, row.agent, row.address) for row in rows]

    def end_session(self, user_id: str, session_id: str) -> None:
        """Log one browser of a user out. Raises NotFoundError."""
        with self.write() as connection:
            statement = "DELETE FROM session WHERE user_id = :user AND substr(hash, 1, 16) = :id"
            if not changed(connection, statement, {"user": user_id, "id": session_id}):
                raise NotFoundError(what=f"session {session_id}")

    def close_session(self, secret: str) -> None:
        """Log out the browser that has this secret."""
        with self.write() as connection:
            connection.execute(text("DELETE FROM session WHERE hash = :hash"), {"hash": digest(secret)})

    def end_sessions(self, user_id: str, *, but: str = "") -> None:
        """Log all browsers of a user out, but the one with this secret."""
        with self.write() as connection:
            connection.execute(
                text("DELETE FROM session WHERE user_id = :user AND hash <> :but"),
                {"user": user_id, "but": digest(but)},
            )

    # --- API keys -------------------------------------------------------------------------------------------------

    def add_key(self, user_id: str, secret: str, *, name: str, scope: Scope, expires_ms: int = 0) -> ApiKey:
        """Let a program act for a user."""
        with self.write() as connection:
            key = ApiKey(uuid.uuid4().hex[:16], name[:80], scope, self.now_ms(connection), 0, expires_ms)
            connection.execute(
                text(
                    "INSERT INTO api_key (id, hash, user_id, name, scope, created_ms, expires_ms)"
                    " VALUES (:id, :hash, :user, :name, :scope, :now, :end)"
                ),
                {
                    "id": key.id, "hash": digest(secret), "user": user_id, "name": key.name, "scope": scope,
                    "now": key.created_ms, "end": expires_ms,
                },
            )  # fmt: skip
        return key

    def key_user(self, secret: str) -> tuple[User, Scope] | None:
        """The user an API key acts for, and what it may do; None for a key that is unknown, ended or revoked."""
        return self._who_holds("api_key", "s.scope", secret, extend=False)

    def keys(self, user_id: str) -> list[ApiKey]:
        """API keys of a user, oldest first."""
        with self.read() as connection:
            rows = connection.execute(
                text(
                    "SELECT id, name, scope, created_ms, used_ms, expires_ms FROM api_key"
                    " WHERE user_id = :user ORDER BY created_ms, id"
                ),
                {"user": user_id},
            ).all()
        return [ApiKey(**row._mapping) for row in rows]

    def end_key(self, user_id: str, key_id: str) -> None:
        """Revoke an API key of a user. Raises NotFoundError."""
        with self.write() as connection:
            statement = "DELETE FROM api_key WHERE user_id = :user AND id = :id"
            if not changed(connection, statement, {"user": user_id, "id": key_id}):
                raise NotFoundError(what=f"API key {key_id}")

    # --- invitations ----------------------------------------------------------------------------------------------

    def has_admin(self) -> bool:
        """Whether somebody can administer this server."""
        with self.read() as connection:
            statement = (
                "SELECT 1 FROM app_user WHERE role = 'admin' AND disabled = 0 AND password_hash IS NOT NULL LIMIT 1"
            )
            return connection.execute(text(statement)).first() is not None

    def add_invite(self, secret: str, role: Role, *, by: Actor | None) -> Invite:
        """Write an invitation down; `by` None is the server itself, for its first administrator. Raises ForbiddenError."""
        if by is not None and not by.sees_all:
            raise ForbiddenError(role=by.role, action="invite users")
        with self.write() as connection:
            now = self.now_ms(connection)
            if by is None:
                connection.execute(text("DELETE FROM invite WHERE created_by = ''"))
            invite = Invite(uuid.uuid4().hex[:16], role, by.user_id if by else "", now + INVITE_MS)
            connection.execute(
                text(
                    "INSERT INTO invite (hash, id, role, created_by, created_ms, expires_ms)"
                    " VALUES (:hash, :id, :role, :by, :now, :end)"
                ),
                {
                    "hash": digest(secret), "id": invite.id, "role": role, "by": invite.created_by, "now": now,
                    "end": invite.expires_ms,
                },
            )  # fmt: skip
        return invite

    def invite(self, secret: str) -> Invite:
        """The invitation behind a link. Raises NotFoundError when it was used, withdrawn or has ended."""
        with self.read() as connection:
            return self._invite(connection, secret)

    def invites(self, actor: Actor) -> list[Invite]:
        """Open invitations, for administrators. Raises ForbiddenError."""
        if not actor.sees_all:
            raise ForbiddenError(role=actor.role, action="list invitations")
        with self.read() as connection:
            rows = connection.execute(
                text("SELECT id, role, created_by, expires_ms FROM invite WHERE expires_ms > :now ORDER BY expires_ms"),
                {"now": self.now_ms(connection)},
            ).all()
        return [Invite(**row._mapping) for row in rows]

    def end_invite(self, actor: Actor, invite_id: str) -> None:
        """Withdraw an invitation. Raises ForbiddenError, NotFoundError."""
        if not actor.sees_all:
            raise ForbiddenError(role=actor.role, action="withdraw invitations")
        with self.write() as connection:
            if not changed(connection, "DELETE FROM invite WHERE id = :id", {"id": invite_id}):
                raise NotFoundError(what=f"invitation {invite_id}")

    def accept_invite(self, secret: str, name: str, password_hash: str) -> User:
        """Make the user of an invitation, which is used up by that. Raises NotFoundError, UsageError, NameTakenError."""
        with self.write() as connection:
            invite = self._invite(connection, secret)
            user = self.insert_user(connection, name, invite.role, password_hash)
            connection.execute(text("DELETE FROM invite WHERE id = :id"), {"id": invite.id})
        return user

    # --- audit ----------------------------------------------------------------------------------------------------

    def audit(self, user_id: str, action: str, subject: str = "", address: str = "") -> None:
        """Write down what somebody did."""
        with self.write() as connection:
            connection.execute(
                text(
                    "INSERT INTO audit (at_ms, user_id, action, subject, address)"
                    " VALUES (:now, :user, :action, :subject, :address)"
                ),
                {
                    "now": self.now_ms(connection), "user": user_id, "action": action, "subject": subject[:200],
                    "address": address,
                },
            )  # fmt: skip

    def audit_log(self, actor: Actor, *, before: int | None = None, limit: int = 100) -> list[Audited]:
        """What was done, newest first, for administrators. Raises ForbiddenError."""
        if not actor.sees_all:
            raise ForbiddenError(role=actor.role, action="read the audit log")
        condition = "" if before is None else "WHERE id < :before"
        with self.read() as connection:
            rows = connection.execute(
                text(
                    f"SELECT id, at_ms, user_id, action, subject, address FROM audit {condition}"
                    " ORDER BY id DESC LIMIT :limit"
                ),
                {"before": before, "limit": limit},
            ).all()
        return [Audited(**row._mapping) for row in rows]

    # --- inside ---------------------------------------------------------------------------------------------------

    def _who_holds(self, table: str, scope: str, secret: str, *, extend: bool) -> tuple[User, Scope] | None:
        """The user who holds a secret of `session` or `api_key`, and what it may do; notes now and then that it was used.

        Every request asks this, so it is one statement.
        """
        with self.read() as connection:
            now = self.now_ms(connection)
            row = run(
                connection,
                f"SELECT {_HOLDER}, s.used_ms, {scope} FROM {table} s JOIN app_user u ON u.id = s.user_id"
                " WHERE s.hash = :hash AND (s.expires_ms = 0 OR s.expires_ms > :now) AND u.disabled = 0",
                {"hash": digest(secret), "now": now},
            ).fetchone()
        if row is None:
            return None
        *facts, used_ms, may = row
        if now - used_ms > TOUCH_MS:
            later = ", expires_ms = :end" if extend else ""
            with self.write() as connection:
                connection.execute(
                    text(f"UPDATE {table} SET used_ms = :now{later} WHERE hash = :hash"),
                    {"now": now, "end": now + SESSION_MS, "hash": digest(secret)},
                )
        return user_of(dict(zip(_HOLDER_FIELDS, facts, strict=True))), may

    def _invite(self, connection: Connection, secret: str) -> Invite:
        row = connection.execute(
            text("SELECT id, role, created_by, expires_ms FROM invite WHERE hash = :hash AND expires_ms > :now"),
            {"hash": digest(secret), "now": self.now_ms(connection)},
        ).first()
        if row is None:
            raise NotFoundError(what="such invitation (it was used, withdrawn, or has ended)")
        return Invite(**row._mapping)
