from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from dubbing.jobs import MAX_ORPHANED, Actor, State
from dubbing.store import Fence, Store
from dubbing.types import Line

Started = Callable[[], tuple[str, Fence]]
TTL = 60_000


def fence_of(store: Store, job_id: str) -> Fence:
    job = store.peek(job_id)
    assert job is not None
    return Fence(job_id, job.epoch + 1, store.in_charge().backend_epoch)


def test_a_job_is_taken_once(store: Store, ana: Actor) -> None:
    job, _ = store.submit(ana, {})
    fence = fence_of(store, job.id)
    taken = store.take(fence, owner="d1", ttl_ms=TTL)
    assert taken is not None
    assert (taken.state, taken.epoch, taken.owner) == (State.RUNNING, 1, "d1")
    assert store.take(fence, owner="d2", ttl_ms=TTL) is None
    assert store.take(replace(fence, epoch=2), owner="d2", ttl_ms=TTL) is None


def test_eight_takers_at_once_never_exceed_the_cap_of_a_user(store: Store, ana: Actor) -> None:
    store.set_setting(f"user:{ana.user_id}:cap", 3)
    fences = [fence_of(store, store.submit(ana, {})[0].id) for _ in range(16)]
    taken: list[object] = []

    def take(mine: list[Fence]) -> None:
        taken.extend(job for f in mine if (job := store.take(f, owner="d", ttl_ms=TTL)))

    threads = [threading.Thread(target=take, args=(fences[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(store.running()) == 3


def test_the_default_cap_holds_until_an_administrator_sets_one(store: Store, ana: Actor) -> None:
    fences = [fence_of(store, store.submit(ana, {})[0].id) for _ in range(4)]
    assert [bool(store.take(f, owner="d", ttl_ms=TTL)) for f in fences[:3]] == [True, True, False]
    store.set_setting("user:*:cap", 3)
    assert store.take(fences[2], owner="d", ttl_ms=TTL)
    assert store.settings()["user:*:cap"] == 3


@pytest.mark.parametrize("stale", ["epoch", "backend_epoch"])
def test_no_write_of_a_stale_run_changes_a_row(store: Store, ana: Actor, running: Started, stale: str) -> None:
    job_id, fence = running()
    before = store.peek(job_id)
    events = store.events(ana, job_id=job_id)
    zombie = replace(fence, **{stale: getattr(fence, stale) - 1})
    store.cancel(ana, job_id)
    asked = store.peek(job_id)
    assert store.heartbeat(zombie, TTL) is None
    assert store.report_progress(zombie, {}) is False
    assert not store.finish(zombie, {})
    assert store.fail(zombie, {"retryable": True}) is None
    assert store.crash(zombie, "gone", only_expired=False) is None
    assert store.orphan(zombie, "gone", only_expired=False) is None
    assert store.disown(zombie) is False
    assert store.put_back(zombie, wait_ms=0) is None
    assert store.stopped(zombie) is None
    assert store.save_target(zombie, "es", "done") is False
    assert store.save_lines(zombie, "es", []) is False
    assert store.peek(job_id) == asked
    assert before is not None
    assert len(store.events(ana, job_id=job_id)) == len(events) + 1


def test_a_start_for_a_queue_that_is_no_longer_in_charge_is_refused(store: Store, ana: Actor) -> None:
    job, _ = store.submit(ana, {})
    old = fence_of(store, job.id)
    assert store.put_in_charge("local", holder="d1", seen_epoch=old.backend_epoch)
    assert store.put_in_charge("local", holder="d2", seen_epoch=old.backend_epoch) is None
    assert store.take(old, owner="d2", ttl_ms=TTL) is None
    assert store.take(fence_of(store, job.id), owner="d1", ttl_ms=TTL)


def test_a_heartbeat_renews_the_lease_and_tells_what_was_asked(
    store: Store, clock, ana: Actor, running: Started
) -> None:  # type: ignore[no-untyped-def]
    job_id, fence = running()
    clock.now += 30_000
    store.cancel(ana, job_id)
    beat = store.heartbeat(fence, TTL)
    assert beat is not None
    assert (beat.lease_until_ms, beat.asked) == (clock.now + TTL, "cancel")


def test_a_failed_run_is_retried_until_its_attempts_are_used(store: Store, ana: Actor) -> None:
    job, _ = store.submit(ana, {}, max_attempts=5)
    starts = 0
    while (seen := store.peek(job.id)) and seen.state in (State.PENDING, State.DELAYED):
        fence = fence_of(store, job.id)
        assert store.take(fence, owner="d", ttl_ms=TTL)
        starts += 1
        assert store.fail(fence, {"code": "engine_failed", "retryable": True})
    assert starts == 5
    assert seen is not None
    assert (seen.state, seen.attempt) == (State.FAILED, 5)
    assert seen.error == {"code": "engine_failed", "retryable": True}


def test_a_job_that_could_not_be_launched_loses_no_attempt(store: Store, clock, running: Started) -> None:  # type: ignore[no-untyped-def]
    job_id, fence = running()
    back = store.put_back(fence, wait_ms=5_000)
    assert back is not None
    assert (back.state, back.attempt, back.crash_count, back.run_at_ms) == (State.DELAYED, 0, 0, clock.now + 5_000)
    assert [j.id for j in store.outbox(9)] == [job_id]


def test_only_a_run_whose_lease_is_past_can_be_taken_back(store: Store, clock, running: Started) -> None:  # type: ignore[no-untyped-def]
    job_id, fence = running()
    clock.now += TTL
    assert store.crash(fence, "lease expired") is None
    clock.now += 1
    back = store.crash(fence, "lease expired")
    assert back is not None
    assert (back.id, back.state, back.crash_count, back.attempt) == (job_id, State.PENDING, 1, 0)
    assert store.events(Actor("", "admin"))[-1].data == {"reason": "lease expired"}


def test_a_job_that_kills_its_runner_is_dead_after_exactly_three_crashes(store: Store, ana: Actor) -> None:
    job, _ = store.submit(ana, {})
    crashes = 0
    while (seen := store.peek(job.id)) and seen.state is State.PENDING:
        fence = fence_of(store, job.id)
        assert store.take(fence, owner="d", ttl_ms=TTL)
        assert store.crash(fence, "signal 9", only_expired=False)
        crashes += 1
    assert crashes == 3
    assert seen is not None
    assert seen.error is not None
    assert (seen.state, seen.error["code"]) == (State.FAILED, "poison_job")


def test_a_job_whose_dispatcher_died_waits_again_and_its_own_crashes_are_counted_apart(
    store: Store, clock, ana: Actor, running: Started
) -> None:  # type: ignore[no-untyped-def]
    job_id, fence = running()
    assert store.orphan(fence, "d1 ended") is None, "its lease is not past"
    clock.now += TTL + 1
    back = store.orphan(fence, "d1 ended")
    assert back is not None
    assert (back.state, back.attempt, back.crash_count, back.orphan_count) == (State.PENDING, 0, 0, 1)
    assert [j.id for j in store.outbox(9)] == [job_id]
    for n in range(2, MAX_ORPHANED + 1):
        assert store.take(fence_of(store, job_id), owner="d", ttl_ms=TTL)
        taken = store.peek(job_id)
        assert taken is not None
        back = store.orphan(replace(fence, epoch=taken.epoch), "d ended", only_expired=False)
        assert back is not None
        assert back.orphan_count == n
    assert back.error is not None
    assert (back.state, back.crash_count, back.error["code"]) == (State.FAILED, 0, "poison_job")
    again = store.retry(ana, job_id)
    assert (again.state, again.orphan_count) == (State.PENDING, 0)


def test_a_run_that_is_disowned_runs_on_in_its_row_but_nobody_answers_for_it(store: Store, running: Started) -> None:
    job_id, fence = running()
    assert store.disown(fence)
    row = store.peek(job_id)
    assert row is not None
    assert (row.state, row.owner, row.epoch) == (State.RUNNING, "", fence.epoch)


@pytest.mark.parametrize("end", ["fail", "crash", "orphan", "put_back"])
def test_a_cancel_is_not_lost_when_the_run_ends_badly(store: Store, ana: Actor, running: Started, end: str) -> None:
    job_id, fence = running()
    store.cancel(ana, job_id)
    ended = {
        "fail": lambda: store.fail(fence, {"retryable": True}),
        "crash": lambda: store.crash(fence, "gone", only_expired=False),
        "orphan": lambda: store.orphan(fence, "gone", only_expired=False),
        "put_back": lambda: store.put_back(fence, wait_ms=0),
    }[end]()
    assert ended is not None
    assert ended.state is State.CANCELLED
    assert store.outbox(9) == []


def test_lines_and_targets_of_a_run_are_kept_for_the_pages(store: Store, ana: Actor, running: Started) -> None:
    job_id, fence = running()
    line = Line(0, 10, 900, "hello")
    assert store.save_lines(fence, "es", [(line, "hola", None)])
    assert store.save_lines(fence, "es", [(line, "¡hola!", "too fast")])
    assert store.save_target(fence, "es", "done", {"path": "es.mp4"})
    (row,) = store.lines(ana, job_id, "es")
    assert (row["source"], row["text"], row["flag"], row["start_ms"]) == ("hello", "¡hola!", "too fast", 10)
    assert [t["state"] for t in store.targets(ana, job_id)] == ["done", "pending"]


def test_a_job_marked_as_known_to_the_queue_leaves_the_outbox_unless_it_changed(store: Store, ana: Actor) -> None:
    job, _ = store.submit(ana, {})
    epoch = store.in_charge().backend_epoch
    store.mark_indexed([replace(job, epoch=7)], epoch)
    store.mark_indexed([job], epoch - 1)
    assert store.outbox(9) == [job]
    store.mark_indexed([job], epoch)
    assert store.outbox(9) == []
    assert store.waiting(0, 9) == [job]
    assert list(store.still_waiting([job.id, "x"])) == [job.id]
    assert store.counts() == {"pending": 1}


def test_only_one_dispatcher_rebuilds_and_a_dead_one_is_replaced(store: Store, clock) -> None:  # type: ignore[no-untyped-def]
    assert store.lock_rebuild("d1", 10_000)
    assert store.lock_rebuild("d1", 10_000)
    assert not store.lock_rebuild("d2", 10_000)
    clock.now += 10_001
    assert store.lock_rebuild("d2", 10_000)
    store.unlock_rebuild("d2")
    assert store.lock_rebuild("d1", 10_000)
