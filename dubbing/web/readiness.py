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
from dubbing.web import words
from dubbing.web.catalogues import gettext, ngettext
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
    name = gettext("Database")
    try:
        desk.store.ping()
        facts = {"name": desk.store.name, "schema": desk.store.schema_version()}
        yield Check(name, "ok", gettext("%(name)s, schema %(schema)s") % facts)
    except DubbingError as error:
        yield Check(name, "error", words.message(error), words.advice(error))


def _queue(desk: Office) -> Iterator[Check]:
    name = gettext("Queue")
    try:
        desk.choice.queue.ping()
        stats = desk.choice.queue.stats()
    except DubbingError as error:
        yield Check(name, "error", words.message(error), words.advice(error))
        return
    counts = {"pending": stats.pending, "delayed": stats.delayed, "leased": stats.leased}
    known = gettext("It knows %(pending)s waiting, %(delayed)s for later, %(leased)s running.") % counts
    yield Check(name, "ok", f"{words.remark(desk.choice.reason)} {known}")
    for warning in desk.choice.warnings:
        yield Check(name, "warning", warning, gettext("docs/queue.md says what Redis must be like."))


def _dispatcher(desk: Office) -> Iterator[Check]:
    """Who runs the jobs. A lock says so of the SQLite queue, running jobs' leases of any."""
    charge, now, name = desk.store.in_charge(), desk.store.clock_ms(), gettext("Dispatcher")
    leases = [job.lease_until_ms for job in desk.store.running()]
    held = _holder(desk.choice.queue) if isinstance(desk.choice.queue, LocalQueue) else None
    overdue = [lease for lease in leases if lease < now]
    start = gettext("Start `dub serve`; `dubbing-web` without --pages-only does that too.")
    facts: dict[str, object] = {"holder": charge.holder}
    if not charge.holder:
        yield Check(name, "warning", gettext("none has run yet, so no job starts"), start)
    elif held is not None and not held[1]:
        yield Check(name, "error", gettext("%(holder)s has ended, so no job starts") % {"holder": held[0]}, start)
    elif overdue:
        facts |= {"count": len(overdue), "seconds": (now - min(overdue)) // 1000}
        detail = gettext("%(holder)s: %(count)s running jobs were not renewed in time, the worst for %(seconds)s s")
        yield Check(name, "error", detail % facts, start)
    elif leases:
        facts |= {"count": len(leases), "seconds": (min(leases) - now) // 1000}
        detail = ngettext(
            "%(holder)s keeps %(count)s job running, for %(seconds)s s more at least",
            "%(holder)s keeps %(count)s jobs running, for %(seconds)s s more at least",
            len(leases),
        )
        yield Check(name, "ok", detail % facts)
    elif held:
        yield Check(name, "ok", gettext("%(holder)s is alive") % facts)
    else:
        detail = gettext("%(holder)s was the last in charge; nothing runs that would tell whether it still is")
        yield Check(name, "ok", detail % facts)


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
    for name, folder in ((gettext("Results"), desk.settings.output_dir), (gettext("State"), desk.settings.state)):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(existing, os.W_OK):
            fix = gettext("Give it to the user that runs the server.")
            yield Check(name, "error", gettext("%(folder)s cannot be written") % {"folder": folder}, fix)
            continue
        free = shutil.disk_usage(existing).free // 2**20
        low = free < NEEDED_MB
        fix = gettext("Delete dubs that nobody needs, or set DUBBING_OUTPUT_DIR.") if low else ""
        detail = gettext("%(folder)s, %(free)s MB free") % {"folder": folder, "free": free}
        yield Check(name, "warning" if low else "ok", detail, fix)
