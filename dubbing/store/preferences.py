"""What users chose once for all their dubs, by name."""

from __future__ import annotations

from sqlalchemy import text

from dubbing.store.database import Database


class PreferenceRows(Database):
    """A few short texts for each user; what they mean is the caller's."""

    def preferences(self, user_id: str, prefix: str = "") -> dict[str, str]:
        """Preferences of a user whose names begin with `prefix`, by the rest of the name."""
        with self.read() as connection:
            rows = connection.execute(
                text(
                    "SELECT name, value FROM preference"
                    " WHERE user_id = :user AND substr(name, 1, :length) = :prefix ORDER BY name"
                ),
                {"user": user_id, "prefix": prefix, "length": len(prefix)},
            ).all()
        return {row.name[len(prefix) :]: row.value for row in rows}

    def prefer(self, user_id: str, name: str, value: str | None) -> None:
        """Write a preference down; None forgets it."""
        with self.write() as connection:
            facts = {"user": user_id, "name": name, "value": value}
            connection.execute(text("DELETE FROM preference WHERE user_id = :user AND name = :name"), facts)
            if value is not None:
                connection.execute(
                    text("INSERT INTO preference (user_id, name, value) VALUES (:user, :name, :value)"), facts
                )
