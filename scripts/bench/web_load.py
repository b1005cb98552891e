"""How the pages and the API bear people who watch: users read pages every one to three seconds while jobs' rows change.

A real `dubbing-web --pages-only` over SQLite; the users are coroutines of this process, with sessions of their own, and
a third process changes the rows. First one user alone (idle), then so many at once, then as many requests as the server
bears (the limit). Users come one by one within two seconds. Latencies run from the request to the last byte, without
each user's first two seconds, when he opens his connection and his stream; what this process's own loop was late is told
beside them, for it is part of them. Exit code 0 when with the first number of users p99 stays under 10 times the idle
median and nothing answered 5xx.

  python scripts/bench/web_load.py [--users 200 [400 ...]] [--seconds 20] [--stream]

--stream: each user holds /api/v1/events, too
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dubbing import config  # noqa: E402 - the tree of this script comes first, installed or not
from dubbing.store import Fence, Store, open_store  # noqa: E402
from dubbing.web.identity import COOKIE  # noqa: E402

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
    late_s: list[float] = field(default_factory=list)
    """By how much the loop of this process was late, asked a hundred times a second."""

    def all(self) -> list[float]:
        return [took for found in self.took_s.values() for took in found]


def people(store: Store, count: int) -> list[Person]:
    found = []
    for number in range(count):
        user, secret = store.add_user(f"user{number}", "user", "none"), secrets.token_urlsafe(32)
        store.open_session(user.id, secret)
        found.append(Person(secret, store.submit(user.actor, {"source": f"film{number}.mp4"}, targets=("es",))[0].id))
    return found


def work(store: Store, chosen: list[str]) -> None:
    """Change the progress of jobs twice a second, as the dispatcher writes it, until killed."""
    epoch = store.in_charge().backend_epoch
    fences = [Fence(job, 1, epoch) for job in chosen]
    for fence in fences:
        assert store.take(fence, owner="bench", ttl_ms=3_600_000)
    for step in itertools.count(1):
        for fence in fences:
            speaking = {"stage": "speak", "target": "es", "done": step, "total": 9999, "eta_s": None}
            assert store.report_progress(fence, {"stages": [speaking]})
        time.sleep(0.5)


@contextlib.contextmanager
def jobs_at_work(output: Path, chosen: list[str]) -> Iterator[None]:
    """See `work`, in a process of its own: here it would make the users' clocks late."""
    with subprocess.Popen([sys.executable, __file__, "--work", str(output), *chosen]) as process:
        try:
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """Its address and its process id."""
    settings = {"DUBBING_OUTPUT_DIR": str(folder / "Output"), "DUBBING_LOG_DIR": str(folder / "logs"), "PORT": "0"}
    command = [sys.executable, "-m", "dubbing.web.server", "--pages-only"]
    env = dict(os.environ) | settings | {"QUEUE_MODE": "fallback", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
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


async def watch(session: aiohttp.ClientSession, person: Person, kinds: list[str], seen: Seen, stream: bool) -> None:
    """A person who looks every THINK_S, give or take a half, until cancelled; the first look opens the connection and does not count."""
    await asyncio.sleep(random.random() * THINK_S)
    listening = asyncio.create_task(listen(session, person, seen)) if stream else None
    try:
        unmeasured, at = Seen(), time.monotonic()
        while True:
            await read(session, person, random.choice(kinds), unmeasured if unmeasured.statuses.total() < 1 else seen)
            at += THINK_S * random.uniform(0.5, 1.5)
            await asyncio.sleep(at - time.monotonic())
    finally:
        if listening:
            listening.cancel()


async def listen(session: aiohttp.ClientSession, person: Person, seen: Seen) -> None:
    async with session.get("/api/v1/events", headers={"Cookie": f"{COOKIE}={person.cookie}"}) as answer:
        seen.statuses[answer.status] += 1
        async for line in answer.content:
            seen.events += line.startswith(b"event:")


async def press(session: aiohttp.ClientSession, person: Person, kinds: list[str], seen: Seen) -> None:
    while True:
        await read(session, person, random.choice(kinds), seen)


async def look_at_the_clock(seen: Seen) -> None:
    """How late this process is itself: its users' latencies hold that, too."""
    while True:
        due = time.perf_counter() + 0.01
        await asyncio.sleep(0.01)
        seen.late_s.append(max(0.0, time.perf_counter() - due))


@dataclass
class Load:
    """What so many users saw, and what it cost."""

    seen: Seen
    took_s: float
    server_s: float
    """CPU seconds of the server."""
    client_s: float
    """CPU seconds of this process."""

    @property
    def rate(self) -> float:
        return len(self.seen.all()) / self.took_s


async def together(acts: list[Coroutine[Any, Any, None]], pid: int, seen: Seen, warm_s: float, seconds: float) -> Load:
    """Let all of them act for so long; what they did in the first `warm_s` is forgotten."""
    tasks = [asyncio.create_task(act) for act in (*acts, look_at_the_clock(seen))]
    await asyncio.sleep(warm_s)
    seen.took_s.clear()
    seen.late_s.clear()
    began, server, client = time.monotonic(), cpu_s(pid), time.process_time()
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    load = Load(seen, time.monotonic() - began, cpu_s(pid) - server, time.process_time() - client)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ends:
        if error is not None and not isinstance(error, asyncio.CancelledError):
            raise error
    return load


async def measure(address: str, pid: int, crowd: list[Person], options: argparse.Namespace) -> bool:
    timeout, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(address, timeout=timeout, connector=connector) as session:
        idle, kinds = Seen(), list(KINDS)
        for number in range(90):
            await read(session, crowd[0], kinds[number % len(kinds)], idle)
        median = statistics.median(idle.all())
        print(f"idle: median {median * 1000:.1f} ms of {len(idle.all())} reads")
        verdicts = []
        for users in options.users:
            seen = Seen()
            watching = [watch(session, person, kinds, seen, options.stream) for person in crowd[:users]]
            load = await together(watching, pid, seen, 2 * THINK_S, options.seconds)
            verdicts.append(told(users, load, median, options.stream))
        pressed = Seen()
        limit = await together(
            [press(session, person, kinds, pressed) for person in crowd[:32]], pid, pressed, 1.0, options.seconds / 2
        )
    full = limit.server_s / limit.took_s
    print(
        f"limit: {limit.rate:.0f} reads/s by 32 at once; server {full:.2f} cores, {full / limit.rate * 1000:.1f} ms a read;"
        f" client {limit.client_s / limit.took_s:.2f} cores"
    )
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return verdicts[0] and not set(idle.statuses + pressed.statuses) - {200}


def told(users: int, load: Load, median_s: float, stream: bool) -> bool:
    """Print what so many users saw; whether that is good."""
    for kind, found in sorted(load.seen.took_s.items()):
        print(f"{users} users, {kind}: p50 {cut(found, 50)}, p99 {cut(found, 99)} of {len(found)}")
    p99 = statistics.quantiles(load.seen.all(), n=100)[98]
    wrong = [status for status in load.seen.statuses if status != 200]
    busy = load.server_s / load.took_s
    print(
        f"{users} users: p99 {p99 / median_s:.1f} x the idle median; {load.rate:.0f} reads/s x"
        f" {busy / load.rate * 1000:.1f} ms = {busy:.2f} cores of the server; client {load.client_s / load.took_s:.2f} cores,"
        f" late by p50 {cut(load.seen.late_s, 50)}, p99 {cut(load.seen.late_s, 99)}"
    )
    if stream:
        print(f"{users} streams: {load.seen.events} events")
    print(f"{users} users: answers other than 200: {wrong or 'none'}")
    return p99 <= BOUND * median_s and not wrong


def cut(seconds: list[float], percent: int) -> str:
    return f"{statistics.quantiles(seconds, n=100)[percent - 1] * 1000:.1f} ms"


def opened(output: Path) -> Store:
    return open_store(
        config.load({"DUBBING_OUTPUT_DIR": str(output), "QUEUE_MODE": "fallback"}, env_file=None, secrets_file=None)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[200])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(opened(Path(options.work[0])), options.work[1:])
    with tempfile.TemporaryDirectory(prefix="dub-bench-") as name, server(Path(name)) as (address, pid):
        store = opened(Path(name) / "Output")
        crowd = people(store, max(*options.users, 32))
        store.close()
        gc.collect()
        gc.freeze()  # the users' clocks must not wait for the collector
        with jobs_at_work(Path(name) / "Output", [person.job for person in crowd[:RUNNING]]):
            good = asyncio.run(measure(address, pid, crowd, options))
    print("PASS" if good else "FAIL")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
