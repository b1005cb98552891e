from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dubbing.errors import (
    ForbiddenError,
    IdempotencyError,
    NameTakenError,
    NotFoundError,
    StateConflictError,
    UsageError,
)
from dubbing.jobs import Actor, State
from dubbing.store import Fence, Store

Started = Callable[[], tuple[str, Fence]]


def test_a_submitted_job_is_queued_and_waits_in_the_outbox(store: Store, ana: Actor) -> None:
    job, new = store.submit(ana, {"source": "a.mp4"}, targets=["es", "fr"], priority=95, cost=7)
    assert (new, job.state, job.state.shown, job.band, job.cost) == (True, State.PENDING, "queued", 0, 7)
    assert job == store.job(ana, job.id) == store.outbox(10)[0]
    assert [t["language"] for t in store.targets(ana, job.id)] == ["es", "fr"]


def test_the_same_key_and_request_answer_the_same_job(store: Store, ana: Actor, ben: Actor) -> None:
    first, _ = store.submit(ana, {"source": "a.mp4"}, key="k1")
    again, new = store.submit(ana, {"source": "a.mp4"}, key="k1")
    other, new_for_ben = store.submit(ben, {"source": "a.mp4"}, key="k1")
    assert (again.id, new, new_for_ben) == (first.id, False, True)
    assert other.id != first.id


def test_a_key_used_for_another_request_is_refused(store: Store, ana: Actor) -> None:
    store.submit(ana, {"source": "a.mp4"}, key="k1")
    with pytest.raises(IdempotencyError, match="k1"):
        store.submit(ana, {"source": "b.mp4"}, key="k1")


def test_eight_submissions_with_one_key_at_once_make_one_job(store: Store, ana: Actor) -> None:
    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda: seen.append(store.submit(ana, {"source": "a"}, key="same")[0].id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert len(store.jobs(ana)) == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"priority": 101}, "0 to 100"), ({"pool": "tpu"}, "pool"), ({"cost": 0}, "cost"), ({"key": "a b"}, "key")],
)
def test_bad_submissions_say_what_was_expected(store: Store, ana: Actor, wrong: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        store.submit(ana, {}, **wrong)  # type: ignore[arg-type]


def test_the_jobs_of_others_do_not_exist_except_for_administrators(
    store: Store, ana: Actor, ben: Actor, admin: Actor
) -> None:
    job, _ = store.submit(ana, {"source": "a.mp4"})
    for act in (store.job, store.cancel, store.pause, store.resume, store.retry, store.targets):
        with pytest.raises(NotFoundError):
            act(ben, job.id)
    assert store.jobs(ben) == []
    assert store.events(ben) == []
    assert store.job(admin, job.id) == job
    assert [e.job_id for e in store.events(admin)] == [job.id]


def test_a_viewer_cannot_submit(store: Store) -> None:
    with pytest.raises(ForbiddenError):
        store.submit(store.add_user("vera", "viewer").actor, {})


def test_a_user_name_is_used_once_and_has_no_odd_characters(store: Store, ana: Actor) -> None:
    with pytest.raises(NameTakenError):
        store.add_user("ana")
    with pytest.raises(UsageError):
        store.add_user("a|b")
    with pytest.raises(ForbiddenError):
        store.users(ana)
    with pytest.raises(NotFoundError):
        store.user_by_name("nobody")


def test_a_user_can_be_disabled_and_given_a_role(store: Store, ana: Actor, admin: Actor) -> None:
    store.change_user(ana.user_id, role="viewer", password_hash="h", disabled=True)
    changed = store.user(ana.user_id)
    assert (changed.role, changed.password_hash, changed.disabled) == ("viewer", "h", True)
    assert [u.name for u in store.users(admin)] == ["ana", "root"]


def test_pages_of_jobs_go_back_in_time_without_gaps(store: Store, ana: Actor) -> None:
    ids = [store.submit(ana, {"n": n})[0].id for n in range(7)]
    first = store.jobs(ana, limit=4)
    rest = store.jobs(ana, limit=4, before_seq=first[-1].seq)
    assert [j.id for j in first + rest] == ids[::-1]
    assert store.jobs(ana, states=[State.DONE]) == []


def test_cancelling_a_waiting_job_ends_it_and_a_running_one_is_asked(
    store: Store, ana: Actor, running: Started
) -> None:
    waiting, _ = store.submit(ana, {})
    assert store.cancel(ana, waiting.id).state is State.CANCELLED
    job_id, fence = running()
    asked = store.cancel(ana, job_id)
    assert (asked.state, asked.asked) == (State.RUNNING, "cancel")
    ended = store.stopped(fence)
    assert ended is not None
    assert ended.state is State.CANCELLED
    with pytest.raises(StateConflictError, match="cancelled"):
        store.cancel(ana, job_id)


def test_a_paused_job_leaves_the_line_and_returns_to_its_old_place(store: Store, ana: Actor, running: Started) -> None:
    job, _ = store.submit(ana, {})
    assert store.pause(ana, job.id).state is State.PAUSED
    assert store.outbox(10) == []
    back = store.resume(ana, job.id)
    assert (back.state, back.seq) == (State.PENDING, job.seq)
    assert [j.id for j in store.outbox(10)] == [job.id]
    with pytest.raises(StateConflictError):
        store.resume(ana, job.id)
    job_id, fence = running()
    assert store.pause(ana, job_id).asked == "pause"
    stopped = store.stopped(fence)
    assert stopped is not None
    assert stopped.state is State.PAUSED


def test_retrying_a_dead_job_gives_it_all_its_attempts_again(store: Store, ana: Actor, running: Started) -> None:
    job_id, fence = running()
    with pytest.raises(StateConflictError):
        store.retry(ana, job_id)
    assert store.fail(fence, {"code": "x", "retryable": False})
    again = store.retry(ana, job_id)
    assert (again.state, again.attempt, again.epoch) == (State.PENDING, 0, 1)


def test_an_ended_job_can_be_deleted_with_all_that_belongs_to_it(
    store: Store, ana: Actor, ben: Actor, running: Started
) -> None:
    job_id, fence = running()
    with pytest.raises(StateConflictError, match="deleted"):
        store.delete(ana, job_id)
    store.finish(fence, {})
    with pytest.raises(NotFoundError):
        store.delete(ben, job_id)
    store.delete(ana, job_id)
    assert store.jobs(ana) == []
    assert store.events(ana) == []


def test_every_change_of_state_leaves_an_event_in_order(store: Store, ana: Actor, running: Started) -> None:
    job_id, fence = running()
    store.report_progress(fence, {"done": 1})
    store.report_progress(fence, {"done": 2})
    store.finish(fence, {"path": "x"})
    seen = store.events(ana, job_id=job_id)
    assert [e.kind for e in seen] == ["pending", "running", "progress", "done"]
    assert seen[2].data == {"done": 2}
    assert store.events(ana, after=seen[1].id)[0].id == seen[2].id


def test_a_shared_job_is_seen_by_all_and_changed_by_its_owner_alone(store: Store) -> None:
    ana, bob = store.add_user("ana-shares").actor, store.add_user("bob-looks").actor
    job, _ = store.submit(ana, {"source": "/films/100%_Über.mp4"})
    with pytest.raises(NotFoundError):
        store.job(bob, job.id)

    store.share(ana, job.id, True)

    assert store.job(bob, job.id).shared and store.events(bob, job_id=job.id)
    assert [found.id for found in store.jobs(bob, view="shared")] == [job.id]
    assert store.jobs(bob, view="mine") == [] and store.jobs(ana, view="shared") == []
    for change in (store.cancel, store.pause, lambda actor, job_id: store.share(actor, job_id, False)):
        with pytest.raises(NotFoundError):
            change(bob, job.id)
    store.share(ana, job.id, False)
    with pytest.raises(NotFoundError):
        store.events(bob, job_id=job.id)


@pytest.mark.parametrize(
    ("search", "found"), [("films", True), ("100%_", True), ("1000", False), ("_ber", False), ('"', False)]
)
def test_jobs_are_found_by_a_part_of_their_request(store: Store, search: str, found: bool) -> None:
    ana = store.add_user("ana-seeks").actor
    job, _ = store.submit(ana, {"source": "/films/100%_Film.mp4"})

    assert [one.id for one in store.jobs(ana, search=search)] == ([job.id] if found else [])


def test_jobs_are_found_by_the_first_digits_of_their_ids(store: Store, ana: Actor, ben: Actor) -> None:
    jobs = [store.submit(ana, {})[0].id for _ in range(3)]

    assert [job.id for job in store.jobs(ana, beginning=jobs[1][:12])] == [jobs[1]]
    assert [job.id for job in store.jobs(ana, beginning=jobs[1])] == [jobs[1]]
    assert store.jobs(ben, beginning=jobs[1][:12]) == store.jobs(ana, beginning="%") == []
