"""What every JobQueue guarantees, over both implementations."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.queue.base import Cancelled, Extended, JobQueue, Put, Ticket
from dubbing.queue.fallback_local_queue import LocalQueue
from dubbing.queue.redis_queue import RedisQueue
from dubbing.queue_errors import QueueDownError
from tests.services import RedisServer, wait_until

AGE_MS = 600_000
TTL = 60_000
names = itertools.count()


class Hand:
    now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture(params=["local", "redis"])
def queue(request: pytest.FixtureRequest, tmp_path: Path, clock: Hand) -> Iterator[JobQueue]:
    made: JobQueue
    if request.param == "local":
        made = LocalQueue(tmp_path / "queue.sqlite3", age_ms=AGE_MS, clock=clock)
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        made = RedisQueue(server.url, namespace=f"contract{next(names)}", age_ms=AGE_MS, clock=clock)
    made.begin_rebuild()
    made.end_rebuild(0)
    yield made
    assert made.fsck() == []
    made.close()


def ticket(n: int, user: str = "ana", band: int = 4, **more: int) -> Ticket:
    return Ticket(f"j{n}", user, "gpu", band, n, **more)


def claim(queue: JobQueue, count: int = 1, ttl: int = TTL) -> list[str]:
    return [c.job_id for c in queue.claim("gpu", count, owner="d1", ttl_ms=ttl).claims]


def finish_all(queue: JobQueue, count: int) -> list[str]:
    """Claim and release one job at a time; the order of their users."""
    users = []
    for _ in range(count):
        (claimed,) = queue.claim("gpu", 1, owner="d1", ttl_ms=TTL).claims
        assert queue.release([(claimed.job_id, claimed.token)]) == [True]
        users.append(claimed.user)
    return users


def test_a_better_band_goes_first_and_within_it_first_in_first_out(queue: JobQueue) -> None:
    tickets = [ticket(n, band=n % 10) for n in range(200)]
    random.Random(1).shuffle(tickets)
    queue.enqueue(tickets)
    expected = [t.job_id for t in sorted(tickets, key=lambda t: (t.band, t.seq))]
    assert claim(queue, 200) == expected


def test_users_take_turns_within_a_band(queue: JobQueue) -> None:
    queue.enqueue([ticket(n, "ana") for n in range(4)] + [ticket(n, "ben") for n in range(10, 14)])
    assert finish_all(queue, 8) == ["ana", "ben"] * 4


def test_a_user_with_ten_thousand_jobs_delays_the_first_job_of_another_by_no_turn(queue: JobQueue) -> None:
    queue.enqueue([ticket(n, "hog") for n in range(10_000)])
    finish_all(queue, 3)
    queue.enqueue([ticket(20_000, "zoe")])
    assert finish_all(queue, 2) == ["zoe", "hog"]


def test_the_last_of_a_hundred_small_users_is_served_in_the_first_round(queue: JobQueue) -> None:
    queue.enqueue([ticket(n, "hog") for n in range(900)])
    queue.enqueue([ticket(1_000 + 100 * k + n, f"u{n:03}") for k in range(2) for n in range(100)])
    first_round = finish_all(queue, 101)
    assert len(set(first_round)) == 101


def test_weights_share_the_turns(queue: JobQueue) -> None:
    for user, weight in (("w1", 1), ("w2", 2), ("w4", 4)):
        queue.configure("user", user, "weight", weight)
        queue.enqueue([ticket(int(user[1]) * 1_000 + n, user) for n in range(500)])
    shares = Counter(finish_all(queue, 700))
    assert all(abs(shares[f"w{w}"] - 100 * w) <= 2 for w in (1, 2, 4)), shares


def test_a_long_film_counts_as_many_short_clips(queue: JobQueue) -> None:
    queue.enqueue([ticket(n, "film", cost=100) for n in range(3)])
    queue.enqueue([ticket(n, "clip") for n in range(10, 400)])
    assert Counter(finish_all(queue, 202))["film"] == 2


def test_a_user_who_was_paused_gets_at_most_one_turn_more_than_his_share(queue: JobQueue) -> None:
    queue.enqueue([ticket(n, user) for n, user in enumerate(["ana", "ben", "carl"] * 200)])
    queue.configure("user", "ana", "paused", 1)
    assert "ana" not in finish_all(queue, 200)
    queue.configure("user", "ana", "paused", None)
    assert Counter(finish_all(queue, 30))["ana"] <= 11


@pytest.mark.parametrize("cap", ["user ana cap", "user * cap", "pool gpu cap", "pool gpu slots", "global  cap"])
def test_a_cap_is_kept_raised_and_lowered(queue: JobQueue, cap: str) -> None:
    scope, name, field = cap.split(" ")
    queue.enqueue([ticket(n) for n in range(9)])
    queue.configure(scope, name, field, 2)  # type: ignore[arg-type]
    assert claim(queue, 5) == ["j0", "j1"]
    queue.configure(scope, name, field, 1)  # type: ignore[arg-type]
    queue.release([("j0", 1)])
    assert claim(queue) == []
    queue.configure(scope, name, field, 3)  # type: ignore[arg-type]
    assert claim(queue, 5) == ["j2", "j3"]


def test_nobody_waits_behind_a_user_at_his_cap(queue: JobQueue) -> None:
    queue.configure("user", "*", "cap", 1)
    queue.enqueue([ticket(n, "hog", band=0) for n in range(500)] + [ticket(900, "ben", band=9)])
    assert claim(queue, 3) == ["j0", "j900"]


def test_a_job_that_waits_rises_a_band_at_a_time_and_starts_in_the_end(queue: JobQueue, clock: Hand) -> None:
    queue.enqueue([ticket(0, "old", band=9)])
    for n in range(1, 100):
        queue.enqueue([ticket(n, f"u{n}", band=0)])
        clock.now += AGE_MS // 5
        queue.age(10)
        queue.configure("pool", "gpu", "slots", 1)
        (started,) = claim(queue)
        if started == "j0":
            break
        queue.release([(started, 1)])
    assert n <= 9 * 5 + 1


def test_a_job_that_rose_and_runs_again_begins_in_its_own_band(queue: JobQueue, clock: Hand) -> None:
    queue.enqueue([ticket(1, band=9)])
    clock.now += AGE_MS
    assert queue.age(9) == 1
    (risen,) = queue.claim("gpu", 1, owner="d1", ttl_ms=TTL).claims
    assert risen.band == 8
    queue.requeue("j1", 1, epoch=1, run_at_ms=0)
    (again,) = queue.claim("gpu", 1, owner="d1", ttl_ms=TTL).claims
    assert again.band == 9


def test_the_same_ticket_again_changes_nothing_and_a_changed_one_replaces_it(queue: JobQueue) -> None:
    assert queue.enqueue([ticket(1), ticket(2)]) == [Put.OK, Put.OK]
    assert queue.enqueue([ticket(1)]) == [Put.OK]
    assert queue.enqueue([ticket(2, band=0)]) == [Put.OK]
    assert queue.stats().pending == 2
    assert claim(queue, 2) == ["j2", "j1"]


def test_a_running_job_and_a_newer_epoch_are_not_touched_by_a_late_push(queue: JobQueue) -> None:
    queue.enqueue([ticket(1)])
    claim(queue)
    assert queue.enqueue([ticket(1)]) == [Put.LEASED]
    assert queue.requeue("j1", 1, epoch=1, run_at_ms=0)
    assert queue.enqueue([ticket(1)]) == [Put.STALE]
    (again,) = queue.claim("gpu", 1, owner="d1", ttl_ms=TTL).claims
    assert again.token == 2


def test_a_second_call_of_anything_with_a_used_token_does_nothing(queue: JobQueue) -> None:
    queue.enqueue([ticket(1), ticket(2)])
    claim(queue, 2)
    assert queue.release([("j1", 1), ("j1", 1)]) == [True, False]
    assert queue.release([("j1", 1)]) == [False]
    assert [queue.requeue("j2", 1, epoch=1, run_at_ms=0) for _ in range(2)] == [True, False]
    assert [queue.cancel("j2"), queue.cancel("j2")] == [Cancelled.REMOVED, Cancelled.UNKNOWN]


def test_cancel_removes_waiting_jobs_and_signals_running_ones(queue: JobQueue, clock: Hand) -> None:
    queue.enqueue([ticket(1), ticket(2), ticket(3, run_at_ms=clock.now + 5_000)])
    assert claim(queue) == ["j1"]
    assert [queue.cancel(j) for j in ("j1", "j2", "j3", "j4")] == [
        Cancelled.SIGNALLED, Cancelled.REMOVED, Cancelled.REMOVED, Cancelled.UNKNOWN,
    ]  # fmt: skip
    assert queue.extend([("j1", 1), ("j1", 9), ("j2", 1)], TTL) == [Extended.CANCEL, Extended.FENCED, Extended.UNKNOWN]
    clock.now += 10_000
    assert claim(queue, 5) == []


@pytest.mark.parametrize(("scope", "name"), [("global", ""), ("pool", "gpu"), ("user", "ana")])
def test_nothing_starts_while_paused(queue: JobQueue, scope: str, name: str) -> None:
    queue.configure(scope, name, "paused", 1)  # type: ignore[arg-type]
    queue.enqueue([ticket(n) for n in range(3)])
    assert claim(queue, 3) == []
    queue.configure(scope, name, "paused", 0)  # type: ignore[arg-type]
    assert claim(queue, 3) == ["j0", "j1", "j2"]


def test_a_delayed_job_starts_when_its_time_has_come_and_keeps_its_place(queue: JobQueue, clock: Hand) -> None:
    queue.enqueue([ticket(1, run_at_ms=clock.now + 1_000), ticket(2, run_at_ms=clock.now + 500), ticket(3)])
    first = queue.claim("gpu", 1, owner="d1", ttl_ms=TTL)
    assert [c.job_id for c in first.claims] == ["j3"]
    assert first.next_due_ms == clock.now + 500
    clock.now += 1_000
    assert claim(queue, 3) == ["j1", "j2"]


def test_ten_thousand_alarms_at_one_moment_enter_a_hundred_at_a_time(queue: JobQueue, clock: Hand) -> None:
    queue.enqueue([ticket(n, run_at_ms=clock.now + 1) for n in range(10_000)])
    clock.now += 1
    assert queue.tick().promoted == 100
    assert len(claim(queue, 500)) == 200
    ticks = sum(1 for _ in iter(lambda: queue.tick().promoted, 0))
    assert ticks == 98


def test_an_expired_lease_is_listed_to_one_caller_and_frees_nothing(queue: JobQueue, clock: Hand) -> None:
    queue.configure("pool", "gpu", "slots", 1)
    queue.enqueue([ticket(1), ticket(2)])
    claim(queue, ttl=1_000)
    clock.now += 1_000
    assert [lease.job_id for lease in queue.expired(9, 5_000)] == ["j1"]
    assert queue.expired(9, 5_000) == []
    assert claim(queue) == []
    clock.now += 5_000
    assert [(lease.job_id, lease.token, lease.owner) for lease in queue.expired(9, 5_000)] == [("j1", 1, "d1")]


def test_no_lease_expires_during_the_grace_after_a_jump_of_the_clock(queue: JobQueue, clock: Hand) -> None:
    queue.enqueue([ticket(1)])
    claim(queue)
    clock.now += 3_600_000
    queue.hold_expiry(TTL)
    assert queue.expired(9, TTL) == []
    assert queue.extend([("j1", 1)], TTL) == [Extended.OK]
    clock.now += TTL
    assert [lease.job_id for lease in queue.expired(9, TTL)] == ["j1"]


def test_a_clock_that_steps_back_makes_nothing_younger(queue: JobQueue, clock: Hand) -> None:
    queue.enqueue([ticket(1, run_at_ms=clock.now + 1_000)])
    clock.now += 1_000
    queue.tick()
    clock.now -= 3_600_000
    assert claim(queue) == ["j1"]
    queue.enqueue([ticket(2, run_at_ms=clock.now + 1_800_000)])
    assert claim(queue) == ["j2"]


def test_jobs_that_run_according_to_their_rows_are_adopted_once(queue: JobQueue) -> None:
    queue.enqueue([ticket(1)])
    assert queue.adopt([(ticket(1), 1, "d9"), (ticket(2), 4, "d9")], TTL) == [True, True]
    assert queue.adopt([(ticket(1), 1, "d9"), (ticket(2), 3, "d9")], TTL) == [False, False]
    assert claim(queue, 9) == []
    assert queue.extend([("j1", 1), ("j2", 4)], TTL) == [Extended.OK, Extended.OK]


def test_a_rebuilt_queue_serves_in_the_same_order(queue: JobQueue) -> None:
    rng = random.Random(5)
    tickets = [ticket(n, f"u{rng.randrange(5)}", band=rng.randrange(10), cost=rng.randrange(1, 5)) for n in range(300)]
    queue.enqueue(tickets)
    started = claim(queue, 40)
    queue.release([(job_id, 1) for job_id in started])
    before_the_loss = queue.claim("gpu", 30, owner="d1", ttl_ms=TTL).claims
    for lost in reversed(before_the_loss):
        queue.requeue(lost.job_id, lost.token, epoch=0, run_at_ms=0)
    waiting = [t for t in tickets if t.job_id not in started]

    def rest() -> list[str]:
        queue.begin_rebuild()
        assert queue.claim("gpu", 1, owner="d1", ttl_ms=TTL).state == "rebuilding"
        rng.shuffle(waiting)
        queue.enqueue(waiting)
        queue.end_rebuild(0)
        return [c.job_id for c in queue.claim("gpu", 1_000, owner="d1", ttl_ms=TTL).claims]

    order = rest()
    by_user = {u: [j for j in order if tickets[int(j[1:])].user == u] for u in {t.user for t in tickets}}
    for user, jobs in by_user.items():
        assert jobs == [t.job_id for t in sorted(waiting, key=lambda t: (t.band, t.seq)) if t.user == user]
    assert [tickets[int(j[1:])].band for j in order] == sorted(t.band for t in waiting)


def test_eight_clients_at_once_never_lease_a_job_twice_nor_exceed_a_cap(queue: JobQueue) -> None:
    queue.configure("user", "*", "cap", 3)
    queue.enqueue([ticket(n, f"u{n % 4}") for n in range(200)])
    leased: Counter[str] = Counter()
    wrong: list[int] = []
    end = time.monotonic() + 60

    def work() -> None:
        while (claimed := queue.claim("gpu", 2, owner="d", ttl_ms=TTL)).claims or queue.stats().pending:
            assert time.monotonic() < end
            if queue.stats().leased > 12:
                wrong.append(1)
            for c in claimed.claims:
                leased[c.job_id] += 1
                queue.release([(c.job_id, c.token)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert leased == {f"j{n}": 1 for n in range(200)}
    assert not wrong


def test_a_change_wakes_who_waits(queue: JobQueue) -> None:
    queue.wait(0.01)
    woken: list[bool] = []
    waiter = threading.Thread(target=lambda: woken.append(queue.wait(20)))
    waiter.start()

    def ring() -> bool:
        queue.enqueue([ticket(1)])
        waiter.join(0.05)
        return bool(woken)

    wait_until(ring, what="the wake-up")
    assert woken == [True]


@pytest.mark.parametrize("wrong", [{"user": "a|b"}, {"job_id": ""}, {"band": 10}, {"cost": 0}, {"seq": -1}])
def test_a_ticket_that_could_break_a_key_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"key|range"):
        Ticket(**{"job_id": "j1", "user": "ana", "pool": "gpu", "band": 1, "seq": 1, **wrong})  # type: ignore[arg-type]


def test_a_queue_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    with pytest.raises(QueueDownError, match=r"127\.0\.0\.1:1"):
        RedisQueue("redis://127.0.0.1:1/0").ping()
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueDownError):
        LocalQueue(tmp_path / "file" / "q.sqlite3")
