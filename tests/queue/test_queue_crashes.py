"""Processes and servers that are killed: no job is lost, none ends twice, no cap is broken."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from sqlalchemy import text
from workshop import Workshop

from dubbing.failpoints import POINTS
from dubbing.jobs import DEFAULT_USER_CAP, MAX_ORPHANED, State
from dubbing.queue.base import Stats
from tests.services import RedisServer, wait_until

CHAOS = os.environ.get("DUBBING_TEST_CHAOS") == "1"
pytestmark = pytest.mark.timeout(3_600 if CHAOS else 300)
USERS = 4
DEADLY = {
    # A local dispatcher's successor waits for no lease; a dispatcher that starts on Redis changes nobody's charge.
    "local": [p for p in POINTS if not p.startswith(("submit.", "reclaim."))],
    "redis": [p for p in POINTS if not p.startswith(("submit.", "switch."))],
}
CAP_TRIGGER = """
CREATE TRIGGER cap_is_kept AFTER UPDATE OF state ON job WHEN NEW.state = 'running' AND
  (SELECT count(*) FROM job WHERE user_id = NEW.user_id AND state = 'running') > {cap}
BEGIN INSERT INTO violation VALUES (NEW.id); END
"""


class Yard(Workshop):
    """A workshop whose dispatchers are processes."""

    def __init__(self, folder: Path, redis_url: str | None, mode: str = "auto") -> None:
        super().__init__(folder, redis_url, mode)
        self.children: list[subprocess.Popen[bytes]] = []
        self.added = 0
        self.given = {"DUBBING_STATE_DIR": str(folder / "state"), "QUEUE_MODE": mode}
        self.given |= {"REDIS_URL": redis_url} if redis_url else {}
        self.users = [self.store.add_user(f"u{n}").actor for n in range(USERS)]
        with self.store.write() as connection:
            connection.execute(text("CREATE TABLE violation (job TEXT)"))
            connection.exec_driver_sql(CAP_TRIGGER.format(cap=DEFAULT_USER_CAP))

    def spawn(self, point: str = "-", nth: int = 1) -> subprocess.Popen[bytes]:
        here = Path(__file__).parent
        path = f"{here.parents[1]}:{os.environ.get('PYTHONPATH', '')}"
        arguments = [json.dumps(self.given), f"d{len(self.children)}", point, str(nth)]
        with (self.settings.state / "children.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, str(here / "child.py"), *arguments],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        self.children.append(child)
        return child

    def froze(self, child: subprocess.Popen[bytes]) -> bool:
        """Stop a process while it runs jobs and holds no lock: a frozen writer of SQLite would freeze everybody."""
        child.send_signal(signal.SIGSTOP)
        connection = sqlite3.connect(str(self.store.url.database), timeout=0.1)
        with contextlib.closing(connection), contextlib.suppress(sqlite3.OperationalError):
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("SELECT 1 FROM job WHERE state = 'running'").fetchone():
                return True
        child.send_signal(signal.SIGCONT)
        return False

    def add(self, count: int, **request: str) -> None:
        for n in range(count):
            self.intake.submit(self.users[n % USERS], {"n": n, **request}, priority=n * 7 % 101)
        self.added += count

    def keep_busy(self) -> None:
        """So many jobs wait that the next blow falls while some run."""
        if self.store.counts().get("pending", 0) < 30:
            self.add(60)

    def blamed(self) -> int:
        """Jobs that count a crash as their own; only dispatchers and servers die here."""
        with self.store.read() as connection:
            return int(connection.execute(text("SELECT count(*) FROM job WHERE crash_count > 0")).scalar_one())

    def drained(self) -> bool:
        return not set(self.store.counts()) - {"done", "failed", "cancelled"}

    def verify(self) -> None:
        """Nothing lost, one end a job, no broken cap, no run that started twice with one token."""
        assert self.store.counts() == {"done": self.added}
        with self.store.read() as connection:
            ends = connection.execute(text("SELECT job_id, count(*) FROM event WHERE kind = 'done' GROUP BY job_id"))
            assert {n for _, n in ends} == {1}
            assert connection.execute(text("SELECT count(*) FROM violation")).scalar() == 0
        lines = (self.settings.state / "effects").read_text().split("\n")[:-1]
        starts = Counter(tuple(line.split(maxsplit=2)[:2]) for line in lines)
        assert max(starts.values()) == 1
        assert len({job for job, _ in starts}) == self.added

    def finish(self, timeout_s: float = 60) -> None:
        wait_until(self.drained, timeout_s, "the end of all jobs")
        assert self.blamed() == 0
        for dead in self.store.jobs(self.admin, states=[State.FAILED], limit=10_000):
            # It ran at ten deaths, so it is suspected of having caused them; an operator tries it again.
            assert dead.error is not None
            assert (dead.error["code"], dead.orphan_count) == ("poison_job", MAX_ORPHANED)
            self.intake.retry(self.admin, dead.id)
        wait_until(self.drained, timeout_s, "the end of the suspects")
        self.verify()
        nothing = Stats(True, 0, 0, 0)
        wait_until(lambda: self.choices[0].queue.stats() == nothing, 20, "the end of the last lease")
        assert self.choices[0].queue.fsck() == []

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
            assert child.stdin is not None
            child.stdin.close()
        super().close()


def times(point: str, rng: random.Random) -> int:
    """Which time the point is reached should be deadly; some are reached once in a life."""
    return 1 if point.split(".", maxsplit=1)[0] in ("rebuild", "switch", "reclaim") else rng.randint(1, 4)


@pytest.mark.parametrize("backend", ["local", "redis"])
def test_a_dispatcher_killed_at_any_point_loses_and_doubles_nothing(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("own_redis").url if backend == "redis" else None
    rng = random.Random(backend)
    yard = Yard(tmp_path, url)
    hasten_retries(yard)
    try:
        for point in DEADLY[backend] * (20 if CHAOS else 1):
            yard.add(8, do="fail" if point.startswith("retry.") else "finish")
            if point.startswith("reclaim."):
                yard.spawn("launch.done", 1).wait()
            if point.startswith("rebuild.") and url:
                with redis.Redis.from_url(url) as client:
                    client.flushall()
            victim = yard.spawn(point, times(point, rng))
            wait_until(lambda: victim.poll() is not None, 60, f"the death at {point}")  # noqa: B023
            assert victim.returncode == -signal.SIGKILL, point
        yard.spawn()
        yard.finish(120)
    finally:
        yard.close()


@pytest.mark.parametrize("backend", ["local", "redis"] if CHAOS else ["local"])  # over Redis each death costs a lease
def test_a_job_that_kills_every_dispatcher_is_put_aside_and_all_others_end(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    yard = Yard(tmp_path, request.getfixturevalue("own_redis").url if backend == "redis" else None)
    try:
        yard.add(6)
        poison, _ = yard.intake.submit(yard.users[0], {"do": "die"}, priority=100)
        deaths = 0
        while not yard.drained():
            child = yard.spawn()
            wait_until(lambda: yard.drained() or child.poll() is not None, 60, "an end")  # noqa: B023
            deaths += child.poll() is not None
        assert deaths == MAX_ORPHANED
        dead = yard.store.job(yard.admin, poison.id)
        assert dead.error is not None
        assert (dead.state, dead.error["code"]) == (State.FAILED, "poison_job")
        assert (dead.attempt, dead.crash_count, dead.orphan_count) == (0, 0, MAX_ORPHANED)
        assert yard.store.counts() == {"done": 6, "failed": 1}
        assert yard.blamed() == 0
    finally:
        yard.close()


def hasten_retries(yard: Yard) -> None:
    """Retries wait ten seconds in earnest; a trigger makes them wait a tenth of one."""
    with yard.store.write() as connection:
        connection.execute(text("DROP TRIGGER IF EXISTS soon"))
        connection.execute(
            text(
                "CREATE TRIGGER soon AFTER UPDATE OF run_at_ms ON job WHEN NEW.run_at_ms > NEW.started_ms + 2000"
                " BEGIN UPDATE job SET run_at_ms = NEW.started_ms + 100 WHERE id = NEW.id; END"
            )
        )


SUBMITTER = """
import json, os, signal, sys
from workshop import *
from dubbing import failpoints
from dubbing.jobs import Actor
settings, point, times = config.load(json.loads(sys.argv[1]), None), sys.argv[3], int(sys.argv[4])
failpoints.arm(point, lambda: os.kill(os.getpid(), signal.SIGKILL))
for n in range(times):
    if os.fork() == 0:
        store = open_store(settings)
        Intake(store, choose_queue(settings, now_ms=0).queue).submit(Actor(sys.argv[2]), {"n": n})
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
"""


@pytest.mark.parametrize("point", ["submit.stored", "submit.pushed"])
def test_a_submission_whose_process_dies_after_the_commit_still_runs(
    point: str, tmp_path: Path, own_redis: RedisServer
) -> None:
    yard = Yard(tmp_path, own_redis.url)
    yard.added = 1_000 if CHAOS else 5
    try:
        here = Path(__file__).parent
        path = f"{here}:{here.parents[1]}"
        given = [json.dumps(yard.given), yard.users[0].user_id, point, str(yard.added)]
        env = {**os.environ, "PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", SUBMITTER, *given], env=env, check=True)
        assert len(yard.store.outbox(2_000)) == yard.added
        yard.spawn()
        wait_until(lambda: yard.store.outbox(1) == [], 60, "an empty outbox")
        yard.finish(600 if CHAOS else 60)
    finally:
        yard.close()


def test_random_kills_of_three_dispatchers_lose_and_double_nothing(tmp_path: Path, own_redis: RedisServer) -> None:
    rng = random.Random(3)
    kills = 200 if CHAOS else 6
    yard = Yard(tmp_path, own_redis.url)
    try:
        alive = [yard.spawn() for _ in range(3)]
        for _ in range(kills):
            yard.keep_busy()
            victim = rng.choice(alive)
            started = len(yard.store.running())
            deadline = time.monotonic() + 0.8 * rng.random()
            wait_until(lambda: time.monotonic() > deadline or len(yard.store.running()) != started, 5)  # noqa: B023
            victim.kill()
            victim.wait()
            alive[alive.index(victim)] = yard.spawn()
        yard.finish(600 if CHAOS else 60)
    finally:
        yard.close()


@pytest.mark.parametrize("memory", ["lost", "kept", "torn"])
def test_redis_killed_and_started_again_with_or_without_its_data(
    tmp_path: Path, memory: str, new_redis: Callable[..., RedisServer]
) -> None:
    rng = random.Random(memory)
    server = new_redis(aof=memory != "lost")
    yard = Yard(tmp_path, server.url, mode="redis")
    try:
        for _ in range(2):
            yard.spawn()
        for _ in range(20 if CHAOS else 2):
            yard.keep_busy()
            wait_until(yard.store.running, 30, "a running job")
            server.kill()
            if memory == "torn":
                (log,) = (server.folder / "appendonlydir").glob("*.incr.aof")
                os.truncate(log, max(0, log.stat().st_size - rng.randrange(65_536)))
            server.start()
        yard.finish(60)
    finally:
        yard.close()


@pytest.mark.parametrize("command", ["FLUSHALL", "SCRIPT FLUSH", "CLIENT PAUSE 500", "CLIENT KILL TYPE normal"])
def test_redis_losing_or_holding_everything_under_load(tmp_path: Path, own_redis: RedisServer, command: str) -> None:
    rounds = 20 if CHAOS else 3
    yard = Yard(tmp_path, own_redis.url)
    try:
        for _ in range(2):
            yard.spawn()
        for _ in range(rounds):
            yard.keep_busy()
            wait_until(yard.store.running, 30, "a running job")
            with own_redis.client() as client:
                client.execute_command(*command.split())
        yard.finish(60)
    finally:
        yard.close()


def test_a_dispatcher_frozen_longer_than_its_leases_writes_nothing_when_it_wakes(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    yard = Yard(tmp_path, own_redis.url)
    try:
        yard.add(40)
        frozen = yard.spawn()
        wait_until(yard.store.running, 20)
        wait_until(lambda: yard.froze(frozen), 20, "a moment between its transactions")
        held = {(job.id, job.epoch) for job in yard.store.running()}
        assert held
        yard.spawn()
        wait_until(lambda: not held & {(job.id, job.epoch) for job in yard.store.running()}, 20, "the takeover")
        frozen.send_signal(signal.SIGCONT)
        yard.finish()
    finally:
        yard.close()


def test_a_backlog_is_rebuilt_in_its_order_after_redis_lost_it(tmp_path: Path, own_redis: RedisServer) -> None:
    yard = Yard(tmp_path, own_redis.url)
    try:
        yard.intake = type(yard.intake)(yard.store, yard.choices[0].queue)
        ana = yard.users[0]
        jobs = [yard.intake.submit(ana, {"n": n}, priority=n * 37 % 101)[0] for n in range(60)]
        with own_redis.client() as client:
            client.flushall()
        yard.spawn()
        wait_until(yard.drained, 30)
        started = [e.job_id for e in yard.store.events(yard.admin, limit=10_000) if e.kind == State.RUNNING.value]
        expected = [job.id for job in sorted(jobs, key=lambda job: (job.band, job.seq))]
        assert started == expected
    finally:
        yard.close()
