"""What a job queue costs: wall time, CPU of this process and CPU of Redis, from one moment to another."""

from __future__ import annotations

import itertools
import json
import resource
import time
from collections.abc import Callable

import redis

WARM_UP = 10
"""The first of so many jobs are not measured."""


class Meter:
    """Measures `jobs` submissions, then the same number of runs. Every queue is measured by it, ours too."""

    def __init__(self, url: str, jobs: int) -> None:
        self.jobs = jobs
        self._client = redis.Redis.from_url(url)
        self._redis_cpu_s()
        self._first = jobs // WARM_UP
        self._ran = itertools.count(1)
        self._figures: dict[str, float] = {}
        self.done: Callable[[], None] = lambda: None
        """Called by the last job."""

    def submitted(self, submit: Callable[[], None]) -> None:
        """Measure `submit`, which submits all jobs."""
        start = self._now()
        submit()
        self._note("submit", start, self.jobs)

    def job(self) -> None:
        """The job of every queue: nothing but this."""
        nth = next(self._ran)
        if nth == self._first:
            self._start = self._now()
        elif nth == self.jobs:
            self._note("run", self._start, self.jobs - self._first)
            self.done()

    def show(self) -> None:
        """Print what was measured as one line of JSON."""
        print(json.dumps(self._figures), flush=True)

    def _now(self) -> tuple[float, float, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return time.perf_counter(), used.ru_utime + used.ru_stime, self._redis_cpu_s()

    def _redis_cpu_s(self) -> float:
        used = self._client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])

    def _note(self, what: str, start: tuple[float, float, float], jobs: int) -> None:
        wall_s, own_s, redis_s = (now - then for now, then in zip(self._now(), start, strict=True))
        self._figures |= {
            f"{what}_per_s": jobs / wall_s,
            f"{what}_cpu_us": own_s / jobs * 1e6,
            f"{what}_redis_us": redis_s / jobs * 1e6,
        }
