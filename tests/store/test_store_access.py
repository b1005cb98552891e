"""Sessions, API keys and invitations: what lets somebody in, and what no longer does."""

from __future__ import annotations

from typing import Protocol

import pytest

from dubbing.errors import ForbiddenError, NameTakenError, NotFoundError
from dubbing.jobs import Actor
from dubbing.store import Store
from dubbing.store.access import INVITE_MS, SESSION_MS

SECRET = "s" * 43


class Hand(Protocol):
    now: int


def test_a_session_lets_its_user_in_until_it_is_ended(store: Store) -> None:
    ana = store.add_user("ana")
    store.open_session(ana.id, SECRET, agent="Firefox", address="100.64.0.7")

    assert store.session_user(SECRET) == ana
    assert store.session_user("x" + SECRET[1:]) is None
    (session,) = store.sessions(ana.id)
    assert (session.agent, session.address) == ("Firefox", "100.64.0.7") and session.id not in SECRET

    store.end_session(ana.id, session.id)

    assert store.session_user(SECRET) is None and store.sessions(ana.id) == []
    with pytest.raises(NotFoundError):
        store.end_session(ana.id, session.id)


def test_nobody_ends_the_session_of_another(store: Store) -> None:
    ana, bob = store.add_user("ana"), store.add_user("bob")
    store.open_session(ana.id, SECRET)

    with pytest.raises(NotFoundError):
        store.end_session(bob.id, store.sessions(ana.id)[0].id)

    assert store.session_user(SECRET) == ana


def test_a_new_password_can_end_all_sessions_but_this_one(store: Store) -> None:
    ana = store.add_user("ana")
    for secret in ("one", "two", "three"):
        store.open_session(ana.id, secret)

    store.end_sessions(ana.id, but="two")

    assert [secret for secret in ("one", "two", "three") if store.session_user(secret)] == ["two"]


def test_a_disabled_user_is_out_at_once(store: Store) -> None:
    ana = store.add_user("ana")
    store.open_session(ana.id, SECRET)
    store.add_key(ana.id, "key", name="phone", scope="write")

    store.change_user(ana.id, role="user", password_hash=None, disabled=True)

    assert store.session_user(SECRET) is None and store.key_user("key") is None


def test_a_session_ends_when_it_was_not_used_for_long_and_use_prolongs_it(store: Store, clock: Hand) -> None:
    ana = store.add_user("ana")
    store.open_session(ana.id, SECRET)

    clock.now += SESSION_MS - 1000
    assert store.session_user(SECRET) == ana
    clock.now += SESSION_MS - 1000
    assert store.session_user(SECRET) == ana
    clock.now += SESSION_MS + 1000
    assert store.session_user(SECRET) is None


def test_an_api_key_acts_for_its_user_within_its_scope_until_revoked(store: Store) -> None:
    ana = store.add_user("ana")
    key = store.add_key(ana.id, "secret-key", name="phone", scope="read")

    assert store.key_user("secret-key") == (ana, "read")
    assert [one.name for one in store.keys(ana.id)] == ["phone"]

    store.end_key(ana.id, key.id)

    assert store.key_user("secret-key") is None


def test_an_api_key_ends_on_its_day(store: Store, clock: Hand) -> None:
    ana = store.add_user("ana")
    store.add_key(ana.id, "secret-key", name="phone", scope="write", expires_ms=clock.now + 1000)

    assert store.key_user("secret-key")
    clock.now += 1001
    assert store.key_user("secret-key") is None


def test_an_invitation_makes_one_user_once(store: Store) -> None:
    store.add_invite("first", "admin", by=None)
    assert not store.has_admin()

    root = store.accept_invite("first", "root", "hash")

    assert store.has_admin() and root.role == "admin"
    with pytest.raises(NotFoundError):
        store.accept_invite("first", "again", "hash")


def test_a_taken_name_leaves_the_invitation_open(store: Store) -> None:
    store.add_user("ana")
    store.add_invite("link", "user", by=Actor("root", "admin"))

    with pytest.raises(NameTakenError):
        store.accept_invite("link", "ana", "hash")

    assert store.accept_invite("link", "ana2", "hash").role == "user"


def test_a_second_first_start_replaces_the_setup_link(store: Store) -> None:
    store.add_invite("old", "admin", by=None)
    store.add_invite("new", "admin", by=None)

    with pytest.raises(NotFoundError):
        store.invite("old")
    assert store.invite("new").role == "admin"


def test_an_invitation_ends_after_a_week(store: Store, clock: Hand) -> None:
    store.add_invite("link", "user", by=None)

    clock.now += INVITE_MS + 1

    with pytest.raises(NotFoundError):
        store.accept_invite("link", "late", "hash")


def test_only_administrators_invite_and_read_the_audit_log(store: Store) -> None:
    ana = store.add_user("ana").actor
    root = Actor("root", "admin")
    for forbidden in (
        lambda: store.add_invite("x", "user", by=ana),
        lambda: store.invites(ana),
        lambda: store.audit_log(ana),
        lambda: store.end_invite(ana, "x"),
    ):
        with pytest.raises(ForbiddenError):
            forbidden()

    invite = store.add_invite("x", "user", by=root)
    store.audit("root", "invited", invite.id, "127.0.0.1")

    assert [one.id for one in store.invites(root)] == [invite.id]
    assert [(one.action, one.subject) for one in store.audit_log(root)] == [("invited", invite.id)]
    store.end_invite(root, invite.id)
    assert store.invites(root) == []
