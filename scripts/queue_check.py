"""What both queue verifiers do: dispatch a few jobs of two users through a queue and look at the result."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dubbing.config import Settings
from dubbing.dispatcher import Dispatcher
from dubbing.intake import Intake
from dubbing.jobs import Job, State
from dubbing.launching import Report
from dubbing.queue.choose import Choice
from dubbing.store import Store, open_store

JOBS = 20
SLOTS = 4
USER_CAP = 2


class CountingLauncher:
    """Pretends to run each job for a moment, and counts who runs at the same time."""

    def __init__(self) -> None:
        self.dispatcher: Dispatcher | None = None
        self.started: list[Job] = []
        self.most: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._mutex = threading.Lock()

    def capacity(self) -> Mapping[str, int]:
        return {"cpu": SLOTS}

    def launch(self, job: Job, epoch: int) -> None:
        with self._mutex:
            self.started.append(job)
            self._running[job.user_id] = self._running.get(job.user_id, 0) + 1
            self.most[job.user_id] = max(self.most.get(job.user_id, 0), self._running[job.user_id])
        threading.Timer(0.02, self._end, (job, epoch)).start()

    def _end(self, job: Job, epoch: int) -> None:
        assert self.dispatcher is not None
        with self._mutex:
            self._running[job.user_id] -= 1
        self.dispatcher.report(Report(job.id, epoch, "finished", {}))

    def cancel(self, job_id: str, epoch: int, *, force: bool) -> None:
        """Runs are over in a moment."""

    def poll(self) -> Sequence[tuple[str, int, str]]:
        return ()


def check(settings: Settings, choice: Choice) -> str | None:
    """Dispatch jobs of two users with priorities, one cancelled; None when all is well, else what is wrong."""
    store = open_store(settings)
    launcher = CountingLauncher()
    dispatcher = Dispatcher(store, choice, launcher, name=f"verify-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    launcher.dispatcher = dispatcher
    try:
        return _dispatch(store, Intake(store, choice.queue), dispatcher, launcher) or _leftovers(choice)
    finally:
        store.close()


def _dispatch(store: Store, intake: Intake, dispatcher: Dispatcher, launcher: CountingLauncher) -> str | None:
    admin = store.add_user("admin", "admin").actor
    users = [store.add_user(name).actor for name in ("ana", "ben")]
    intake.configure(admin, "user", "*", "cap", USER_CAP)
    jobs = [intake.submit(users[n % 2], {"n": n}, priority=10 * (n // 2))[0] for n in range(JOBS)]
    intake.cancel(users[0], jobs[0].id)
    loop = threading.Thread(target=dispatcher.run)
    loop.start()
    end = time.monotonic() + 30
    with suppress(KeyboardInterrupt):
        while set(store.counts()) - {"done", "cancelled"} and time.monotonic() < end and loop.is_alive():
            time.sleep(0.05)
    dispatcher.stop()
    loop.join()
    counts = store.counts()
    if counts != {State.DONE.value: JOBS - 1, State.CANCELLED.value: 1}:
        return f"the jobs ended as {counts}"
    if len({job.id for job in launcher.started}) != len(launcher.started):
        return "a job was started twice"
    if max(launcher.most.values()) > USER_CAP:
        return f"a user ran {max(launcher.most.values())} jobs at once, more than his {USER_CAP}"
    for user in users:
        bands = [job.band for job in launcher.started if job.user_id == user.user_id]
        if bands != sorted(bands):
            return f"priorities were not kept: bands {bands}"
    return None


def _leftovers(choice: Choice) -> str | None:
    stats = choice.queue.stats()
    broken = choice.queue.fsck()
    if broken:
        return broken[0]
    return None if stats.pending + stats.delayed + stats.leased == 0 else f"the queue is not empty: {stats}"
