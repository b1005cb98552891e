"""What administrators do to users, and users to their own password."""

from __future__ import annotations

from sqlalchemy import Connection, text

from dubbing.access_errors import LastAdminError
from dubbing.errors import ForbiddenError, NotFoundError, UsageError
from dubbing.jobs import Actor, Role
from dubbing.store.access import digest
from dubbing.store.database import changed
from dubbing.store.people import USER_COLUMNS, User, UserRows, user_of

MOST_MB = 2**31 - 1
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
