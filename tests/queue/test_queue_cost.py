"""What a job costs from its claim to its end, in statements and commands: so that it stays cheap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from workshop import SHORT, FakeLauncher, Workshop, finished

from dubbing.dispatcher import Dispatcher
from dubbing.jobs import State
from dubbing.launching import Report
from tests.services import RedisServer

SLOTS = 8
STATEMENTS = 2 * (2 * SLOTS + 2) + 1
"""For SLOTS jobs: BEGIN, an UPDATE and an event each, COMMIT; once to take them and once to end them, which asks for webhooks."""


@pytest.fixture
def shop(tmp_path: Path, own_redis: RedisServer) -> Iterator[Workshop]:
    made = Workshop(tmp_path, own_redis.url, mode="redis")
    made.store.set_setting("user:*:cap", SLOTS)
    yield made
    made.close()


def busy(shop: Workshop, jobs: int) -> tuple[Dispatcher, FakeLauncher]:
    """A dispatcher all of whose slots are taken by jobs that are over, with `jobs` more in line."""
    launcher = FakeLauncher(slots=SLOTS)
    dispatcher = shop.dispatcher(launcher)
    launcher.on_launch = lambda job: dispatcher.report(finished(job.id, job.epoch))
    dispatcher.start()
    for n in range(SLOTS + jobs):
        shop.submit(priority=n % 101)
    dispatcher.step()
    assert len(launcher.started) == SLOTS
    return dispatcher, launcher


def statements_of_a_turn(shop: Workshop, dispatcher: Dispatcher) -> list[str]:
    """What one turn of the loop writes to the database."""
    seen: list[str] = []
    with shop.store.write() as connection:
        driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_trace_callback(seen.append)
    dispatcher.step()
    driver.set_trace_callback(None)
    return seen


def test_eight_jobs_are_ended_and_eight_taken_by_two_transactions_and_two_calls_of_redis(
    shop: Workshop, own_redis: RedisServer
) -> None:
    dispatcher, launcher = busy(shop, SLOTS)
    with own_redis.client() as client:
        client.config_resetstat()
        written = statements_of_a_turn(shop, dispatcher)
        calls: dict[str, dict[str, int]] = client.info("commandstats")  # type: ignore[assignment]
    assert len(launcher.started) == 2 * SLOTS
    assert [words for words in written if words.startswith(("BEGIN", "COMMIT"))] == ["BEGIN IMMEDIATE", "COMMIT"] * 2
    assert len(written) <= STATEMENTS, written
    assert calls["cmdstat_evalsha"]["calls"] == 2
    assert sum(stat["calls"] for stat in calls.values()) / SLOTS <= 36


def test_what_starts_and_ends_jobs_reads_as_much_among_three_thousand_ended_jobs_as_among_thirty(
    shop: Workshop,
) -> None:
    def steps() -> int:
        count = 0

        def tick() -> None:
            nonlocal count
            count += 1

        with shop.store.write() as connection:
            driver = connection.connection.driver_connection
        assert driver is not None
        dispatcher, launcher = busy(shop, SLOTS)
        driver.set_progress_handler(tick, 1)
        dispatcher.step()
        driver.set_progress_handler(None, 1)
        dispatcher.step()
        assert len(launcher.started) == 2 * SLOTS
        return count

    def end(jobs: int) -> None:
        for _ in range(jobs):
            job, _ = shop.store.submit(shop.ana, {})
            shop.store.cancel(shop.ana, job.id)

    end(30)
    few = steps()
    end(3_000)
    assert steps() <= 1.2 * few


def test_several_ends_at_once_are_each_judged_alone(shop: Workshop) -> None:
    launcher = FakeLauncher(slots=4)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    jobs = [shop.submit() for _ in range(4)]
    dispatcher.step()
    lost = shop.store.running()[1]
    with shop.store.write() as connection:
        connection.exec_driver_sql("UPDATE job SET epoch = 9 WHERE id = :id", {"id": lost.id})
    for job in jobs[:3]:
        dispatcher.report(finished(job.id, 1))
    dispatcher.report(finished(jobs[0].id, 1))
    dispatcher.report(Report(jobs[3].id, 1, "failed", {"code": "x", "retryable": False}))
    shop.clock.now += SHORT.tick
    dispatcher.step()
    assert [shop.state(job) for job in jobs] == [State.DONE, State.RUNNING, State.DONE, State.FAILED]
    ends = [event.job_id for event in shop.store.events(shop.admin) if event.kind == "done"]
    assert sorted(ends) == sorted([jobs[0].id, jobs[2].id])
    assert dispatcher.heartbeat(lost.id, 1) == "fenced"


def test_the_loop_sleeps_while_the_database_refuses_the_end_of_a_run(shop: Workshop, own_redis: RedisServer) -> None:
    launcher = FakeLauncher(slots=1)
    dispatcher = shop.dispatcher(launcher, real_time=True)
    dispatcher.start()
    job = shop.submit()
    dispatcher.step()
    turns = 0
    with shop.store.write() as connection:
        connection.exec_driver_sql("CREATE TRIGGER no BEFORE UPDATE ON job BEGIN SELECT raise(ABORT, 'no'); END")
    wait = shop.choices[-1].queue.wait

    def count(timeout_s: float) -> bool:
        nonlocal turns
        turns += 1
        if turns == 3:
            dispatcher.stop()
            with shop.store.write() as connection:
                connection.exec_driver_sql("DROP TRIGGER no")
        return wait(timeout_s)

    shop.choices[-1].queue.wait = count  # type: ignore[method-assign]
    dispatcher.report(finished(job.id, 1))
    dispatcher.go_on()
    assert turns == 3
    assert shop.state(job) is State.DONE


def test_redis_is_told_of_a_report_only_when_the_loop_sleeps(shop: Workshop, own_redis: RedisServer) -> None:
    dispatcher, _ = busy(shop, 0)
    with own_redis.client() as client, client.pubsub() as listener:
        listener.subscribe("dq:{dubbing}:wake")
        dispatcher.report(finished("x", 1))
        client.publish("dq:{dubbing}:wake", "mark")
        heard = [m["data"] for m in iter(lambda: listener.get_message(timeout=1), None) if m["type"] == "message"]
    assert heard == [b"mark"]
