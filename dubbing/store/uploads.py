"""Files on their way in: whose they are, how far they came, and how much room they take."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from dubbing.errors import NotFoundError
from dubbing.store.database import Database, changed
from dubbing.upload_errors import QuotaError, UploadRoomError

KEPT_MS = 2 * 86_400_000
"""An upload that nobody touched for this long, and that no job took, has ended."""
_COLUMNS = "id, user_id, name, size, received, used_ms, expires_ms"
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that arrives, or has arrived."""

    id: str
    """32 hexadecimal digits; its bytes lie under this name."""
    user_id: str
    name: str
    """What its owner calls it; never part of a path as it is."""
    size: int
    """Bytes it will have."""
    received: int
    """Bytes that were accepted."""
    used_ms: int
    expires_ms: int
    """0 once a job has taken it: then it lasts as long as a job needs it."""

    @property
    def whole(self) -> bool:
        """Whether all of it is here."""
        return self.received == self.size

    @property
    def taken(self) -> bool:
        """Whether a job has it."""
        return self.expires_ms == 0


class UploadRows(Database):
    """What the store knows about uploads; those of others do not exist, whoever asks."""

    def add_upload(
        self, user_id: str, name: str, size: int, *, room: int, quota: int | None = None, kept: int = 0
    ) -> Upload:
        """Begin an upload of `size` bytes where all open ones together may still take `room` bytes.

        `quota` is the user's limit in bytes, None for none, and `kept` what he keeps beside his uploads.
        Raises QuotaError, UploadRoomError.
        """
        with self.write() as connection:
            if quota is not None:
                taken = kept + self._sum(connection, "size", "user_id = :user", {"user": user_id})
                if taken + size > quota:
                    facts = {"need_mb": -(-size // _MB), "free_mb": max(0, quota - taken) // _MB}
                    raise QuotaError(**facts, quota_mb=quota // _MB)
            free = room - self._sum(connection, "size - received", "expires_ms > 0", {})
            if size > free:
                raise UploadRoomError(free_mb=max(0, free) // _MB, need_mb=-(-size // _MB))
            now = self.now_ms(connection)
            upload = Upload(uuid.uuid4().hex, user_id, name, size, 0, now, now + KEPT_MS)
            connection.execute(
                text(
                    "INSERT INTO upload (id, user_id, name, size, received, created_ms, used_ms, expires_ms)"
                    " VALUES (:id, :user, :name, :size, 0, :now, :now, :end)"
                ),
                {"id": upload.id, "user": user_id, "name": name, "size": size, "now": now, "end": upload.expires_ms},
            )
        return upload

    def upload(self, user_id: str, upload_id: str) -> Upload:
        """An upload of this user that has not ended. Raises NotFoundError, also for those of others."""
        with self.read() as connection:
            row = connection.execute(
                text(
                    f"SELECT {_COLUMNS} FROM upload WHERE id = :id AND user_id = :user"
                    " AND (expires_ms = 0 OR expires_ms > :now)"
                ),
                {"id": upload_id, "user": user_id, "now": self.now_ms(connection)},
            ).first()
        if row is None:
            raise NotFoundError(what="such upload (it was never begun, was cancelled, or has ended)")
        return Upload(**row._mapping)

    def note_received(self, upload_id: str, received: int) -> None:
        """Write down how far an upload came, and let it last longer."""
        with self.write() as connection:
            now = self.now_ms(connection)
            changed(
                connection,
                "UPDATE upload SET received = :received, used_ms = :now, expires_ms = :end"
                " WHERE id = :id AND expires_ms > 0",
                {"id": upload_id, "received": received, "now": now, "end": now + KEPT_MS},
            )

    def complete_upload(self, upload_id: str) -> None:
        """What has arrived is all of it: its size was announced with what surrounded it."""
        with self.write() as connection:
            changed(connection, "UPDATE upload SET size = received WHERE id = :id", {"id": upload_id})

    def take_upload(self, upload_id: str) -> None:
        """Give a whole upload to a job: it no longer ends by itself."""
        with self.write() as connection:
            now = self.now_ms(connection)
            changed(
                connection,
                "UPDATE upload SET expires_ms = 0, used_ms = :now WHERE id = :id",
                {"id": upload_id, "now": now},
            )

    def forget_upload(self, upload_id: str) -> None:
        """Remove the row of an upload; its file is the caller's."""
        with self.write() as connection:
            connection.execute(text("DELETE FROM upload WHERE id = :id"), {"id": upload_id})

    def stale_uploads(self) -> list[Upload]:
        """Uploads that have ended: too old, or taken by jobs that are all gone."""
        with self.read() as connection:
            now = self.now_ms(connection)
            rows = connection.execute(
                text(
                    f"SELECT {_COLUMNS} FROM upload u WHERE (expires_ms > 0 AND expires_ms <= :now) OR (expires_ms = 0"
                    " AND used_ms < :old AND NOT EXISTS (SELECT 1 FROM job j WHERE j.user_id = u.user_id"
                    " AND j.request LIKE '%' || u.id || '%'))"
                ),
                {"now": now, "old": now - KEPT_MS},
            ).all()
        return [Upload(**row._mapping) for row in rows]

    @staticmethod
    def _sum(connection: Connection, what: str, condition: str, facts: dict[str, Any]) -> int:
        statement = f"SELECT COALESCE(SUM({what}), 0) FROM upload WHERE {condition}"
        return int(connection.execute(text(statement), facts).scalar_one())
