"""What administrators do to users, and users to their own password."""

from __future__ import annotations

import re

from sqlalchemy import Connection, text

from dubbing.access_errors import LastAdminError
from dubbing.errors import ForbiddenError, NameTakenError, NotFoundError, UsageError
from dubbing.jobs import Actor, Role
from dubbing.store.access import digest
from dubbing.store.database import changed
from dubbing.store.people import USER_COLUMNS, User, UserRows, user_of

MOST_MB = 2**31 - 1
LOGIN = re.compile(r"[!-~]{1,254}")
"""What is compared with the header of `tailscale serve`: printable ASCII without spaces."""
_CAN_ADMINISTER = "role = 'admin' AND disabled = 0 AND password_hash IS NOT NULL"


class OversightRows(UserRows):
    """Changes of users; each is one transaction."""

    def change_account(
        self,
        actor: Actor,
        user_id: str,
        *,
        role: Role | None = None,
        disabled: bool | None = None,
        quota_mb: int | None = None,
    ) -> User:
        """Change what is given; disabling ends the user's sessions.

        Raises ForbiddenError, NotFoundError, UsageError, LastAdminError when nobody could administer afterwards.
        """
        if not actor.sees_all:
            raise ForbiddenError(role=actor.role, action="change users")
        if quota_mb is not None and not 0 <= quota_mb <= MOST_MB:
            raise UsageError(detail=f"The quota must be 0 (no limit) to {MOST_MB} MB, not {quota_mb}")
        with self.write() as connection:
            if not self.is_sqlite:
                # two administrators who demote each other meet here
                connection.execute(text("SELECT 1 FROM app_user WHERE role = 'admin' ORDER BY id FOR UPDATE"))
            old = self._account(connection, user_id)
            could = self._administrators(connection)
            facts = {
                "id": user_id, "role": old.role if role is None else role,
                "disabled": int(old.disabled if disabled is None else disabled),
                "quota": old.quota_mb if quota_mb is None else quota_mb,
            }  # fmt: skip
            changed(
                connection,
                "UPDATE app_user SET role = :role, disabled = :disabled, quota_mb = :quota WHERE id = :id",
                facts,
            )
            if could and not self._administrators(connection):
                raise LastAdminError(name=old.name)
            if facts["disabled"]:
                connection.execute(text("DELETE FROM session WHERE user_id = :id"), {"id": user_id})
            return self._account(connection, user_id)

    def set_tailscale_login(self, actor: Actor, user_id: str, login: str | None) -> User:
        """Say by what login `tailscale serve` lets a user in; None for by none. A change ends the user's sessions.

        Raises ForbiddenError, NotFoundError, UsageError for what is no login, NameTakenError when another user has it.
        """
        if not actor.sees_all:
            raise ForbiddenError(role=actor.role, action="change users")
        if login is not None and not LOGIN.fullmatch(login):
            raise UsageError(detail=f"{login[:80]!r} is no login of Tailscale such as ana@example.com")
        with self.write() as connection:
            facts = {"id": user_id, "login": login}
            old = self._account(connection, user_id)
            if old.tailscale_login == login:
                return old
            holder = "SELECT 1 FROM app_user WHERE tailscale_login = :login"
            if login is not None and connection.execute(text(holder), facts).first():
                raise NameTakenError(name=login)
            changed(connection, "UPDATE app_user SET tailscale_login = :login WHERE id = :id", facts)
            # whoever had the old login may be in
            connection.execute(text("DELETE FROM session WHERE user_id = :id"), facts)
            return self._account(connection, user_id)

    def set_password(self, user_id: str, password_hash: str, *, keep: str = "") -> None:
        """Replace a password and end the user's sessions, but the one of the secret `keep`. Raises NotFoundError."""
        with self.write() as connection:
            facts = {"id": user_id, "hash": password_hash, "keep": digest(keep)}
            if not changed(connection, "UPDATE app_user SET password_hash = :hash WHERE id = :id", facts):
                raise NotFoundError(what=f"user {user_id}")
            connection.execute(text("DELETE FROM session WHERE user_id = :id AND hash <> :keep"), facts)

    def _account(self, connection: Connection, user_id: str) -> User:
        row = connection.execute(text(f"SELECT {USER_COLUMNS} FROM app_user WHERE id = :id"), {"id": user_id}).first()
        if row is None:
            raise NotFoundError(what=f"user {user_id}")
        return user_of(row._mapping)

    def _administrators(self, connection: Connection) -> int:
        return int(connection.execute(text(f"SELECT count(*) FROM app_user WHERE {_CAN_ADMINISTER}")).scalar_one())
