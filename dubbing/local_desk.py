"""The jobs of this machine: straight on the store and the queue."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dubbing import line_edits, orders, prepare
from dubbing.config import Settings
from dubbing.desk import Facts, Order
from dubbing.errors import NotFoundError
from dubbing.intake import Intake
from dubbing.jobs import Actor, Job, cost_of
from dubbing.line_edits import Change
from dubbing.queue.base import Scope
from dubbing.queue.choose import Choice, choose_queue
from dubbing.store import Store, User, open_store

ADMIN = Actor("command-line", "admin")
"""Whoever can write the database may do everything with it."""
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class LocalDesk:
    """Store and queue as a command uses them; a Desk."""

    settings: Settings
    store: Store
    choice: Choice
    intake: Intake
    look_s: float = LOOK_S

    @property
    def reason(self) -> str:
        """See Desk."""
        return self.choice.reason

    def user(self, name: str, *, make: bool = False) -> User:
        """The user of that name. Raises NotFoundError unless `make`, UsageError for a bad name."""
        try:
            return self.store.user_by_name(name)
        except NotFoundError:
            if not make:
                raise
            return self.store.add_user(name)

    def submit(self, order: Order) -> Facts:
        """See Desk; raises also the error of a file that cannot be dubbed."""
        length = asyncio.run(prepare.length_ms(order.request, self.settings))
        job, _ = self.intake.submit(
            self.user(order.user, make=True).actor,
            orders.to_json(order.request),
            targets=order.targets,
            priority=order.priority,
            cost=cost_of(length, len(order.targets)),
            run_at_ms=order.run_at_ms,
        )
        return self._facts(job)

    def job(self, job_id: str) -> Facts:
        """See Desk."""
        return self._facts(self.store.job(ADMIN, job_id))

    def jobs(self, *, limit: int, beginning: str = "") -> Sequence[Facts]:
        """See Desk."""
        return [self._facts(job) for job in self.store.jobs(ADMIN, limit=limit, beginning=beginning)]

    def cancel(self, job_id: str) -> Facts:
        """See Desk."""
        return self._facts(self.intake.cancel(ADMIN, job_id))

    def retry(self, job_id: str) -> Facts:
        """See Desk."""
        return self._facts(self.intake.retry(ADMIN, job_id))

    def pause(self, job_id: str) -> Facts:
        """See Desk."""
        return self._facts(self.intake.pause(ADMIN, job_id))

    def resume(self, job_id: str) -> Facts:
        """See Desk."""
        return self._facts(self.intake.resume(ADMIN, job_id))

    def switch(self, user: str | None, *, paused: bool) -> None:
        """See Desk."""
        scope: Scope = "user" if user else "global"
        name = self.user(user).id if user else ""
        self.intake.configure(ADMIN, scope, name, "paused", 1 if paused else None)

    def queue(self) -> Mapping[str, Any]:
        """See Desk."""
        charge = self.store.in_charge()
        return {
            "reason": self.choice.reason,
            "in_charge": {"queue": charge.backend, "dispatcher": charge.holder},
            "alive": [one.name for one in self.store.present() if one.serves],
            "jobs": self.store.counts(),
            "settings": self.store.settings(),
            "warnings": list(self.choice.warnings),
        }

    def lines(self, job: Facts, tag: str) -> Mapping[str, Any]:
        """See Desk."""
        folder = _folder(job)
        lines = line_edits.read_lines(folder, tag)
        edits, version = line_edits.read_edits(folder, tag)
        applying = line_edits.applying(lines, edits)
        rows = []
        for row in lines.lines:
            edit = applying.get(row.line)
            facts = row.model_dump(mode="json", exclude={"clip", "edit"})
            locked = edit is not None and edit.locked
            rows.append(
                facts | {"edit": edit.wanted if edit else {}, "locked": locked, "changed": row.is_changed_by(edit)}
            )
        voices = [voice.model_dump() for voice in lines.voices]
        return {"target": tag, "version": version, "voices": voices, "lines": rows}

    def change_lines(self, job: Facts, tag: str, changes: Mapping[int, Change]) -> None:
        """See Desk."""
        line_edits.change(_folder(job), tag, changes)

    def bring(self, job: Facts, names: Sequence[str], folder: Path, told: Callable[[str, int, int], None]) -> None:
        """See Desk: copies."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            source, half = _folder(job) / name, folder / f".{name}.part"
            if not source.is_file():
                raise NotFoundError(what=f"file named {name}")
            shutil.copy2(source, half)
            half.replace(folder / name)
            size = (folder / name).stat().st_size
            told(name, size, size)

    def _facts(self, job: Job) -> Facts:
        facts = asdict(job)
        request = facts.pop("request")
        owner = self.store.user(facts.pop("user_id")).name
        return {
            **{
                key: facts[key]
                for key in ("id", "priority", "attempt", "crash_count", "asked", "progress", "result", "error")
            },
            **{key: facts[key] for key in ("created_ms", "started_ms", "finished_ms", "run_at_ms")},
            "state": job.state.shown,
            "user": owner,
            "source": str(request.get("source", "")),
            "targets": list(request.get("targets", ())),
        }


@contextmanager
def open_local(settings: Settings) -> Iterator[LocalDesk]:
    """Open what the commands need. Raises StoreError, QueueDownError, SettingsError."""
    store = open_store(settings)
    try:
        choice = choose_queue(settings, now_ms=store.clock_ms())
        try:
            yield LocalDesk(settings, store, choice, Intake(store, choice.queue))
        finally:
            choice.close()
    finally:
        store.close()


def _folder(job: Facts) -> Path:
    """Where the results of a job lie. Raises NotFoundError before it has ended once."""
    report = (job["result"] or {}).get("report")
    if not report:
        raise NotFoundError(what="result of this job yet")
    return Path(str(report)).parent
