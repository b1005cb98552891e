"""A dispatcher in a process of its own whose jobs are tiny. Arguments: Ray's address, settings as JSON, its name.

A job writes `start` and `end` with its node-wide monotonic time to the file `effects`. With `gate` in its request it
waits until the folder `open` holds a file with its id. Ends when standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dubbing.types import JobResult


@dataclass(frozen=True)
class TinyWork:
    """What a coordinator does; picklable."""

    job_id: str
    folder: Path
    gate: bool

    async def run(self, report: Callable[[Any], None]) -> JobResult:
        self.note("start")
        if self.gate:
            while not (self.folder / "open" / self.job_id).exists():
                await asyncio.sleep(0.02)
        self.note("end")
        return JobResult("done", {}, self.folder / "report.json")

    def note(self, what: str) -> None:
        with (self.folder / "effects").open("a") as effects:
            effects.write(f"{time.monotonic_ns()} {what} {self.job_id} {os.getpid()}\n")


def main() -> None:
    address, given, name = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    import ray  # noqa: PLC0415 - a worker that unpickles TinyWork has one already

    from cluster.launcher import RayLauncher  # noqa: PLC0415
    from dubbing import config  # noqa: PLC0415
    from dubbing.dispatcher import Dispatcher  # noqa: PLC0415
    from dubbing.queue.choose import choose_queue  # noqa: PLC0415
    from dubbing.store import open_store  # noqa: PLC0415

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    settings = config.load(given, None, None)
    store = open_store(settings)
    import tiny  # noqa: PLC0415 - so that workers find TinyWork under this name

    launcher = RayLauncher(settings, lambda job: tiny.TinyWork(job.id, settings.state, bool(job.request.get("gate"))))
    dispatcher = Dispatcher(store, choose_queue(settings, now_ms=store.clock_ms()), launcher, name=name)
    launcher.report_to(dispatcher)
    loop = threading.Thread(target=dispatcher.run)
    loop.start()
    sys.stdin.read()
    dispatcher.stop()
    loop.join()
    launcher.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
