"""How the pages and the API bear people who watch: every user reads a page every two seconds while jobs' rows change.

A real `dubbing-web --pages-only` over SQLite; the users are coroutines of this process, with sessions of their own. First
one user alone (idle), then USERS at once, then as many requests as the server bears (the limit). Latencies run from the
request to the last byte, without each user's first, which opens his connection. Exit code 0 when p99 stays under 10
times the idle median and nothing answered 5xx.

  python scripts/bench/web_load.py [--users 200] [--seconds 20] [--stream]     --stream: each user holds /api/v1/events, too
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from dubbing import config
from dubbing.store import Fence, Store, open_store
from dubbing.web.identity import COOKIE

THINK_S = 2.0
RUNNING = 4
BOUND = 10
API = "/api/v1/jobs/{job}"
KINDS = ("/ui/jobs", "/ui/jobs/{job}", API)


@dataclass
class Person:
    """Somebody with a session and a job."""

    cookie: str
    job: str


@dataclass
class Seen:
    """What came of the requests."""

    took_s: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    events: int = 0

    def all(self) -> list[float]:
        return [took for found in self.took_s.values() for took in found]


def people(store: Store, count: int) -> list[Person]:
    found = []
    for number in range(count):
        user, secret = store.add_user(f"user{number}", "user", "none"), secrets.token_urlsafe(32)
        store.open_session(user.id, secret)
        found.append(Person(secret, store.submit(user.actor, {"source": f"film{number}.mp4"}, targets=("es",))[0].id))
    return found


@contextlib.contextmanager
def jobs_at_work(store: Store, chosen: list[str]) -> Iterator[None]:
    """Jobs whose progress changes twice a second, as the dispatcher writes it."""
    epoch, stop = store.in_charge().backend_epoch, threading.Event()
    fences = [Fence(job, 1, epoch) for job in chosen]
    for fence in fences:
        assert store.take(fence, owner="bench", ttl_ms=3_600_000)

    def work() -> None:
        step = 0
        while not stop.wait(0.5):
            step += 1
            for fence in fences:
                speaking = {"stage": "speak", "target": "es", "done": step, "total": 999, "eta_s": None}
                store.report_progress(fence, {"stages": [speaking]})

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """Its address and its process id."""
    settings = {"DUBBING_OUTPUT_DIR": str(folder / "Output"), "DUBBING_LOG_DIR": str(folder / "logs"), "PORT": "0"}
    command = [sys.executable, "-m", "dubbing.web.server", "--pages-only"]
    env = dict(os.environ) | settings | {"QUEUE_MODE": "fallback"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[1].rstrip("/"), process.pid
        finally:
            process.terminate()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def read(session: aiohttp.ClientSession, person: Person, kind: str, seen: Seen) -> None:
    began = time.perf_counter()
    headers = {"Cookie": f"{COOKIE}={person.cookie}"}
    async with session.get(kind.format(job=person.job), headers=headers, allow_redirects=False) as answer:
        await answer.read()
        seen.statuses[answer.status] += 1
    seen.took_s.setdefault(kind, []).append(time.perf_counter() - began)


async def watch(session: aiohttp.ClientSession, person: Person, kinds: list[str], seen: Seen, until: float) -> None:
    """A person who looks every THINK_S; 0: again at once."""
    await asyncio.sleep(random.random() * THINK_S)
    await read(session, person, random.choice(kinds), Seen())  # opens the connection
    await asyncio.sleep(THINK_S)
    while time.monotonic() < until:
        began = time.monotonic()
        await read(session, person, random.choice(kinds), seen)
        await asyncio.sleep(max(0.0, THINK_S - (time.monotonic() - began)))


async def listen(session: aiohttp.ClientSession, person: Person, seen: Seen) -> None:
    async with session.get("/api/v1/events", headers={"Cookie": f"{COOKIE}={person.cookie}"}) as answer:
        seen.statuses[answer.status] += 1
        async for line in answer.content:
            seen.events += line.startswith(b"event:")


async def press(session: aiohttp.ClientSession, person: Person, kinds: list[str], seen: Seen, until: float) -> None:
    while time.monotonic() < until:
        await read(session, person, random.choice(kinds), seen)


async def measure(address: str, pid: int, crowd: list[Person], seconds: float, stream: bool) -> bool:
    timeout, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(address, timeout=timeout, connector=connector) as session:
        probe = Seen()
        await read(session, crowd[0], API, probe)
        kinds = [kind for kind in KINDS if kind != API or probe.statuses[200]]
        idle, load, limit = Seen(), Seen(), Seen()
        for number in range(90):
            await read(session, crowd[0], kinds[number % len(kinds)], idle)
        streams = [asyncio.create_task(listen(session, person, load)) for person in crowd] if stream else []
        cpu, began = cpu_s(pid), time.monotonic()
        await asyncio.gather(*(watch(session, person, kinds, load, began + seconds) for person in crowd))
        used = (cpu_s(pid) - cpu) / (time.monotonic() - began)
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        cpu, began = cpu_s(pid), time.monotonic()
        await asyncio.gather(*(press(session, person, kinds, limit, began + seconds / 2) for person in crowd[:32]))
        full_s = time.monotonic() - began
        full = (cpu_s(pid) - cpu) / full_s
    median = statistics.median(idle.all())
    p99 = statistics.quantiles(load.all(), n=100)[98]
    wrong = [status for seen in (idle, load, limit) for status in seen.statuses if status != 200]
    print(f"idle: median {median * 1000:.1f} ms of {len(idle.all())} reads")
    for kind in kinds:
        found = load.took_s[kind]
        cuts = statistics.quantiles(found, n=100)
        print(f"{len(crowd)} users, {kind}: p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms of {len(found)}")
    cost = used * seconds / (len(load.all()) + len(crowd)) * 1000
    print(f"{len(crowd)} users: p99 {p99 / median:.1f} x the idle median; {used:.2f} cores, {cost:.1f} ms a read")
    if stream:
        print(f"{len(crowd)} streams: {load.events} events")
    rate = len(limit.all()) / full_s
    print(f"limit: {rate:.0f} reads/s by 32 at once; {full:.2f} cores, {full / rate * 1000:.1f} ms a read")
    print(
        f"answers other than 200: {wrong or 'none'}; load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    return p99 <= BOUND * median and not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--stream", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dub-bench-") as name, server(Path(name)) as (address, pid):
        values = {"DUBBING_OUTPUT_DIR": f"{name}/Output", "QUEUE_MODE": "fallback"}
        store = open_store(config.load(values, env_file=None, secrets_file=None))
        crowd = people(store, max(options.users, RUNNING))
        with jobs_at_work(store, [person.job for person in crowd[:RUNNING]]):
            good = asyncio.run(measure(address, pid, crowd, options.seconds, options.stream))
        store.close()
    print("PASS" if good else "FAIL")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
