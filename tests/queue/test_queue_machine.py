"""Random walks over the operations: the model, Redis and SQLite must give the same answers and stay whole."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from model import Model

from dubbing.jobs import POOLS
from dubbing.queue.base import Tick, Ticket, parse_settings
from dubbing.queue.fallback_local_queue import LocalQueue
from dubbing.queue.redis_queue import RedisQueue
from tests.services import RedisServer

CHAOS = os.environ.get("DUBBING_TEST_CHAOS") == "1"
EXAMPLES, STEPS, LEAST_OF_A_KIND = (500, 60, 100) if CHAOS else (80, 40, 3)
AGE_MS = 5_000
nths = st.integers(0, 6)
bands = st.sampled_from([0, 1, 4, 9])
costs = st.sampled_from([1, 3, 120])
users = st.sampled_from(["ana", "ben", "carl"])
pools = st.sampled_from(POOLS)
numbers = itertools.count()
seen: Counter[str] = Counter()
steps = 0


class QueueMachine(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model = Model(AGE_MS, now=1_000_000)
        clock = lambda: self.model.now  # noqa: E731
        self.real = [
            LocalQueue(Path(self.folder.name) / "q.sqlite3", age_ms=AGE_MS, clock=clock),
            RedisQueue(self.url, namespace=f"machine{next(numbers)}", age_ms=AGE_MS, clock=clock),
        ]
        self.tickets: dict[str, Ticket] = {}

    def teardown(self) -> None:
        for queue in self.real:
            queue.close()
        self.folder.cleanup()

    def ask(self, operation: str, *arguments: Any, **named: Any) -> Any:
        global steps  # noqa: PLW0603
        steps += 1
        expected = getattr(self.model, operation)(*arguments, **named)
        for queue in self.real:
            answer = getattr(queue, operation)(*arguments, **named)
            assert answer == expected, f"{queue.name} {operation}{arguments}{named}"
        several = isinstance(expected, list) and operation != "expired"
        seen.update(f"{operation} {kind_of(operation, part)}" for part in (expected if several else [expected]))
        return expected

    @initialize(backlog=st.lists(st.tuples(st.integers(0, 11), users, pools, bands, costs), min_size=8, max_size=12))
    def start(self, backlog: list[tuple[int, str, str, int, int]]) -> None:
        self.ask("begin_rebuild")
        self.ask("end_rebuild", 0)
        for n, user, pool, band, cost in backlog:
            self.tickets[f"j{n}"] = Ticket(f"j{n}", user, pool, band, n, 0, cost)
        self.ask("enqueue", list(self.tickets.values()))

    def some_job(self, nth: int, place: str) -> tuple[str, int]:
        """A job of a place and its token; nth 0 is a job that nobody knows."""
        known = sorted(e.ticket.job_id for e in self.model.at(place))
        job_id = known[nth % len(known)] if known and nth else "unheard"
        entry = self.model.jobs.get(job_id)
        return job_id, entry.token if entry else 1

    @rule(numbers=st.lists(st.integers(0, 11), min_size=1, max_size=6), user=users, pool=pools, band=bands, cost=costs,
          epoch=st.integers(0, 1), delay=st.sampled_from([0, 800, 3_000]))  # fmt: skip
    def enqueue(self, numbers: list[int], user: str, pool: str, band: int, cost: int, epoch: int, delay: int) -> None:
        run_at = self.model.now + delay if delay else 0
        new = {f"j{n}": Ticket(f"j{n}", user, pool, band, n, epoch, cost, run_at) for n in numbers}
        self.tickets |= new
        self.ask("enqueue", list(new.values()))

    @rule()
    def push_everything_again(self) -> None:
        self.ask("enqueue", list(self.tickets.values()))

    @rule(pool=pools, count=st.integers(1, 4), ttl=st.sampled_from([500, 4_000]))
    def claim(self, pool: str, count: int, ttl: int) -> None:
        self.ask("claim", pool, count, owner="d1", ttl_ms=ttl)

    @rule(pool=pools, again=st.booleans())
    def claim_and_end(self, pool: str, again: bool) -> None:
        self.ask("claim", pool, 1, owner="d1", ttl_ms=4_000)
        job_id, token = self.some_job(1, "leased")
        self.ask("extend", [(job_id, token)], 4_000)
        if again:
            self.ask("requeue", job_id, token, epoch=token, run_at_ms=0)
        else:
            self.ask("release", [(job_id, token)])

    @rule(pool=pools, ms=st.sampled_from([0, 1_500]))
    def claim_one_and_look_again_later(self, pool: str, ms: int) -> None:
        self.ask("claim", pool, 1, owner="d2", ttl_ms=1_000)
        self.model.now += ms
        self.ask("expired", 2, 1_000)

    @rule(nth=nths, off=st.sampled_from([0, 0, 0, 1, -1]))
    def extend(self, nth: int, off: int) -> None:
        job_id, token = self.some_job(nth, "leased")
        self.ask("extend", [(job_id, max(token + off, 0)), ("unheard", 1)], 2_000)

    @rule(nth=nths, off=st.sampled_from([0, 0, 0, 0, 1]))
    def release(self, nth: int, off: int) -> None:
        job_id, token = self.some_job(nth, "leased")
        self.ask("release", [(job_id, token + off), self.some_job(nth + 1, "leased")])

    @rule(nth=nths, off=st.sampled_from([0, 0, 1]), delay=st.sampled_from([0, 900]))
    def requeue(self, nth: int, off: int, delay: int) -> None:
        job_id, token = self.some_job(nth, "leased")
        run_at = self.model.now + delay if delay else 0
        self.ask("requeue", job_id, token + off, epoch=token, run_at_ms=run_at)

    @rule(nth=nths, place=st.sampled_from(["pending", "delayed", "leased"]))
    def cancel(self, nth: int, place: str) -> None:
        job_id, token = self.some_job(nth, place)
        self.ask("cancel", job_id)
        self.ask("extend", [(job_id, token)], 2_000)

    @rule(nth=nths, place=st.sampled_from(["pending", "leased"]), user=users, off=st.sampled_from([0, 1]))
    def adopt(self, nth: int, place: str, user: str, off: int) -> None:
        job_id, token = self.some_job(nth, place)
        entry = self.model.jobs.get(job_id)
        ticket = entry.ticket if entry else Ticket("j3", user, "gpu", 2, 3)
        self.ask("adopt", [(ticket, max(token, ticket.epoch) + off, "d2")], 1_500)

    @rule(value=st.sampled_from([None, 0, 1, 2]), user=st.sampled_from(["ana", "ben", "*"]))
    def cap_user(self, value: int | None, user: str) -> None:
        self.ask("configure", "user", user, "cap", value)

    @rule(value=st.sampled_from([None, 1, 4]), user=users)
    def weigh_user(self, value: int | None, user: str) -> None:
        self.ask("configure", "user", user, "weight", value)

    @rule(pool=pools, band=bands, weight=st.sampled_from([1, 4]), cost=st.sampled_from([3, 120]))
    def take_turns(self, pool: str, band: int, weight: int, cost: int) -> None:
        self.ask("configure", "user", "ana", "weight", weight)
        turns = {f"j{n}": Ticket(f"j{n}", ("ana", "ben")[n % 2], pool, band, n, cost=cost) for n in range(20, 28)}
        self.tickets |= turns
        self.ask("enqueue", list(turns.values()))
        self.ask("claim", pool, 5, owner="d1", ttl_ms=4_000)

    @rule(value=st.sampled_from([None, None, 1, 3]), what=st.sampled_from(["pool cap", "pool slots", "global cap"]))
    def cap_pool(self, value: int | None, what: str) -> None:
        scope, field = what.split()
        self.ask("configure", scope, "gpu" if scope == "pool" else "", field, value)

    @rule(
        value=st.sampled_from([None, 0, 1, 1]),
        what=st.sampled_from(["global ", "pool cpu", "user ben"]),
        stays=st.booleans(),
    )
    def pause(self, value: int | None, what: str, stays: bool) -> None:
        scope, name = what.split(" ")
        self.ask("configure", scope, name, "paused", value)
        self.ask("claim", "cpu", 1, owner="d1", ttl_ms=4_000)
        if not stays:
            self.ask("configure", scope, name, "paused", None)

    @rule(ms=st.sampled_from([1, 700, 2_500, AGE_MS]))
    def time_passes(self, ms: int) -> None:
        self.model.now += ms

    @rule(limit=st.integers(1, 3))
    def look_for_expired(self, limit: int) -> None:
        self.ask("expired", limit, 1_000)

    @rule(limit=st.sampled_from([1, 2, 2, 3, 5]), ms=st.sampled_from([0, AGE_MS, AGE_MS]))
    def age(self, limit: int, ms: int) -> None:
        self.model.now += ms
        while self.ask("age", limit):
            continue

    @rule(ms=st.sampled_from([0, 900, 3_000]), user=users, pool=pools)
    def tick(self, ms: int, user: str, pool: str) -> None:
        self.tickets["j12"] = Ticket("j12", user, pool, 4, 12, run_at_ms=self.model.now + 900)
        self.ask("enqueue", [self.tickets["j12"]])
        self.model.now += ms
        self.ask("tick")

    @rule(grace=st.sampled_from([0, 1_000]))
    def hold_expiry(self, grace: int) -> None:
        self.ask("hold_expiry", grace)

    @rule(finish=st.sampled_from([True, True, False]))
    def rebuild(self, finish: bool) -> None:
        waiting = [e.ticket for e in self.model.jobs.values() if e.place != "leased"]
        running = [(e.ticket, e.token, e.owner) for e in self.model.at("leased")]
        settings = dict(self.model.config)
        self.ask("begin_rebuild")
        for scope, name, field, value in parse_settings(settings.items()):
            self.ask("configure", scope, name, field, value)
        self.ask("enqueue", waiting)
        self.ask("adopt", running, 2_000)
        self.ask("claim", "gpu", 1, owner="d1", ttl_ms=4_000)
        if finish:
            self.ask("end_rebuild", 500)

    @invariant()
    def all_are_whole(self) -> None:
        for queue in self.real:
            assert queue.fsck() == [], queue.name
            assert queue.stats() == self.model.stats(), queue.name


KINDS = {
    *("enqueue ok", "enqueue leased", "enqueue stale", "claim ok", "claim ok+", "claim paused", "claim rebuilding"),
    *("extend -1", "extend 0", "extend 1", "extend 2", "cancel removed", "cancel signalled", "cancel unknown"),
    *(f"{operation} {answer}" for operation in ("release", "requeue", "adopt", "expired", "tick") for answer in "+-"),
    *("age 0", "age 1", "age 2"),
}


def kind_of(operation: str, answer: Any) -> str:
    if operation == "claim":
        return answer.state + "+" * bool(answer.claims)
    if isinstance(answer, Enum):
        return str(answer.value)
    if isinstance(answer, Tick):
        return "+" if answer.promoted else "-"
    return str(answer) if operation == "age" else "+" if answer else "-"


@pytest.mark.timeout(900)
def test_redis_and_sqlite_answer_exactly_as_the_model_does(redis_server: RedisServer) -> None:
    QueueMachine.url = redis_server.url
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not CHAOS,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"\n{steps} operations compared: {dict(seen)}")
    rare = {kind: seen[kind] for kind in KINDS if seen[kind] < LEAST_OF_A_KIND}
    assert not rare, f"answers that the walk met too seldom to count as tested: {rare}"
    assert steps >= (10_000 if CHAOS else 1_000)
