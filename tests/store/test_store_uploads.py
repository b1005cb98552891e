"""Uploads as rows: whose they are, how much room is left for them, and when they end."""

from __future__ import annotations

from typing import Protocol

import pytest

from dubbing.errors import NotFoundError
from dubbing.store import Store
from dubbing.store.uploads import KEPT_MS
from dubbing.upload_errors import QuotaError, UploadRoomError

MB = 1_000_000


class Hand(Protocol):
    now: int


def test_an_upload_is_its_owners_alone_and_knows_how_far_it_is(store: Store) -> None:
    ana, bob = store.add_user("ana"), store.add_user("bob")
    upload = store.add_upload(ana.id, "talk.mp4", 10, room=100)

    store.note_received(upload.id, 4)
    assert (store.upload(ana.id, upload.id).received, store.upload(ana.id, upload.id).whole) == (4, False)
    store.note_received(upload.id, 10)
    assert store.upload(ana.id, upload.id).whole

    for stranger in (bob.id, ""):
        with pytest.raises(NotFoundError):
            store.upload(stranger, upload.id)
    store.forget_upload(upload.id)
    with pytest.raises(NotFoundError):
        store.upload(ana.id, upload.id)


def test_room_counts_what_is_still_to_come_and_a_quota_what_is_there(store: Store) -> None:
    ana, bob = store.add_user("ana"), store.add_user("bob")
    first = store.add_upload(ana.id, "a", 6 * MB, room=10 * MB)
    store.note_received(first.id, 5 * MB)

    with pytest.raises(UploadRoomError, match="has 9 MB left for uploads, and this file needs 10 MB"):
        store.add_upload(bob.id, "b", 10 * MB, room=10 * MB)
    second = store.add_upload(bob.id, "b", 9 * MB, room=10 * MB)
    store.note_received(second.id, 9 * MB)
    store.take_upload(second.id)
    with pytest.raises(QuotaError, match="has 2 MB, and 1 MB are left of your 20 MB"):
        store.add_upload(bob.id, "c", 2 * MB, room=10 * MB, quota=20 * MB, kept=10 * MB)
    store.add_upload(bob.id, "c", 1 * MB, room=10 * MB, quota=20 * MB, kept=10 * MB)


def test_an_upload_ends_by_itself_but_not_while_a_job_has_it(store: Store, clock: Hand) -> None:
    ana = store.add_user("ana")
    left, active, taken = (store.add_upload(ana.id, name, 1, room=100) for name in ("left", "active", "taken"))
    store.take_upload(taken.id)
    job, _ = store.submit(ana.actor, {"source": f"/out/_uploads/{taken.id}/taken.mp4"})
    clock.now += KEPT_MS - 1
    store.note_received(active.id, 1)
    assert store.stale_uploads() == []

    clock.now += 2
    assert [upload.id for upload in store.stale_uploads()] == [left.id]
    with pytest.raises(NotFoundError):
        store.upload(ana.id, left.id)
    assert store.upload(ana.id, taken.id).taken

    store.cancel(ana.actor, job.id)
    store.delete(ana.actor, job.id)
    assert {upload.id for upload in store.stale_uploads()} == {left.id, taken.id}
