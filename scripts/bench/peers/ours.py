"""One run of our queue: submits jobs that do nothing and runs them. Arguments: index or whole, jobs at once, URL, jobs.

index: Redis alone proposes and forgets jobs. whole: the dispatcher as it is deployed, with SQLite rows, fencing tokens,
leases, caps, fair turns of 20 users, priorities in all bands, events and its ticks.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from meter import Meter

from dubbing import config
from dubbing.dispatcher import Dispatcher
from dubbing.intake import Intake
from dubbing.jobs import Job
from dubbing.launching import Report
from dubbing.queue.base import Ticket
from dubbing.queue.choose import choose_queue
from dubbing.queue.redis_queue import RedisQueue
from dubbing.store import open_store

USERS = 20


class NoOpLauncher:
    """Runs a job by doing nothing, at once."""

    def __init__(self, meter: Meter, slots: int) -> None:
        self._meter, self._slots = meter, slots
        self.dispatcher: Dispatcher

    def capacity(self) -> Mapping[str, int]:
        return {"cpu": self._slots}

    def launch(self, job: Job, epoch: int) -> None:
        self._meter.job()
        self.dispatcher.report(Report(job.id, epoch, "finished"))

    def cancel(self, job_id: str, epoch: int, *, force: bool) -> None:
        raise AssertionError(f"job {job_id} was cancelled")

    def poll(self) -> Sequence[tuple[str, int, str]]:
        return ()


def run_index(meter: Meter, url: str, at_once: int) -> None:
    queue = RedisQueue(url)
    queue.begin_rebuild()
    queue.configure("user", "*", "cap", at_once)
    queue.configure("pool", "cpu", "slots", at_once)
    queue.end_rebuild(0)

    def submit() -> None:
        for n in range(meter.jobs):
            queue.enqueue([Ticket(f"{n:032x}", f"u{n % USERS}", "cpu", n % 10, n)])

    meter.submitted(submit)
    while claims := queue.claim("cpu", at_once, owner="bench", ttl_ms=60_000).claims:
        for _ in claims:
            meter.job()
        queue.release([(claim.job_id, claim.token) for claim in claims])
    queue.close()


def run_whole(meter: Meter, url: str, at_once: int, folder: Path) -> None:
    settings = config.load({"DUBBING_STATE_DIR": str(folder), "QUEUE_MODE": "redis", "REDIS_URL": url}, None)
    store = open_store(settings)
    choice = choose_queue(settings, now_ms=store.clock_ms())
    users = [store.add_user(f"u{n}").actor for n in range(USERS)]
    store.set_setting("user:*:cap", at_once)
    launcher = NoOpLauncher(meter, at_once)
    launcher.dispatcher = dispatcher = Dispatcher(store, choice, launcher, name="bench")
    dispatcher.start()
    dispatcher.step()
    intake = Intake(store, choice.queue)

    def submit() -> None:
        for n in range(meter.jobs):
            intake.submit(users[n % USERS], {"n": n}, priority=n * 10 % 101)

    meter.submitted(submit)
    last: list[bool] = []
    meter.done = lambda: last.append(True)
    while not last:
        dispatcher.step()
    dispatcher.step()
    assert store.counts() == {"done": meter.jobs}
    choice.close()
    store.close()


def main() -> None:
    what, at_once, url, jobs = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    meter = Meter(url, jobs)
    with tempfile.TemporaryDirectory(prefix="dub-bench-") as folder:
        if what == "index":
            run_index(meter, url, at_once)
        else:
            run_whole(meter, url, at_once, Path(folder))
    meter.show()


if __name__ == "__main__":
    main()
