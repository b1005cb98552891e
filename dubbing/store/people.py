"""Users: who may ask. Passwords arrive hashed; this package never sees one."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from dubbing.errors import ForbiddenError, NameTakenError, NotFoundError, UsageError
from dubbing.jobs import Actor, Role
from dubbing.store.database import Database, changed

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
USER_COLUMNS = "id, name, role, password_hash, disabled, created_ms, quota_mb, tailscale_login"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may ask for dubs."""

    id: str
    """32 hexadecimal digits."""
    name: str
    role: Role
    password_hash: str | None
    """None for users who cannot log in by password, such as the user of the command line."""
    disabled: bool
    created_ms: int
    quota_mb: int = 0
    """Megabytes of uploads and results the user may keep; 0 for no limit."""
    tailscale_login: str | None = None
    """By which `tailscale serve` may let him in without a password (ana@example.com); None for nobody."""

    @property
    def actor(self) -> Actor:
        """The user as one who asks."""
        return Actor(self.id, self.role)


class UserRows(Database):
    """What the store knows about users."""

    def add_user(self, name: str, role: Role = "user", password_hash: str | None = None) -> User:
        """Make a user. Raises UsageError for a bad name, NameTakenError."""
        with self.write() as connection:
            return self.insert_user(connection, name, role, password_hash)

    def insert_user(self, connection: Connection, name: str, role: Role, password_hash: str | None) -> User:
        """See `add_user`, inside a transaction of the caller's."""
        if not NAME.fullmatch(name):
            raise UsageError(
                detail=f"The user name {name!r} must be 1 to 64 letters, digits, dots, dashes, @ or underscores"
            )
        if connection.execute(text("SELECT 1 FROM app_user WHERE name = :name"), {"name": name}).first():
            raise NameTakenError(name=name)
        user = User(uuid.uuid4().hex, name, role, password_hash, False, self.now_ms(connection))
        connection.execute(
            text(
                "INSERT INTO app_user (id, name, role, password_hash, created_ms)"
                " VALUES (:id, :name, :role, :hash, :now)"
            ),
            {"id": user.id, "name": name, "role": role, "hash": password_hash, "now": user.created_ms},
        )
        return user

    def user(self, user_id: str) -> User:
        """The user of that id. Raises NotFoundError."""
        return self._user("id", user_id)

    def user_by_name(self, name: str) -> User:
        """The user of that name. Raises NotFoundError."""
        return self._user("name", name)

    def user_by_tailscale_login(self, login: str) -> User:
        """The user whom a tailnet knows by this very login. Raises NotFoundError."""
        return self._user("tailscale_login", login)

    def users(self, actor: Actor) -> list[User]:
        """All users, for administrators. Raises ForbiddenError."""
        if not actor.sees_all:
            raise ForbiddenError(role=actor.role, action="list users")
        with self.read() as connection:
            return [
                user_of(row._mapping)
                for row in connection.execute(text(f"SELECT {USER_COLUMNS} FROM app_user ORDER BY name"))
            ]

    def change_user(
        self, user_id: str, *, role: Role, password_hash: str | None, disabled: bool, quota_mb: int = 0
    ) -> None:
        """Set what can be changed about a user. Raises NotFoundError."""
        facts = {"id": user_id, "role": role, "hash": password_hash, "disabled": int(disabled), "quota": quota_mb}
        with self.write() as connection:
            if not changed(
                connection,
                "UPDATE app_user SET role = :role, password_hash = :hash, disabled = :disabled, quota_mb = :quota"
                " WHERE id = :id",
                facts,
            ):
                raise NotFoundError(what=f"user {user_id}")

    def _user(self, column: str, value: str) -> User:
        with self.read() as connection:
            row = connection.execute(
                text(f"SELECT {USER_COLUMNS} FROM app_user WHERE {column} = :value"), {"value": value}
            ).first()
        if row is None:
            raise NotFoundError(what=f"user {value}")
        return user_of(row._mapping)


def user_of(facts: Mapping[Any, Any]) -> User:
    """The user whom a row of USER_COLUMNS describes."""
    return User(**{**facts, "disabled": bool(facts["disabled"])})
