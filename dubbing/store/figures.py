"""Figures about everybody's jobs for those who watch the machine: sums, in which nobody's job can be told."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import text

from dubbing.jobs import BANDS, band_of
from dubbing.store.database import Database
from dubbing.store.rows import WAITING_SQL


class FigureRows(Database):
    """Sums over all rows."""

    def waiting_by_band(self) -> dict[int, int]:
        """Band -> jobs that wait, every band named, before ageing."""
        with self.read() as connection:
            rows = connection.execute(
                text(f"SELECT priority, count(*) AS jobs FROM job WHERE {WAITING_SQL} GROUP BY priority")
            )
            found = Counter(dict.fromkeys(range(BANDS), 0))
            for row in rows:
                found[band_of(row.priority)] += row.jobs
        return dict(found)

    def uploads_in_flight(self) -> int:
        """Files of which a part is still to come."""
        with self.read() as connection:
            count = connection.execute(
                text("SELECT count(*) FROM upload WHERE received < size AND (expires_ms = 0 OR expires_ms > :now)"),
                {"now": self.now_ms(connection)},
            )
            return int(count.scalar_one())
