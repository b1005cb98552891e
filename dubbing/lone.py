"""The store as the dispatcher inside a `dub run` sees it: one job, and a queue of its own that holds nothing else.

Such a dispatcher takes part in everything that is written in rows (fencing, caps, pauses, events) and in nothing that
is shared beyond them: it takes no lock, leaves the queue in charge as it is, and touches no other job. So any number
of them may run beside each other and beside a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dubbing.config import Settings
from dubbing.jobs import Job, State
from dubbing.store import Backend, InCharge, Store, database_url


class OneJobStore(Store):
    """A Store for the dispatcher `name`, which dispatches the job `job_id` alone."""

    def __init__(self, settings: Settings, job_id: str, name: str) -> None:
        super().__init__(database_url(settings))
        self._job_id, self._lone_holder = job_id, name

    def in_charge(self) -> InCharge:
        """Our own queue, under the epoch that every write has to carry."""
        return InCharge("local", super().in_charge().backend_epoch, self._lone_holder)

    def put_in_charge(self, backend: Backend, *, holder: str, seen_epoch: int) -> InCharge | None:
        """Nothing changes for anybody else."""
        return self.in_charge()

    def lock_rebuild(self, holder: str, ttl_ms: int) -> bool:
        """Nobody else fills our queue."""
        return True

    def unlock_rebuild(self, holder: str) -> None:
        """See `lock_rebuild`."""

    def mark_indexed(self, jobs: Iterable[Job], backend_epoch: int) -> None:
        """The job stays in the outbox: a server must find it there, should we die."""

    def outbox(self, limit: int) -> list[Job]:
        """See `waiting`."""
        return self.waiting(0, limit)

    def waiting(self, after_seq: int, limit: int) -> list[Job]:
        """Our job, while it waits."""
        job = self.peek(self._job_id)
        waits = job is not None and job.state in (State.PENDING, State.DELAYED) and job.seq > after_seq
        return [job] if job is not None and waits else []

    def running(self) -> list[Job]:
        """Our job, while it runs."""
        job = self.peek(self._job_id)
        return [job] if job is not None and job.state is State.RUNNING else []

    def beat(self, name: str, facts: Mapping[str, Any], *, serves: bool = True) -> None:
        """Nobody else may count on us."""
        super().beat(name, facts, serves=False)
