"""Eight clients at once: the answers of each queue can be put in one order that explains them all."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from linearizability import Operation, is_linearizable

from dubbing.queue.base import JobQueue, Ticket
from dubbing.queue.fallback_local_queue import LocalQueue
from dubbing.queue.redis_queue import RedisQueue
from tests.services import RedisServer

CHAOS = os.environ.get("DUBBING_TEST_CHAOS") == "1"
CLIENTS, JOBS, TTL = 8, 6, 3_600_000
ROUNDS, LONG_S = 60, 10.0
History = dict[str, list[Operation]]
names = itertools.count()


@pytest.fixture(params=["local", "redis"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], JobQueue]]:
    """Makes one more client of one queue."""
    made: list[JobQueue] = []
    namespace = f"linear{next(names)}"

    def new() -> JobQueue:
        if request.param == "local":
            made.append(LocalQueue(tmp_path / "queue.sqlite3"))
        else:
            made.append(RedisQueue(request.getfixturevalue("redis_server").url, namespace=namespace))
        return made[-1]

    first = new()
    first.begin_rebuild()
    first.end_rebuild(0)
    yield new
    assert first.fsck() == []
    for queue in made:
        queue.close()


class Client:
    """Asks random questions about few jobs, also with tokens that others hold or held, and notes the answers."""

    def __init__(self, queue: JobQueue, seed: int, tokens: dict[str, int]) -> None:
        self.queue, self.rng, self.tokens = queue, random.Random(seed), tokens
        self.history: History = defaultdict(list)

    def note(self, job_id: str, name: str, token: int, answer: object, called: float) -> None:
        self.history[job_id].append(Operation(name, token, answer, called, time.monotonic()))

    def work(self) -> None:
        end = time.monotonic() + LONG_S
        for _ in itertools.count() if CHAOS else range(ROUNDS):
            if CHAOS and time.monotonic() > end:
                return
            job_id = f"j{self.rng.randrange(JOBS)}"
            self.ask(job_id, max(0, self.tokens.get(job_id, 1) - (self.rng.random() < 0.1)))

    def ask(self, job_id: str, token: int) -> None:
        what = self.rng.choice(["put", "claim", "claim", "extend", "release", "requeue"])
        called = time.monotonic()
        if what == "put":
            answer: object = self.queue.enqueue([Ticket(job_id, "ana", "cpu", 4, 1, token)])[0].value
        elif what == "claim":
            for claim in self.queue.claim("cpu", self.rng.randint(1, 2), owner="d", ttl_ms=TTL).claims:
                self.tokens[claim.job_id] = claim.token
                self.note(claim.job_id, "claim", claim.token, True, called)
            return
        elif what == "extend":
            answer = self.queue.extend([(job_id, token)], TTL)[0].value
        elif what == "release":
            (answer,) = self.queue.release([(job_id, token)])
        else:
            answer = self.queue.requeue(job_id, token, epoch=token, run_at_ms=0)
        self.note(job_id, what, token, answer, called)


def record(connect: Callable[[], JobQueue]) -> History:
    tokens: dict[str, int] = {}
    clients = [Client(connect(), seed, tokens) for seed in range(CLIENTS)]
    threads = [threading.Thread(target=client.work) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {f"j{n}": [o for client in clients for o in client.history[f"j{n}"]] for n in range(JOBS)}


def test_what_eight_clients_saw_can_have_happened_one_after_the_other(connect: Callable[[], JobQueue]) -> None:
    history = record(connect)
    kinds = {(o.name, o.answer) for operations in history.values() for o in operations}
    print(f"\n{sum(map(len, history.values()))} operations, {len(kinds)} kinds of answers")
    assert kinds >= {("claim", True), ("release", True), ("release", False), ("requeue", True), ("put", "leased")}
    wrong = [job_id for job_id, operations in history.items() if not is_linearizable(operations)]
    assert wrong == []


def test_one_false_answer_in_a_true_history_is_found(redis_server: RedisServer) -> None:
    queue = RedisQueue(redis_server.url, namespace=f"linear{next(names)}")
    queue.begin_rebuild()
    queue.end_rebuild(0)
    found = 0
    for operations in record(lambda: queue).values():
        for operation in operations:
            if operation.name in ("release", "requeue") and operation.answer is True:
                twice = [replace(operation, called=1e9 + k, returned=1e9 + k + 0.5) for k in (0, 1)]
                assert is_linearizable(operations)
                assert not is_linearizable([*operations, *twice]), "one lease was given back twice"
                found += 1
                break
    assert found
    queue.close()


def history(*steps: tuple[str, int, object, float, float]) -> list[Operation]:
    return [Operation(*step) for step in steps]


PUT = ("put", 0, "ok", 0, 1)


@pytest.mark.parametrize(
    ("why", "steps"),
    [
        ("two clients got one token", [PUT, ("claim", 1, True, 2, 5), ("claim", 1, True, 3, 4)]),
        ("a stale token renewed", [PUT, ("claim", 1, True, 2, 3), ("release", 1, True, 4, 5), ("extend", 1, 1, 6, 7)]),
        ("a release was lost", [PUT, ("claim", 1, True, 2, 3), ("release", 1, True, 4, 5), ("put", 0, "leased", 6, 7)]),
        ("claimed before it was there", [("claim", 1, True, 0, 1), ("put", 0, "ok", 2, 3)]),
        ("a job went back to an older epoch", [PUT, ("claim", 1, True, 2, 3), ("requeue", 1, True, 4, 5),
                                               ("put", 0, "ok", 6, 7)]),
    ],
)  # fmt: skip
def test_the_checker_finds_a_history_that_cannot_have_happened(why: str, steps: list[tuple[object, ...]]) -> None:
    assert not is_linearizable(history(*steps)), why  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "steps",
    [
        [PUT, ("claim", 1, True, 2, 3), ("extend", 1, 1, 4, 5), ("release", 1, True, 6, 7), ("extend", 1, -1, 8, 9)],
        # The claim returned late: the renewal that overlaps it may have seen it.
        [PUT, ("claim", 1, True, 2, 9), ("extend", 1, -1, 3, 4), ("extend", 1, 1, 5, 6), ("put", 0, "leased", 7, 8)],
        [("release", 1, True, 0, 9), ("claim", 1, True, 1, 8), ("put", 0, "ok", 2, 7)],
    ],
)
def test_the_checker_accepts_a_history_that_can_have_happened(steps: list[tuple[object, ...]]) -> None:
    assert is_linearizable(history(*steps))  # type: ignore[arg-type]
