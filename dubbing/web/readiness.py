"""What `dub doctor` would say of what the web process knows by itself: database, queue, dispatcher, disk."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from dubbing.errors import DubbingError
from dubbing.queue.fallback_local_queue import LocalQueue
from dubbing.web.office import Office

NEEDED_MB = 2000
"""Free disk under which even a short film may not fit."""
_HOLDER = re.compile(r"(?P<name>.*) \(pid (?P<pid>\d+)\)")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "error"]
    detail: str
    fix: str = ""
    """What mends it; empty when all is well."""


def examine(desk: Office) -> list[Check]:
    """Look at everything; starts and changes nothing."""
    return [*_database(desk), *_queue(desk), *_dispatcher(desk), *_disk(desk)]


def _database(desk: Office) -> Iterator[Check]:
    try:
        desk.store.ping()
        yield Check("Database", "ok", f"{desk.store.name}, schema {desk.store.schema_version()}")
    except DubbingError as error:
        yield Check("Database", "error", error.message, error.advice)


def _queue(desk: Office) -> Iterator[Check]:
    try:
        desk.choice.queue.ping()
        stats = desk.choice.queue.stats()
    except DubbingError as error:
        yield Check("Queue", "error", error.message, error.advice)
        return
    counts = f"{stats.pending} waiting, {stats.delayed} for later, {stats.leased} running"
    yield Check("Queue", "ok", f"{desk.choice.reason} It knows {counts}.")
    for warning in desk.choice.warnings:
        yield Check("Queue", "warning", warning, "docs/queue.md says what Redis must be like.")


def _dispatcher(desk: Office) -> Iterator[Check]:
    """Who runs the jobs. A lock says so of the SQLite queue, running jobs' leases of any."""
    charge, now = desk.store.in_charge(), desk.store.clock_ms()
    leases = [job.lease_until_ms for job in desk.store.running()]
    held = _holder(desk.choice.queue) if isinstance(desk.choice.queue, LocalQueue) else None
    overdue = [lease for lease in leases if lease < now]
    start = "Start `dub serve`; `dubbing-web` without --pages-only does that too."
    if not charge.holder:
        yield Check("Dispatcher", "warning", "none has run yet, so no job starts", start)
    elif held is not None and not held[1]:
        yield Check("Dispatcher", "error", f"{held[0]} has ended, so no job starts", start)
    elif overdue:
        detail = f"{len(overdue)} running jobs were not renewed in time, the worst for {(now - min(overdue)) // 1000} s"
        yield Check("Dispatcher", "error", f"{charge.holder}: {detail}", start)
    elif leases:
        rest = (min(leases) - now) // 1000
        yield Check("Dispatcher", "ok", f"{charge.holder} keeps {len(leases)} jobs running, for {rest} s more at least")
    else:
        known = "is alive" if held else "was the last in charge; nothing runs that would tell whether it still is"
        yield Check("Dispatcher", "ok", f"{charge.holder} {known}")


def _holder(queue: LocalQueue) -> tuple[str, bool] | None:
    """Who wrote his name into the dispatcher's lock, and whether that process lives; None when nobody ever did.

    The lock itself is not tried: that would refuse it for a moment to a dispatcher who starts.
    """
    with suppress(OSError):
        if match := _HOLDER.fullmatch(queue.lock.path.read_text(encoding="utf-8", errors="replace").strip()):
            try:
                os.kill(int(match["pid"]), 0)
            except PermissionError:
                return match["name"], True
            except ProcessLookupError:
                return match["name"], False
            return match["name"], True
    return None


def _disk(desk: Office) -> Iterator[Check]:
    for name, folder in (("Results", desk.settings.output_dir), ("State", desk.settings.state)):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(existing, os.W_OK):
            yield Check(name, "error", f"{folder} cannot be written", "Give it to the user that runs the server.")
            continue
        free = shutil.disk_usage(existing).free // 2**20
        low = free < NEEDED_MB
        fix = "Delete dubs that nobody needs, or set DUBBING_OUTPUT_DIR." if low else ""
        yield Check(name, "warning" if low else "ok", f"{folder}, {free} MB free", fix)
