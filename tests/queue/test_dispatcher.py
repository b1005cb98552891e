"""The dispatcher's loop, turn by turn, with either queue."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from workshop import SHORT, FakeLauncher, Workshop, finished

from dubbing import failpoints
from dubbing.dispatcher import Dispatcher
from dubbing.jobs import MAX_ORPHANED, State
from dubbing.launching import Report
from dubbing.queue_errors import DispatcherHeldError
from dubbing.reconcile import Times
from dubbing.store import Fence
from tests.services import PostgresServer, RedisServer, missing, postgres_binaries, wait_until


@pytest.fixture(params=["local", "redis"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workshop]:
    url = None
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        with server.client() as client:
            client.flushall()
        url = server.url
    made = Workshop(tmp_path, url)
    yield made
    for choice in made.choices:
        assert choice.queue.fsck() == []
    made.close()


def turn(shop: Workshop, dispatcher: object, seconds: float = 0.2) -> None:
    shop.clock.now += seconds
    dispatcher.step()  # type: ignore[attr-defined]


def test_a_job_is_launched_finished_and_its_slot_is_free_again(shop: Workshop) -> None:
    launcher = FakeLauncher(slots=1)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    turn(shop, dispatcher)
    first, second = shop.submit(), shop.submit()
    turn(shop, dispatcher)
    assert launcher.started == [(first.id, 1)]
    dispatcher.report(Report(first.id, 1, "finished", {"path": "x"}, warned=True))
    turn(shop, dispatcher)
    assert shop.state(first) is State.WARNED
    assert launcher.started == [(first.id, 1), (second.id, 1)]


def test_the_higher_priority_is_the_next_start_however_many_wait(shop: Workshop) -> None:
    launcher = FakeLauncher(slots=1)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    low = [shop.submit(priority=5) for _ in range(10)]
    turn(shop, dispatcher)
    urgent = shop.submit(priority=95)
    dispatcher.report(finished(low[0].id, 1))
    turn(shop, dispatcher)
    assert launcher.started[1] == (urgent.id, 1)


def test_a_failed_run_is_tried_again_after_its_wait_and_a_hopeless_one_is_not(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    passing, hopeless = shop.submit(), shop.submit()
    turn(shop, dispatcher)
    dispatcher.report(Report(passing.id, 1, "failed", {"code": "x", "retryable": True}))
    dispatcher.report(Report(hopeless.id, 1, "failed", {"code": "y", "retryable": False}))
    turn(shop, dispatcher)
    assert [shop.state(passing), shop.state(hopeless)] == [State.DELAYED, State.FAILED]
    assert shop.choices[-1].queue.stats().delayed == 1
    shop.intake.retry(shop.ana, hopeless.id)
    turn(shop, dispatcher)
    assert launcher.started[2:] == [(hopeless.id, 2)]


def test_a_job_whose_program_dies_without_a_word_runs_again_at_once_and_thrice_at_most(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    poison, good = shop.submit(), shop.submit()
    turn(shop, dispatcher)
    for epoch in (1, 2, 3):
        assert (poison.id, epoch) in launcher.started
        launcher.gone.append((poison.id, epoch, "signal 9"))
        turn(shop, dispatcher)
    turn(shop, dispatcher)
    assert shop.state(poison) is State.FAILED
    assert shop.state(good) is State.RUNNING
    assert len(launcher.started) == 4


def test_a_launch_that_fails_costs_no_attempt_and_is_tried_again(shop: Workshop) -> None:
    launcher = FakeLauncher(broken=True)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    job = shop.submit()
    turn(shop, dispatcher)
    waiting = shop.store.job(shop.ana, job.id)
    assert (waiting.state, waiting.attempt, waiting.crash_count) == (State.DELAYED, 0, 0)
    launcher.broken = False
    wait_until(lambda: turn(shop, dispatcher) or launcher.started, what="the second launch")
    assert launcher.started == [(job.id, 2)]


def test_a_cancel_reaches_a_running_job_by_its_heartbeat(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    job, waiting = shop.submit(), shop.submit(run_at_ms=10**14)
    turn(shop, dispatcher)
    assert dispatcher.heartbeat(job.id, 1, {"done": 1}) == "go on"
    shop.intake.cancel(shop.ana, job.id)
    shop.intake.cancel(shop.ana, waiting.id)
    turn(shop, dispatcher)
    assert dispatcher.heartbeat(job.id, 1) == "cancel"
    dispatcher.report(Report(job.id, 1, "stopped"))
    turn(shop, dispatcher)
    assert [shop.state(job), shop.state(waiting)] == [State.CANCELLED, State.CANCELLED]
    stats = shop.choices[-1].queue.stats()
    assert (stats.leased, stats.pending, stats.delayed) == (0, 0, 0)


def test_a_job_that_ignores_its_cancel_is_stopped_politely_and_then_by_force(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    job = shop.submit()
    turn(shop, dispatcher)
    shop.intake.cancel(shop.ana, job.id)
    turn(shop, dispatcher)
    assert launcher.cancelled == []
    turn(shop, dispatcher, SHORT.soft_cancel + 0.01)
    assert launcher.cancelled == [(job.id, False)]
    turn(shop, dispatcher, SHORT.hard_cancel - SHORT.soft_cancel)
    assert launcher.cancelled == [(job.id, False), (job.id, True)]
    assert shop.state(job) is State.CANCELLED


def test_a_paused_running_job_keeps_its_place_and_resumes(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    job = shop.submit()
    turn(shop, dispatcher)
    shop.intake.pause(shop.ana, job.id)
    turn(shop, dispatcher)
    assert dispatcher.heartbeat(job.id, 1) == "pause"
    dispatcher.report(Report(job.id, 1, "stopped"))
    turn(shop, dispatcher)
    assert shop.state(job) is State.PAUSED
    shop.intake.resume(shop.ana, job.id)
    turn(shop, dispatcher)
    assert launcher.started == [(job.id, 1), (job.id, 2)]


def test_nothing_starts_while_the_whole_queue_is_paused(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    turn(shop, dispatcher)
    shop.intake.configure(shop.admin, "global", "", "paused", 1)
    shop.submit()
    turn(shop, dispatcher)
    assert launcher.started == []
    shop.intake.configure(shop.admin, "global", "", "paused", None)
    turn(shop, dispatcher)
    assert len(launcher.started) == 1


def test_a_cap_that_the_queue_was_not_told_of_counts_within_a_tick(shop: Workshop) -> None:
    launcher = FakeLauncher(slots=9)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    for _ in range(6):
        shop.submit()
    shop.store.set_setting(f"user:{shop.ana.user_id}:cap", 4)
    turn(shop, dispatcher)
    assert len(launcher.started) == 4
    shop.store.set_setting(f"user:{shop.ana.user_id}:cap", None)
    dispatcher.report(finished(launcher.started[0][0], 1))
    turn(shop, dispatcher)
    assert len(launcher.started) == 4


def test_progress_is_saved_once_a_tick_and_only_its_newest_event_is_kept(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    job = shop.submit()
    turn(shop, dispatcher)
    for done in range(5):
        dispatcher.heartbeat(job.id, 1, {"done": done})
        turn(shop, dispatcher)
    assert shop.store.job(shop.ana, job.id).progress == {"done": 4}
    assert [e.kind for e in shop.store.events(shop.ana)] == ["pending", "running", "progress"]


def test_a_run_without_progress_is_taken_from_its_runner(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    job = shop.submit()
    turn(shop, dispatcher)
    dispatcher.heartbeat(job.id, 1, {"done": 1})
    elapsed = 0.0
    while elapsed < SHORT.stall + 1:
        dispatcher.heartbeat(job.id, 1, {"done": 1})
        turn(shop, dispatcher, 0.4)
        elapsed += 0.4
    assert (job.id, True) in launcher.cancelled
    assert launcher.started[-1] == (job.id, 2)


def test_a_run_that_cannot_be_renewed_is_fenced_before_its_lease_ends(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    job = shop.submit()
    turn(shop, dispatcher)
    turn(shop, dispatcher, SHORT.fence)
    assert launcher.cancelled == [(job.id, True)]
    assert dispatcher.heartbeat(job.id, 1) == "fenced"


def test_a_long_rebuild_costs_no_running_job_its_lease(shop: Workshop) -> None:
    launcher = FakeLauncher(slots=1)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    running, _ = shop.submit(), shop.submit()
    turn(shop, dispatcher)
    shop.choices[-1].queue.begin_rebuild()

    def long() -> None:
        shop.clock.now += SHORT.fence + 0.1
        dispatcher.heartbeat(running.id, 1)

    failpoints.arm("rebuild.wiped", long)
    try:
        turn(shop, dispatcher)
    finally:
        failpoints.disarm()
    turn(shop, dispatcher, 0.4)
    assert launcher.cancelled == []
    assert dispatcher.heartbeat(running.id, 1) == "go on"
    assert launcher.started == [(running.id, 1)]


def test_the_runs_of_a_dead_dispatcher_are_taken_over_by_another(tmp_path: Path, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.flushall()
    shop = Workshop(tmp_path, redis_server.url)
    first, second = FakeLauncher(slots=5), FakeLauncher(slots=5)
    dead = shop.dispatcher(first, "dead")
    dead.start()
    job = shop.submit()
    turn(shop, dead)
    assert first.started == [(job.id, 1)]
    heir = shop.dispatcher(second, "heir", real_time=True)
    heir.start()
    wait_until(lambda: heir.step() or second.started, what="the takeover")
    assert second.started == [(job.id, 2)]
    row = shop.store.job(shop.ana, job.id)
    assert (row.attempt, row.crash_count, row.orphan_count) == (0, 0, 1)
    assert not shop.store.finish(Fence(job.id, 1, shop.store.in_charge().backend_epoch), {})
    shop.close()


def test_the_successor_of_a_dead_local_dispatcher_resumes_at_once_and_two_are_refused(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    launcher = FakeLauncher()
    first = shop.dispatcher(launcher, "first")
    first.start()
    job = shop.submit()
    turn(shop, first)
    second = shop.dispatcher(launcher, "second")
    with pytest.raises(DispatcherHeldError, match="first"):
        second.start()
    shop.choices[1].close()
    second.start()
    turn(shop, second)
    assert launcher.started == [(job.id, 1), (job.id, 2)]
    shop.close()


def lives(shop: Workshop, count: int) -> Iterator[tuple[Dispatcher, FakeLauncher]]:
    """Dispatchers that die one after the other, each after its first turn; the next one starts at once."""
    for n in range(count):
        for choice in shop.choices:
            choice.close()
        launcher = FakeLauncher()
        dispatcher = shop.dispatcher(launcher, f"life{n}")
        dispatcher.start()
        turn(shop, dispatcher)
        yield dispatcher, launcher


def test_the_death_of_a_dispatcher_is_no_attempt_and_no_crash_of_its_jobs(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    job = shop.submit(max_attempts=1)
    for epoch, (_, launcher) in enumerate(lives(shop, MAX_ORPHANED), 1):
        assert launcher.started == [(job.id, epoch)]
        row = shop.store.job(shop.ana, job.id)
        assert (row.state, row.attempt, row.crash_count) == (State.RUNNING, 0, 0)
    shop.close()


def test_a_job_at_whose_side_ten_dispatchers_died_is_put_aside_and_can_be_retried(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    poison = shop.submit()
    for dispatcher, launcher in lives(shop, MAX_ORPHANED + 1):
        last, started = dispatcher, launcher.started
    dead = shop.store.job(shop.ana, poison.id)
    assert started == []
    assert dead.state is State.FAILED
    assert dead.error is not None
    assert dead.error["message"] == "The dispatcher died 10 times during the job, which was put aside"
    shop.intake.retry(shop.ana, poison.id)
    turn(shop, last)
    again = shop.store.job(shop.ana, poison.id)
    assert (again.state, again.orphan_count) == (State.RUNNING, 0)
    shop.close()


def test_a_job_that_kills_its_process_is_dead_after_three_crashes_whatever_dispatchers_die_between(
    tmp_path: Path,
) -> None:
    shop = Workshop(tmp_path)
    poison = shop.submit()
    for dispatcher, launcher in lives(shop, 3):
        assert [job_id for job_id, _ in launcher.started] == [poison.id]
        launcher.gone.append((*launcher.started[0], "signal 9"))
        turn(shop, dispatcher)
    dead = shop.store.job(shop.ana, poison.id)
    assert (dead.state, dead.crash_count, dead.orphan_count) == (State.FAILED, 3, 2)
    assert dead.error is not None
    assert dead.error["message"] == "Its process died 3 times during the job, which was put aside"
    shop.close()


def test_a_run_that_falls_silent_is_a_crash_of_its_own(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    silent = shop.submit()
    turn(shop, dispatcher)
    for epoch in (1, 2, 3):
        wait_until(lambda: turn(shop, dispatcher) or (silent.id, epoch) in launcher.started, what="the run")  # noqa: B023
        dispatcher.heartbeat(silent.id, epoch)
        turn(shop, dispatcher, SHORT.fence)
        assert launcher.cancelled[-1] == (silent.id, True)
        wait_until(lambda: turn(shop, dispatcher, 0.01) or shop.store.job(shop.ana, silent.id).crash_count == epoch)  # noqa: B023
    dead = shop.store.job(shop.ana, silent.id)
    assert (dead.state, dead.crash_count, dead.orphan_count) == (State.FAILED, 3, 0)


def test_a_run_may_wait_for_a_process_longer_than_it_may_be_silent(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    slow, never = shop.submit(), shop.submit()
    wait_until(lambda: turn(shop, dispatcher) or len(launcher.started) == 2, what="both runs")
    for _ in range(4):
        turn(shop, dispatcher, SHORT.fence / 2)
    dispatcher.heartbeat(slow.id, 1)
    assert launcher.cancelled == []

    spent = 2 * SHORT.fence
    while spent < SHORT.begin + SHORT.fence:
        turn(shop, dispatcher, SHORT.renew_index)
        dispatcher.heartbeat(slow.id, 1)
        spent += SHORT.renew_index
    assert (never.id, True) in launcher.cancelled and (slow.id, True) not in launcher.cancelled
    wait_until(lambda: turn(shop, dispatcher, 0.01) or shop.store.job(shop.ana, never.id).crash_count == 1)
    assert shop.store.job(shop.ana, slow.id).crash_count == 0


def test_a_dispatcher_that_stops_returns_its_jobs_without_blame(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    job = shop.submit()
    turn(shop, dispatcher)
    dispatcher.shut_down()
    back = shop.store.job(shop.ana, job.id)
    assert (back.state, back.attempt, back.crash_count) == (State.DELAYED, 0, 0)
    assert launcher.cancelled == [(job.id, True)]


def test_two_dispatchers_share_a_postgresql_and_a_redis(
    tmp_path: Path, redis_server: RedisServer, postgres_url: str
) -> None:
    with redis_server.client() as client, psycopg.connect(postgres_url, autocommit=True) as connection:
        client.flushall()
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    shop = Workshop(tmp_path, redis_server.url, url=postgres_url)
    launchers = [FakeLauncher(slots=4), FakeLauncher(slots=4)]
    dispatchers = [shop.dispatcher(launcher, f"d{n}") for n, launcher in enumerate(launchers)]
    for dispatcher in dispatchers:
        dispatcher.start()
    jobs = [shop.submit() for _ in range(10)]
    for _ in range(20):
        for dispatcher in dispatchers:
            turn(shop, dispatcher)
        running = shop.store.running()
        assert len(running) <= 2
        for job in running:
            dispatchers[int(job.owner[1:])].report(finished(job.id, job.epoch))
    assert {shop.state(job) for job in jobs} == {State.DONE}
    assert sorted(j for launcher in launchers for j, _ in launcher.started) == sorted(job.id for job in jobs)
    shop.close()


def test_while_the_database_is_away_nothing_starts_and_the_end_of_a_run_is_not_forgotten(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    binaries = postgres_binaries()
    if binaries is None:
        missing("PostgreSQL")
    folder = Path(tempfile.mkdtemp(prefix="dub-pg-", dir="/tmp"))
    database = PostgresServer(folder, str(binaries)).start()
    with redis_server.client() as client:
        client.flushall()
    shop = Workshop(tmp_path, redis_server.url, url=database.url)
    launcher = FakeLauncher(slots=1)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    first, second = shop.submit(), shop.submit()
    turn(shop, dispatcher)
    database.stop()
    try:
        dispatcher.report(finished(first.id, 1))
        turn(shop, dispatcher)
        turn(shop, dispatcher)
        assert dispatcher.heartbeat(first.id, 1) == "go on"
        assert launcher.started == [(first.id, 1)]
    finally:
        database.start()
    turn(shop, dispatcher)
    turn(shop, dispatcher)
    assert [shop.state(first), shop.state(second)] == [State.DONE, State.RUNNING]
    shop.close()
    database.stop()
    shutil.rmtree(folder)


def test_a_submission_wakes_the_dispatcher_which_need_not_poll(shop: Workshop) -> None:
    launcher = FakeLauncher(slots=50)
    dispatcher = shop.dispatcher(launcher, times=Times(tick=120), real_time=True)
    shop.store.set_setting("user:*:cap", 50)
    loop = threading.Thread(target=dispatcher.run)
    loop.start()
    try:
        wait_until(lambda: shop.choices[-1].queue.stats().ready)
        for n in range(5):
            shop.submit()
            wait_until(lambda: len(launcher.started) == n + 1, 30, "the start")  # noqa: B023
    finally:
        dispatcher.stop()
        loop.join()


def test_jobs_submitted_while_the_queue_was_not_told_are_found_in_the_outbox(shop: Workshop) -> None:
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    job, _ = shop.store.submit(shop.ana, {})
    turn(shop, dispatcher)
    assert launcher.started == [(job.id, 1)]
    assert shop.store.outbox(9) == []


def test_what_the_queue_lost_unnoticed_is_offered_again(shop: Workshop) -> None:
    launcher = FakeLauncher(slots=0)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    jobs = [shop.submit() for _ in range(4)]
    turn(shop, dispatcher)
    for job in jobs[1:]:
        shop.choices[-1].queue.cancel(job.id)
    launcher.slots = 9
    shop.store.set_setting("user:*:cap", 9)
    shop.choices[-1].queue.configure("user", "*", "cap", 9)
    wait_until(lambda: turn(shop, dispatcher) or len(launcher.started) == 4, 5, "all starts")
    assert [j for j, _ in launcher.started] == [j.id for j in jobs]
