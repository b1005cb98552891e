"""A dispatcher in a process of its own, to be killed. Arguments: settings as JSON, name, failpoint or -, nth time.

Each run works for a moment in a thread, writes one line to `effects` (a record of starts) and reports. It dies by
SIGKILL when it reaches its failpoint for the nth time, or ends when its standard input is closed.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from workshop import SHORT

from dubbing import config, failpoints
from dubbing.dispatcher import Dispatcher
from dubbing.jobs import Job
from dubbing.launching import Report
from dubbing.queue.choose import choose_queue
from dubbing.store import open_store


class ThreadLauncher:
    def __init__(self, effects: Path, slots: int) -> None:
        self.effects, self.slots = effects, slots
        self.dispatcher: Dispatcher | None = None

    def capacity(self) -> Mapping[str, int]:
        return {"cpu": self.slots}

    def launch(self, job: Job, epoch: int) -> None:
        threading.Thread(target=self.work, args=(job, epoch), daemon=True).start()

    def work(self, job: Job, epoch: int) -> None:
        assert self.dispatcher is not None
        with self.effects.open("a") as log:
            log.write(f"{job.id} {epoch} {os.getpid()}\n")
        self.dispatcher.heartbeat(job.id, epoch, {"done": 1})
        time.sleep(random.random() * 0.02)
        wish = str(job.request.get("do", "finish"))
        if wish == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if wish == "fail" and job.attempt == 0:
            self.dispatcher.report(Report(job.id, epoch, "failed", {"code": "x", "retryable": True}))
        else:
            self.dispatcher.report(Report(job.id, epoch, "finished", {"by": os.getpid()}))

    def cancel(self, job_id: str, epoch: int, *, force: bool) -> None:
        pass

    def poll(self) -> Sequence[tuple[str, int, str]]:
        return ()


def main() -> None:
    given, name, point, nth = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    settings = config.load(given, None)
    store = open_store(settings)
    launcher = ThreadLauncher(settings.state / "effects", slots=4)
    dispatcher = Dispatcher(store, choose_queue(settings, now_ms=store.clock_ms()), launcher, name=name, times=SHORT)
    launcher.dispatcher = dispatcher
    if point != "-":
        reached = itertools.count(1)

        def die() -> None:
            if next(reached) == nth:
                os.kill(os.getpid(), signal.SIGKILL)

        failpoints.arm(point, die)

    def watch() -> None:
        sys.stdin.read()
        dispatcher.stop()

    threading.Thread(target=watch, daemon=True).start()
    dispatcher.run()


if __name__ == "__main__":
    main()
