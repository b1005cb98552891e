"""The front door: a request becomes a row, and the queue hears of it. Used by the web and by the command line.

The row is written first and is enough: what the queue did not hear, the dispatcher tells it within a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dubbing.errors import ForbiddenError, UsageError
from dubbing.failpoints import reach
from dubbing.jobs import WAITING, Actor, Job
from dubbing.queue.base import Field, JobQueue, Put, Scope, setting, ticket_of
from dubbing.queue_errors import QueueDownError
from dubbing.store import InCharge, Store


class Intake:
    """What users do to jobs, over the rows and the queue together."""

    def __init__(self, store: Store, queue: JobQueue) -> None:
        self._store = store
        self._queue = queue

    def submit(self, actor: Actor, request: Mapping[str, Any], **options: Any) -> tuple[Job, bool]:
        """See `Store.submit`; answers without waiting for the queue."""
        job, new = self._store.submit(actor, request, **options)
        reach("submit.stored")
        self._tell(job)
        return job, new

    def cancel(self, actor: Actor, job_id: str) -> Job:
        """See `Store.cancel`."""
        return self._take_out(self._store.cancel(actor, job_id))

    def pause(self, actor: Actor, job_id: str) -> Job:
        """See `Store.pause`."""
        return self._take_out(self._store.pause(actor, job_id))

    def resume(self, actor: Actor, job_id: str) -> Job:
        """See `Store.resume`."""
        job = self._store.resume(actor, job_id)
        self._tell(job)
        return job

    def retry(self, actor: Actor, job_id: str) -> Job:
        """See `Store.retry`."""
        job = self._store.retry(actor, job_id)
        self._tell(job)
        return job

    def prioritise(self, actor: Actor, job_id: str, priority: int) -> Job:
        """See `Store.set_priority`."""
        job = self._store.set_priority(actor, job_id, priority)
        self._tell(job)
        return job

    def configure(self, actor: Actor, scope: Scope, name: str, field: Field, value: int | None) -> None:
        """Set a cap, a weight or a pause, for administrators. Raises ForbiddenError, UsageError."""
        if not actor.sees_all:
            raise ForbiddenError(role=actor.role, action="change the queue")
        least = {"cap": 0, "slots": 0, "paused": 0, "weight": 1}[field]
        if value is not None and value < least:
            raise UsageError(detail=f"The {field} must be {least} or more, not {value}")
        self._store.set_setting(setting(scope, name, field), value)
        try:
            if self._store.in_charge().backend == self._queue.name:
                self._queue.configure(scope, name, field, value)
        except QueueDownError:
            return  # the dispatcher reads the settings from their rows

    def _tell(self, job: Job) -> None:
        if job.state not in WAITING:
            return
        charge = self._store.in_charge()
        if charge.backend != self._queue.name:
            return
        try:
            push(self._store, self._queue, [job], charge)
        except QueueDownError:
            return  # the row is in the outbox

    def _take_out(self, job: Job) -> Job:
        try:
            self._queue.cancel(job.id)
        except QueueDownError:
            return job  # a waiting ghost is refused by its row, a running job hears of it by the row
        return job


def push(store: Store, queue: JobQueue, jobs: Sequence[Job], charge: InCharge) -> int:
    """Tell the queue in charge of waiting jobs and note that it knows; how many it took. Raises QueueDownError."""
    answers = queue.enqueue([ticket_of(job) for job in jobs])
    reach("submit.pushed")
    store.mark_indexed(jobs, charge.backend_epoch)
    return sum(answer is Put.OK for answer in answers)
