"""What streams and webhooks read and write, over both databases."""

from __future__ import annotations

import json

from dubbing.jobs import Actor
from dubbing.store import Fence, Store


def test_changes_name_each_job_once_with_its_latest_event(store: Store) -> None:
    ana = store.add_user("ana-live")
    begun = store.last_event()
    first, second = (store.submit(ana.actor, {"source": f"/films/{n}.mp4"})[0] for n in range(2))
    store.cancel(ana.actor, first.id)

    found = store.changes(after=begun)

    assert [change.job.id for change in found] == [second.id, first.id]
    assert [change.job.state.value for change in found] == ["pending", "cancelled"]
    assert found[-1].event_id == store.last_event()
    assert [change.job.id for change in store.changes(after=begun, known={found[0].event_id})] == [first.id]
    assert store.changes(after=store.last_event()) == []


def test_a_change_is_seen_by_its_owner_by_administrators_and_when_shared_by_all(store: Store) -> None:
    ana = store.add_user("ana-seen")
    job, _ = store.submit(ana.actor, {"source": "/films/a.mp4"})
    (change,) = store.changes(after=store.last_event() - 1)

    assert [change.seen_by(actor) for actor in (ana.actor, Actor("x", "admin"), Actor("x", "user"))] == [
        True,
        True,
        False,
    ]
    store.share(ana.actor, job.id, True)
    (shared,) = store.changes(after=store.last_event() - 1)
    assert shared.seen_by(Actor("x", "user"))


def test_doors_are_open_sessions_and_keys_of_users_who_are_not_disabled(store: Store) -> None:
    ana, ben = store.add_user("ana-door"), store.add_user("ben-door", "admin")
    before = set(store.doors())
    store.open_session(ana.id, "session-of-ana")
    store.add_key(ben.id, "key-of-ben", name="k", scope="read")
    store.add_key(ben.id, "old-key-of-ben", name="k", scope="read", expires_ms=1)

    found = {key: actor for key, actor in store.doors().items() if key not in before}

    assert sorted((actor.user_id, actor.role) for actor in found.values()) == sorted(
        [(ana.id, "user"), (ben.id, "admin")]
    )
    store.change_user(ana.id, role="user", password_hash=None, disabled=True)
    assert {actor.user_id for key, actor in store.doors().items() if key not in before} == {ben.id}


def test_a_file_is_named_as_long_as_one_job_has_it(store: Store) -> None:
    ana = store.add_user("ana-named")
    source = '/films/100%_"a"\\b.mp4'
    jobs = [store.submit(ana.actor, {"source": source})[0] for _ in range(2)]

    assert store.is_named("request", "source", source)
    assert not store.is_named("request", "source", source.replace("%", "x").replace("_", "y"))
    for job in jobs:
        store.cancel(ana.actor, job.id)
        assert store.is_named("request", "source", source)
        store.delete(ana.actor, job.id)
    assert not store.is_named("request", "source", source)


def test_the_end_of_a_job_and_its_messages_are_one_transaction(store: Store) -> None:
    ana = store.add_user("ana-hook")
    hooks = [store.add_webhook(ana.id, f"https://example.org/{n}", "s") for n in range(2)]
    job, _ = store.submit(ana.actor, {"source": "/films/a.mp4", "targets": ["es"]})
    fence = Fence(job.id, 1, store.in_charge().backend_epoch)
    assert store.take(fence, owner="test", ttl_ms=60_000)
    assert store.deliveries(ana.id) == []
    assert store.finish(fence, {"report": "/x", "files": {}, "warnings": []})
    assert not store.finish(fence, {"report": "/x", "files": {}, "warnings": []})

    sent = store.deliveries(ana.id)
    taken = store.take_deliveries(1000)

    assert {one.webhook_id for one in sent} == {hook.id for hook in hooks} and len(sent) == 2
    mine = [one for one in taken if one.url.startswith("https://example.org/")]
    assert [json.loads(one.body)["job"]["id"] for one in mine] == [job.id] * 2
    assert not any(one.trusted for one in mine)
    for one in mine:
        store.settle_delivery(one.id, 204, arrived=True)
    assert {(one.attempt, one.due_ms, one.status) for one in store.deliveries(ana.id)} == {(1, 0, 204)}
