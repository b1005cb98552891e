"""One run of a job queue written in Python: submits jobs that do nothing and runs them. Arguments: queue, URL, jobs.

Runs in an environment that has the queues (see queue_peers.py). Each is set up as its documents advise for many short
jobs: results are not kept where that can be said, and as many jobs run at once as its default allows, or as named.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import Any

from meter import Meter

meter: Meter


def rq_job() -> None:
    """What rq finds by its name."""
    meter.job()


async def arq_job(context: dict[str, Any]) -> None:
    """What arq finds by its name."""
    meter.job()


async def saq_job(context: dict[str, Any]) -> None:
    """What saq finds by its name."""
    meter.job()


def run_dramatiq(url: str, threads: int) -> None:
    import dramatiq  # noqa: PLC0415
    from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415

    broker = RedisBroker(url=url)
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(meter.job, actor_name="job")

    def submit() -> None:
        for _ in range(meter.jobs):
            actor.send()

    meter.submitted(submit)
    last = threading.Event()
    meter.done = last.set
    worker = dramatiq.Worker(broker, worker_threads=threads)
    worker.start()
    last.wait()
    worker.stop()


def run_rq(url: str) -> None:
    import redis  # noqa: PLC0415
    from rq import Queue  # noqa: PLC0415
    from rq.worker import SimpleWorker  # noqa: PLC0415

    client = redis.Redis.from_url(url)
    queue = Queue(connection=client)

    def submit() -> None:
        for _ in range(meter.jobs):
            queue.enqueue("python_peers.rq_job", result_ttl=0)

    meter.submitted(submit)
    worker = SimpleWorker([queue], connection=client, log_job_description=False)
    worker.work(burst=True, logging_level="WARNING")


async def run_arq(url: str) -> None:
    from arq import create_pool  # noqa: PLC0415
    from arq.connections import RedisSettings  # noqa: PLC0415
    from arq.worker import Worker  # noqa: PLC0415

    settings = RedisSettings.from_dsn(url)
    pool = await create_pool(settings)

    async def submit() -> None:
        for _ in range(meter.jobs):
            await pool.enqueue_job("arq_job")

    await _submitted(submit())
    # By default it looks twice a second for at most ten times as many jobs as it runs at once, and sleeps between.
    worker = Worker([arq_job], redis_settings=settings, max_jobs=100, poll_delay=0.01, keep_result=0, burst=True)
    await worker.main()
    await pool.aclose()


async def run_saq(url: str) -> None:
    from saq import Queue, Worker  # noqa: PLC0415

    queue = Queue.from_url(url)
    await queue.connect()

    async def submit() -> None:
        for _ in range(meter.jobs):
            await queue.enqueue("saq_job", ttl=-1)

    await _submitted(submit())
    last = asyncio.Event()
    meter.done = last.set
    worker = Worker(queue, functions=[saq_job], concurrency=10)
    running = asyncio.create_task(worker.start())
    await last.wait()
    await worker.stop()
    await running
    await queue.disconnect()


async def _submitted(submission: Any) -> None:
    start = meter._now()
    await submission
    meter._note("submit", start, meter.jobs)


def main() -> None:
    global meter  # noqa: PLW0603 - jobs are found by name, so they find the meter here
    name, url, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    logging.disable(logging.INFO)
    sys.modules["python_peers"] = sys.modules["__main__"]
    meter = Meter(url, jobs)
    if name.startswith("dramatiq-"):
        run_dramatiq(url, int(name.removeprefix("dramatiq-")))
    elif name == "rq":
        run_rq(url)
    elif name == "arq":
        asyncio.run(run_arq(url))
    else:
        asyncio.run(run_saq(url))
    meter.show()


if __name__ == "__main__":
    main()
