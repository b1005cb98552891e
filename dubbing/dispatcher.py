"""Claims the next job while a slot is free, launches it, renews its lease, and ends, retries or takes back its run.

A loop without memory that matters: killed at any point, the next one mends what it left (`reconcile`).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dubbing.demand import demand
from dubbing.errors import DubbingError, StoreError
from dubbing.failpoints import reach
from dubbing.jobs import POOLS, WAITING, Job
from dubbing.launching import Launcher, Report, Run, Word
from dubbing.queue.base import Claim, Extended
from dubbing.queue.choose import Choice
from dubbing.reconcile import Reconciler, Times
from dubbing.store import BEAT_S, Fence, Store

log = logging.getLogger(__name__)
LOST = "Run %s of job %s had lost its job: nothing was written."


def new_name() -> str:
    """A dispatcher's name that no other process has had: host, pid and something random."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Dispatcher:
    """The loop. `heartbeat`, `report`, `demand` and `stop` may be called from any thread, all else from the loop's."""

    def __init__(
        self,
        store: Store,
        choice: Choice,
        launcher: Launcher,
        *,
        name: str,
        times: Times | None = None,
        facts: Mapping[str, Any] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name`: see `new_name`. `facts`: see `Presence`."""
        self._times = times or Times()
        self._keep = Reconciler(store, choice, name=name, times=self._times, monotonic=monotonic)
        self._keep.meanwhile = self._renew_rows_during_rebuild
        self._store, self._launcher, self._name = store, launcher, name
        self._monotonic = monotonic
        self._runs: dict[str, Run] = {}
        self._reports: deque[Report] = deque()
        self._stopping = threading.Event()
        self._facts = facts or {}
        self._asleep = self._news = False
        self._tick_at = self._beat_at = -1e9
        self._next_due_ms: int | None = None
        self._refused = False

    # --- for runs -----------------------------------------------------------------------------------------------------

    def heartbeat(self, job_id: str, epoch: int, progress: Mapping[str, Any] | None = None) -> Word:
        """A run lives and is so far; the answer tells it what to do."""
        run = self._runs.get(job_id)
        if run is None or run.job.epoch != epoch or run.fenced:
            return "fenced"
        run.heard_at, run.begun = self._monotonic(), True
        if progress is not None and progress != run.progress:
            run.progress, run.moved_at = progress, run.heard_at
        return run.asked or "go on"

    def report(self, report: Report) -> None:
        """A run ended; the loop writes it down."""
        self._reports.append(report)
        self._news = True
        if self._asleep:
            self._keep.queue.wake()

    # --- the loop -----------------------------------------------------------------------------------------------------

    @property
    def queue_name(self) -> str:
        """The queue in use: redis or local."""
        return self._keep.queue.name

    def demand(self, pool: str) -> int:
        """Slots of a pool its jobs could use now; while it stands by, those of its running jobs. Raises StoreError."""
        backlog = self._store.backlog(pool, self._name)
        return demand(backlog, self._store.settings(), pool) if self._keep.active else backlog.mine

    def run(self) -> None:
        """Dispatch until `stop`. Raises DispatcherHeldError and StoreError at the start only."""
        self.start()
        self.go_on()

    def go_on(self) -> None:
        """Dispatch from `start` until `stop`."""
        while not self._stopping.is_set():
            self._news = False
            self.step()
            self._asleep = True  # before the look at the news: `report` does the same two in the other order
            if not self._news:
                self._keep.queue.wait(self._sleep_s())
            self._asleep = False
        self.shut_down()

    def start(self) -> None:
        """Take the queue in charge, and listen for changes from now on."""
        self._keep.slots = dict(self._launcher.capacity())
        self._keep.start()
        self._keep.queue.wait(0)
        self._beat()

    def stop(self) -> None:
        """End `run` soon."""
        self._stopping.set()
        self._keep.queue.wake()

    def step(self) -> None:
        """One turn of the loop: reports first, for they free slots; claims last."""
        try:
            self._take_reports()
            self._read_wishes()
            if self._monotonic() >= self._tick_at + self._times.tick:
                self._tick_at = self._monotonic()
                self._tick()
            self._claim()
        except StoreError as error:
            log.warning("%s", error.message)
            self._tick_at = self._monotonic()

    def shut_down(self) -> None:
        """Stop all runs and put their jobs back in line; this is no attempt and no crash of theirs."""
        self._take_reports()
        for run in list(self._runs.values()):
            self._launcher.cancel(run.job.id, run.job.epoch, force=True)
            self._end(run, lambda fence: self._store.put_back(fence, wait_ms=0))
        self._store.leave(self._name)

    def _beat(self) -> None:
        """Say that we live."""
        if self._monotonic() - self._beat_at >= BEAT_S:
            self._beat_at = self._monotonic()
            self._store.beat(self._name, self._facts)

    def _sleep_s(self) -> float:
        wake_at = self._tick_at + self._times.tick - self._monotonic()
        if self._next_due_ms is not None:
            due = self._keep.ask(lambda queue: queue.now_ms())
            if due is not None:
                wake_at = min(wake_at, (self._next_due_ms - due) / 1000)
        return max(0.0, min(wake_at, self._times.tick))

    def _tick(self) -> None:
        self._beat()
        capacity = dict(self._launcher.capacity())
        if capacity != self._keep.slots:
            self._keep.slots = capacity
            self._keep.ask(self._keep.push_slots)
        self._keep.tick()
        for job_id, epoch, detail in self._launcher.poll():
            self._reports.append(Report(job_id, epoch, "crashed", {"detail": detail}))
        self._take_reports()
        for run in list(self._runs.values()):
            self._watch(run)
        self._renew()
        self._refused = False

    # --- claims -------------------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        self._next_due_ms = None
        for pool in POOLS:
            while not self._refused:
                free = self._keep.slots.get(pool, 0) - sum(run.job.pool == pool for run in self._runs.values())
                if free <= 0:
                    break
                claims = self._next(pool, free)
                if not claims:
                    break
                reach("claim.leased")
                self._start(claims)

    def _next(self, pool: str, free: int) -> Sequence[Claim]:
        """The jobs of a pool whose turn it is; notes when the next delayed one is due."""
        answer = self._keep.ask(lambda queue: queue.claim(pool, free, owner=self._name, ttl_ms=self._times.lease_ms))
        if answer is None:
            return ()
        if answer.next_due_ms is not None:
            self._next_due_ms = min(self._next_due_ms or answer.next_due_ms, answer.next_due_ms)
        return answer.claims

    def _start(self, claims: Sequence[Claim]) -> None:
        fences = [Fence(claim.job_id, claim.token, self._keep.charge.backend_epoch) for claim in claims]
        jobs = self._store.take_all(fences, owner=self._name, ttl_ms=self._times.lease_ms)
        reach("take.stored")
        for claim, job in zip(claims, jobs, strict=True):
            if job is None:
                # Refused jobs go back in line; asking again at once could spin, so the next claim waits for a tick.
                self._refused = True
                self._keep.settle(claim.job_id, claim.token)
            else:
                self._launch(job)

    def _launch(self, job: Job) -> None:
        now = self._monotonic()
        run = self._runs[job.id] = Run(job, heard_at=now, moved_at=now, index_at=now, row_at=now)
        try:
            self._launcher.launch(job, job.epoch)
        except DubbingError as error:
            log.warning("Job %s could not be launched: %s", job.id, error.message)
            self._end(run, lambda fence: self._store.put_back(fence, wait_ms=round(self._times.relaunch * 1000)))
        reach("launch.done")

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _take_reports(self) -> None:
        """Write down how runs ended; a StoreError leaves the reports for the next turn."""
        while self._reports:
            finished = self._finished_first()
            if finished:
                self._finish(finished)
            elif run := self._run_of(self._reports[0]):
                self._take(run, self._reports[0])
            for _ in range(len(finished) or 1):
                self._reports.popleft()

    def _run_of(self, report: Report) -> Run | None:
        run = self._runs.get(report.job_id)
        return run if run is not None and run.job.epoch == report.epoch else None

    def _finished_first(self) -> list[tuple[Run, Report]]:
        """Our runs that finished according to the first reports, up to a report of another kind."""
        found: dict[str, tuple[Run, Report]] = {}
        for report in list(self._reports):
            run = self._run_of(report)
            if run is None or report.kind != "finished" or report.job_id in found:
                break
            found[report.job_id] = run, report
        return list(found.values())

    def _finish(self, finished: Sequence[tuple[Run, Report]]) -> None:
        """End runs well by one transaction and one word to the queue, so that many short jobs cost little."""
        for run, _ in finished:
            self._save_progress(run)
        written = self._store.finish_all([(self._fence(run), report.data, report.warned) for run, report in finished])
        reach("finish.stored")
        ended = [run.job for (run, _), ours in zip(finished, written, strict=True) if ours]
        for job in ended:
            del self._runs[job.id]
        self._keep.free([(job.id, job.epoch) for job in ended])
        reach("finish.released")
        refused = [pair for pair, ours in zip(finished, written, strict=True) if not ours]
        if refused and self._keep.refresh_charge():
            self._finish(refused)
            refused = []
        for run, _ in refused:
            log.warning(LOST, run.job.epoch, run.job.id)
            del self._runs[run.job.id]

    def _take(self, run: Run, report: Report) -> None:
        self._save_progress(run)

        def write(fence: Fence) -> Job | None:
            if report.kind == "failed":
                return self._store.fail(fence, report.data)
            if report.kind == "postponed":
                return self._store.put_back(fence, wait_ms=round(self._times.relaunch * 1000))
            stopped = self._store.stopped(fence) if report.kind == "stopped" else None
            # A run that stopped though nobody asked was killed from outside, like one that crashed.
            return stopped or self._store.crash(fence, str(report.data.get("detail", "it stopped")), only_expired=False)

        self._end(run, write)

    def _end(self, run: Run, write: Callable[[Fence], Job | None]) -> None:
        """Write the end of a run; a refusal because another queue took charge meanwhile is tried again."""
        job = write(self._fence(run))
        if job is None and self._keep.refresh_charge():
            job = write(self._fence(run))
        del self._runs[run.job.id]
        if job is None:
            log.warning(LOST, run.job.epoch, run.job.id)
            return
        reach("retry.stored" if job.state in WAITING else "finish.stored")
        self._keep.left(job, run.job.epoch)
        reach("retry.requeued" if job.state in WAITING else "finish.released")

    def _fence(self, run: Run) -> Fence:
        return Fence(run.job.id, run.job.epoch, self._keep.charge.backend_epoch)

    # --- runs under way -----------------------------------------------------------------------------------------------

    def _read_wishes(self) -> None:
        wishes = self._store.wishes() if self._runs else {}
        for (job_id, epoch), asked in wishes.items():
            run = self._runs.get(job_id)
            if run is not None and run.job.epoch == epoch and asked != run.asked:
                run.asked, run.asked_at = asked, self._monotonic()

    def _watch(self, run: Run) -> None:
        """Save progress, climb the ladder of a cancel, and give up runs that hang or can no longer be renewed."""
        now = self._monotonic()
        self._save_progress(run)
        if run.asked == "cancel" and run.cancels < 1 and now - run.asked_at >= self._times.soft_cancel:
            run.cancels = 1
            self._launcher.cancel(run.job.id, run.job.epoch, force=False)
        if run.asked == "cancel" and now - run.asked_at >= self._times.hard_cancel:
            self._launcher.cancel(run.job.id, run.job.epoch, force=True)
            self._end(run, self._store.stopped)
        elif now - max(run.index_at, run.row_at) >= self._times.fence:
            self._drop(run, "its lease could not be renewed")
            if self._silent(run):
                self._store.disown(self._fence(run))
        elif now - run.moved_at >= self._times.stall:
            self._launcher.cancel(run.job.id, run.job.epoch, force=True)
            self._end(run, lambda fence: self._store.crash(fence, "it made no progress", only_expired=False))

    def _save_progress(self, run: Run) -> None:
        if run.progress is not None and run.progress is not run.saved_progress:
            self._store.report_progress(self._fence(run), run.progress)
            run.saved_progress = run.progress

    def _renew(self) -> None:
        """Renew the leases of the runs that report; the others' leases run out."""
        now = self._monotonic()
        alive = self._alive()
        due = [run for run in alive if now - run.index_at >= self._times.renew_index]
        leases = [(run.job.id, run.job.epoch) for run in due]
        answers = self._keep.ask(lambda queue: queue.extend(leases, self._times.lease_ms)) if due else None
        for run, answer in zip(due, answers or (), strict=False):
            if answer in (Extended.OK, Extended.CANCEL):
                run.index_at = now
        reach("renew.index")
        for run in alive:
            if now - run.row_at >= self._times.renew_row:
                self._renew_row(run)
        reach("renew.stored")

    def _alive(self) -> list[Run]:
        """Runs that were heard of lately."""
        return [run for run in self._runs.values() if not self._silent(run)]

    def _silent(self, run: Run) -> bool:
        return self._monotonic() - run.heard_at >= (self._times.fence if run.begun else self._times.begin)

    def _renew_rows_during_rebuild(self) -> None:
        """A refusal waits for the next tick, which asks who is in charge."""
        self._beat()
        now = self._monotonic()
        for run in self._alive():
            due = now - run.row_at >= self._times.renew_row
            if due and self._store.heartbeat(self._fence(run), self._times.lease_ms):
                run.row_at = now

    def _renew_row(self, run: Run) -> None:
        job = self._store.heartbeat(self._fence(run), self._times.lease_ms)
        if job is None and self._keep.refresh_charge():
            job = self._store.heartbeat(self._fence(run), self._times.lease_ms)
        if job is None:
            self._drop(run, "its job was given to another run")
        else:
            run.row_at = self._monotonic()

    def _drop(self, run: Run, why: str) -> None:
        """Stop a run that must not have effects any more; its job is taken back by its lease."""
        log.warning("Run %s of job %s is stopped: %s.", run.job.epoch, run.job.id, why)
        run.fenced = True
        self._launcher.cancel(run.job.id, run.job.epoch, force=True)
        del self._runs[run.job.id]
