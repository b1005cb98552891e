"""How many slots the jobs could use now, so that a cluster can grow and shrink with them. A pure decision."""

from __future__ import annotations

from collections.abc import Mapping

from dubbing.jobs import DEFAULT_USER_CAP
from dubbing.queue.base import Field, Scope, setting
from dubbing.store import Backlog


def demand(backlog: Backlog, settings: Mapping[str, int], pool: str) -> int:
    """Slots for the dispatcher's running jobs and for those in line that no cap and no pause holds back.

    `settings`: caps and pauses by key, as in the rows.
    """

    def value(scope: Scope, name: str, field: Field) -> int | None:
        return settings.get(setting(scope, name, field))

    if value("global", "", "paused") or value("pool", pool, "paused"):
        return backlog.mine
    caps = (value("global", "", "cap"), value("pool", pool, "cap"))
    room = [cap - sum(backlog.running.values()) for cap in caps if cap is not None]
    everybodys = settings.get(setting("user", "*", "cap"), DEFAULT_USER_CAP)
    eligible = 0
    for user, waiting in backlog.waiting.items():
        cap = value("user", user, "cap")
        free = (everybodys if cap is None else cap) - backlog.running.get(user, 0)
        eligible += 0 if value("user", user, "paused") else max(0, min(waiting, free))
    return backlog.mine + max(0, min([eligible, *room]))
