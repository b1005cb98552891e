"""What a claim costs Redis with 100 and with 100,000 queued jobs of 1,000 users, most of them at their cap.

Measured by Redis itself: commands called and CPU microseconds inside the scripts (INFO commandstats), so that a busy
machine changes little. Prints one line; exit code 0 when the large queue costs at most 1.5 times the small one, else 1.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from dubbing.queue.base import Ticket
from dubbing.queue.redis_queue import RedisQueue

USERS = 1_000
FREE_USERS = 20
"""Users who are not at their cap, and whose jobs are claimed."""
CLAIMS = 500
LIMIT = 1.5


@contextmanager
def own_redis() -> Iterator[str]:
    """The address of a Redis of our own that answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="dub-bench-") as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        url = f"redis://127.0.0.1:{port}/0"
        try:
            # Asked again and again while the server starts.
            with redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.05), 400)) as client:
                client.ping()
            yield url
        finally:
            server.terminate()
            server.wait()


def fill(queue: RedisQueue, jobs: int) -> None:
    """`jobs` waiting jobs; all but FREE_USERS of the users may run nothing more."""
    queue.begin_rebuild()
    for user in range(FREE_USERS, USERS):
        queue.configure("user", f"u{user:04}", "cap", 0)
    tickets = [Ticket(f"j{n:06}", f"u{n % USERS:04}", "gpu", n % 10, n) for n in range(jobs)]
    for start in range(0, jobs, 1_000):
        queue.enqueue(tickets[start : start + 1_000])
    queue.end_rebuild(0)


def cost(url: str, jobs: int) -> tuple[float, float, float]:
    """Commands, microseconds inside Redis and milliseconds at the client of one claim and its return to the line."""
    queue = RedisQueue(url, namespace=f"bench{jobs}")
    fill(queue, jobs)
    client = redis.Redis.from_url(url)
    client.config_resetstat()
    started = time.perf_counter()
    for _ in range(CLAIMS):
        (claim,) = queue.claim("gpu", 1, owner="bench", ttl_ms=60_000).claims
        queue.requeue(claim.job_id, claim.token, epoch=claim.token, run_at_ms=0)
    elapsed_ms = (time.perf_counter() - started) * 1_000
    stats: dict[str, dict[str, Any]] = client.info("commandstats")  # type: ignore[assignment]
    commands = sum(s["calls"] for s in stats.values())
    micros = stats["cmdstat_evalsha"]["usec"]
    client.close()
    queue.close()
    return commands / CLAIMS, micros / CLAIMS, elapsed_ms / CLAIMS


def main() -> int:
    with own_redis() as url:
        cost(url, 100)
        small, large = cost(url, 100), cost(url, 100_000)
    ratios = [big / little for big, little in zip(large, small, strict=True)]
    verdict = "OK" if max(ratios[:2]) <= LIMIT else "FAIL"
    print(
        f"{verdict}: claim + requeue at 100 / 100,000 queued jobs: {small[0]:.1f} / {large[0]:.1f} commands"
        f" (x{ratios[0]:.2f}), {small[1]:.0f} / {large[1]:.0f} us of Redis CPU (x{ratios[1]:.2f}),"
        f" {small[2]:.2f} / {large[2]:.2f} ms at the client; limit x{LIMIT}"
    )
    return 0 if verdict == "OK" else 1


if __name__ == "__main__":
    sys.exit(main())
