"""Keeps the queue in agreement with the rows, and decides which queue is in charge.

The rows are right. Whatever the queue forgot, invented or kept too long is mended here, within a second or a lease.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dubbing.failpoints import reach
from dubbing.intake import push
from dubbing.jobs import POOLS, WAITING, Job, State
from dubbing.queue.base import JobQueue, parse_settings, ticket_of
from dubbing.queue.choose import Choice
from dubbing.queue_errors import DispatcherHeldError, QueueDownError
from dubbing.store import Backend, Fence, InCharge, Store

log = logging.getLogger(__name__)
T = TypeVar("T")
PAGE = 500


@dataclass(frozen=True, slots=True)
class Times:
    """How long things may take, seconds; tests make them short."""

    lease: float = 60.0
    """A run that was not renewed for so long is taken back."""
    renew_index: float = 15.0
    """Between renewals of a lease in the queue."""
    renew_row: float = 30.0
    """Between renewals of a lease in its row."""
    fence: float = 45.0
    """A run that could not be renewed for so long stops its own effects."""
    begin: float = 300.0
    """A launched run that was never heard of for so long counts as one that fell silent."""
    tick: float = 1.0
    """Between two looks at the whole."""
    adopt: float = 5.0
    """Between two looks for running jobs the queue does not know."""
    rebuild: float = 10.0
    """A dispatcher that rebuilds the queue and is silent for so long is replaced by another."""
    switch: float = 10.0
    """Redis must be away, or back, for so long before jobs change hands (mode auto)."""
    clock_jump: float = 10.0
    """A larger step of the queue's clock against ours suspends the expiry of leases."""
    stall: float = 1800.0
    """A run without progress for so long counts as crashed."""
    relaunch: float = 5.0
    """Wait after a launch that failed."""
    soft_cancel: float = 20.0
    """After a cancel was asked for, until the launcher is told."""
    hard_cancel: float = 50.0
    """Until the launcher is told to use force and the job counts as cancelled."""

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds."""
        return round(self.lease * 1000)


class Reconciler:
    """One dispatcher's view of the queue in charge. Not for use by several threads."""

    def __init__(
        self, store: Store, choice: Choice, *, name: str, times: Times, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.store, self.name, self.times = store, name, times
        self.queue: JobQueue = choice.queue
        self.charge: InCharge = store.in_charge()
        self.slots: Mapping[str, int] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        """Called now and then during a long rebuild."""
        self._choice = choice
        self._monotonic = monotonic
        self._down_since: float | None = None
        self._redis_back_since: float | None = None
        self._clocks: tuple[int, float] | None = None
        self._settings: dict[str, int] = {}
        """Settings the queue was told of."""
        self._owed: list[tuple[str, int]] = []
        self._swept_to = 0
        self._adopted_at = -1e9

    # --- who is in charge ---------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether this dispatcher may start jobs: its queue is the one in charge, and SQLite has one holder."""
        mine = self.charge.backend == "redis" or self.charge.holder == self.name
        return self.charge.backend == self.queue.name and mine

    def start(self) -> None:
        """Put the chosen queue in charge. Raises DispatcherHeldError, StoreError."""
        if self.queue.name == "local":
            self._lock_local()
            one_machine = self.store.is_sqlite and self.charge.backend == "local"
            self.take_charge("local")
            if one_machine:
                # We hold the lock of whoever ran these jobs, so he is gone, and nobody needs to wait for his leases.
                # Those inside a `dub run` hold no lock; their jobs are theirs while they live.
                lone = {dispatcher.name for dispatcher in self.store.present() if not dispatcher.serves}
                for job in [job for job in self.store.running() if job.owner not in lone]:
                    self._abandoned(job, only_expired=False)
            self.rebuild()
        elif self.charge.backend != "redis":
            self.take_charge("redis")
            self.rebuild()

    def take_charge(self, backend: Backend) -> bool:
        """Hand all jobs to a queue; False when another dispatcher was faster."""
        charge = self.store.put_in_charge(backend, holder=self.name, seen_epoch=self.charge.backend_epoch)
        reach("switch.stored")
        self.charge = charge or self.store.in_charge()
        return charge is not None

    def refresh_charge(self) -> bool:
        """Read who is in charge; True when it changed. Follows a change that another dispatcher made."""
        before, self.charge = self.charge, self.store.in_charge()
        if self.charge.backend == "redis" and self.queue.name == "local" and self._choice.redis is not None:
            self._use(self._choice.redis)
        if before != self.charge:
            part = "this dispatcher starts them" if self.active else "this dispatcher stands by"
            log.warning("%s put the %s queue in charge: %s.", self.charge.holder, self.charge.backend, part)
        return before != self.charge

    def ask(self, question: Callable[[JobQueue], T]) -> T | None:
        """Ask the queue in charge; None while it is down or while we stand by.

        After a failure nothing is asked until the next tick found it alive, for every time-out would hold up the loop.
        """
        if not self.active or self._down_since is not None:
            return None
        try:
            return question(self.queue)
        except QueueDownError as error:
            self._down_since = self._monotonic()
            log.warning("%s", error.message)
            return None

    def _is_up(self) -> bool:
        """Whether the queue answers, and is whole, now."""
        try:
            ready = self.queue.is_ready()
        except QueueDownError:
            if self._down_since is None:
                self._down_since = self._monotonic()
            return False
        self._down_since = None
        if not ready:
            self.rebuild()
        return True

    def switch_if_needed(self) -> None:
        """Mode auto: SQLite takes over when Redis stays away, and hands back when Redis stays back."""
        if self._choice.mode != "auto" or self._choice.redis is None or self._choice.local is None:
            return
        now = self._monotonic()
        if self.queue.name == "redis":
            away = 0.0 if self._down_since is None else now - self._down_since
            if self.charge.backend == "redis" and away >= self.times.switch:
                self._fall_back()
            return
        try:
            self._choice.redis.ping()
        except QueueDownError:
            self._redis_back_since = None
            return
        if self._redis_back_since is None:
            self._redis_back_since = now
        if self.active and now - self._redis_back_since >= self.times.switch:
            log.warning("Redis answers again and takes the jobs back.")
            self.take_charge("redis")
            self._use(self._choice.redis)
            self.rebuild()

    def _fall_back(self) -> None:
        assert self._choice.local is not None
        try:
            self._lock_local()
        except DispatcherHeldError as error:
            log.warning("%s: standing by.", error.message)
            return
        if not self.take_charge("local"):
            self._choice.local.lock.release()
            return
        log.warning("Redis has been away for %.0f s: the SQLite queue takes over.", self.times.switch)
        self._use(self._choice.local)
        self.rebuild()

    def _lock_local(self) -> None:
        assert self._choice.local is not None
        self._choice.local.lock.acquire(self.name)

    def _use(self, queue: JobQueue) -> None:
        if queue.name == "redis" and self._choice.local is not None:
            self._choice.local.lock.release()
        self.queue = queue
        self._down_since = self._redis_back_since = self._clocks = None

    # --- agreement ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One look at everything that may have come apart."""
        self.refresh_charge()
        self.switch_if_needed()
        if not self.active:
            return
        if not self._is_up():
            return
        owed, self._owed = self._owed, []
        for job_id, token in owed:
            self.settle(job_id, token)
        self.ask(self._watch_clock)
        self.ask(self._push_settings)
        self.ask(self._empty_outbox)
        self.ask(lambda queue: queue.tick())
        self.ask(lambda queue: queue.age(PAGE))
        self.ask(self._sweep)
        self._reclaim()
        if self._monotonic() - self._adopted_at >= self.times.adopt:
            self.ask(self._adopt)

    def fence(self, job: Job) -> Fence:
        """The fence of a running job, whoever runs it."""
        return Fence(job.id, job.epoch, self.charge.backend_epoch)

    def settle(self, job_id: str, token: int) -> None:
        """Forget a lease whose row says otherwise, and put the job back in line if the row says it waits."""
        if not self.free([(job_id, token)]):
            return
        job = self.store.peek(job_id)
        if job is not None and job.state in WAITING:
            self.ask(lambda queue: push(self.store, queue, [job], self.charge))

    def free(self, leases: Sequence[tuple[str, int]]) -> bool:
        """Forget leases whose runs are over; False when the queue is down, and then they are owed to it."""
        if leases and self.ask(lambda queue: queue.release(leases)) is None:
            self._owed += leases
            return False
        return True

    def left(self, job: Job, token: int) -> None:
        """A run ended in its row: free its slot, and put the job back in line if it will run again."""
        if job.state not in WAITING:
            self.free([(job.id, token)])
            return
        freed = self.ask(lambda queue: queue.requeue(job.id, token, epoch=job.epoch, run_at_ms=job.run_at_ms))
        if freed:
            self.store.mark_indexed([job], self.charge.backend_epoch)
        if freed is None:
            self._owed.append((job.id, token))

    def rebuild(self) -> None:
        """Fill the queue from the rows; one dispatcher at a time. Order within a band and user is as before."""
        if not self.active or not self.store.lock_rebuild(self.name, round(self.times.rebuild * 1000)):
            return
        log.info("The %s queue is rebuilt from the database.", self.queue.name)
        if self.ask(self._refill):
            self.store.unlock_rebuild(self.name)

    def _refill(self, queue: JobQueue) -> bool:
        queue.begin_rebuild()
        reach("rebuild.wiped")
        self._settings = {}
        self._push_settings(queue)
        self.push_slots(queue)
        seq = 0
        while page := self.store.waiting(seq, PAGE):
            push(self.store, queue, page, self.charge)
            seq = page[-1].seq
            self.meanwhile()
            self.store.lock_rebuild(self.name, round(self.times.rebuild * 1000))
        self._adopt(queue)
        reach("rebuild.loaded")
        queue.end_rebuild(self.times.lease_ms)
        return True

    def push_slots(self, queue: JobQueue) -> None:
        """Tell the queue how many jobs the cluster can run at once."""
        for pool in POOLS:
            queue.configure("pool", pool, "slots", self.slots.get(pool, 0))

    def _push_settings(self, queue: JobQueue) -> None:
        """Tell the queue of caps, weights and pauses that changed in the rows."""
        wanted: dict[str, int | None] = dict.fromkeys(self._settings)
        wanted |= self.store.settings()
        changes = {key: value for key, value in wanted.items() if self._settings.get(key) != value}
        for scope, name, field, value in parse_settings(changes.items()):
            queue.configure(scope, name, field, value)
        self._settings = {key: value for key, value in wanted.items() if value is not None}

    def _adopt(self, queue: JobQueue) -> list[bool]:
        self._adopted_at = self._monotonic()
        running = [(ticket_of(job), job.epoch, job.owner) for job in self.store.running()]
        return queue.adopt(running, self.times.lease_ms)

    def _empty_outbox(self, queue: JobQueue) -> None:
        while outbox := self.store.outbox(PAGE):
            push(self.store, queue, outbox, self.charge)
            if len(outbox) < PAGE:
                return

    def _sweep(self, queue: JobQueue) -> None:
        """Offer a page of the waiting rows to the queue each tick: it may have lost some without our noticing."""
        page = self.store.waiting(self._swept_to, PAGE)
        self._swept_to = page[-1].seq if len(page) == PAGE else 0
        if page:
            queue.enqueue([ticket_of(job) for job in page])

    def _watch_clock(self, queue: JobQueue) -> None:
        theirs, ours = queue.now_ms(), self._monotonic()
        if self._clocks is not None:
            jump = (theirs - self._clocks[0]) / 1000 - (ours - self._clocks[1])
            if abs(jump) > self.times.clock_jump:
                log.warning("The queue's clock jumped by %.0f s: no lease expires for a while.", jump)
                queue.hold_expiry(self.times.lease_ms)
        self._clocks = (theirs, ours)

    def _reclaim(self) -> None:
        """Take back jobs whose lease is past in the queue and in the row."""
        for lease in self.ask(lambda queue: queue.expired(PAGE, self.times.lease_ms // 4)) or ():
            job = self.store.peek(lease.job_id)
            if job is None or job.state is not State.RUNNING or job.epoch != lease.token:
                self.settle(lease.job_id, lease.token)
                continue
            back = self._abandoned(job, only_expired=True)
            reach("reclaim.stored")
            if back is not None:
                log.warning("Job %s was taken back from %s and is %s.", job.id, job.owner or "itself", back.state.value)
                self.left(back, lease.token)
                reach("reclaim.requeued")

    def _abandoned(self, job: Job, *, only_expired: bool) -> Job | None:
        """Put a job back that nobody runs any more.

        A dispatcher that lives disowns a run it hears nothing of, so what is still owned lost its dispatcher.
        """
        if job.owner:
            return self.store.orphan(self.fence(job), f"its dispatcher {job.owner} ended", only_expired=only_expired)
        return self.store.crash(self.fence(job), "its process fell silent", only_expired=only_expired)
