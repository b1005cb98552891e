"""Changes of users and of waiting jobs, in both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dubbing.access_errors import LastAdminError
from dubbing.errors import ForbiddenError, NameTakenError, NotFoundError, StateConflictError, UsageError
from dubbing.jobs import Actor
from dubbing.store import Store


@pytest.fixture
def chief(store: Store) -> Actor:
    """An administrator who can log in."""
    return store.add_user("chief", "admin", "hash").actor


def test_only_what_is_given_changes(store: Store, chief: Actor, ana: Actor) -> None:
    changed = store.change_account(chief, ana.user_id, quota_mb=10)
    assert (changed.role, changed.disabled, changed.quota_mb) == ("user", False, 10)
    assert store.change_account(chief, ana.user_id, role="viewer").quota_mb == 10
    assert store.user(ana.user_id).role == "viewer"


def test_who_is_disabled_is_logged_out(store: Store, chief: Actor, ana: Actor) -> None:
    store.open_session(ana.user_id, "secret")
    store.change_account(chief, ana.user_id, disabled=True)
    store.change_account(chief, ana.user_id, disabled=False)
    assert store.session_user("secret") is None


@pytest.mark.parametrize("change", [{"role": "user"}, {"disabled": True}])
def test_the_last_administrator_who_can_log_in_stays_one(
    store: Store, chief: Actor, admin: Actor, change: dict[str, str]
) -> None:
    with pytest.raises(LastAdminError, match="chief"):
        store.change_account(admin, chief.user_id, **change)  # type: ignore[arg-type]
    assert store.has_admin()
    store.add_user("second", "admin", "hash")
    store.change_account(admin, chief.user_id, **change)  # type: ignore[arg-type]
    assert store.has_admin()


def test_two_administrators_who_demote_each_other_leave_one(store: Store, chief: Actor) -> None:
    second = store.add_user("second", "admin", "hash").actor
    start, refused = threading.Barrier(2), []

    def demote(who: Actor, whom: Actor) -> Callable[[], None]:
        def act() -> None:
            start.wait(timeout=30)
            try:
                store.change_account(who, whom.user_id, role="user")
            except LastAdminError as error:
                refused.append(error)

        return act

    threads = [threading.Thread(target=demote(*pair)) for pair in ((chief, second), (second, chief))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert len(refused) == 1
    assert store.has_admin()


def test_users_change_nobody(store: Store, ana: Actor, chief: Actor) -> None:
    with pytest.raises(ForbiddenError):
        store.change_account(ana, ana.user_id, role="admin")
    with pytest.raises(NotFoundError):
        store.change_account(chief, "nobody", role="admin")
    with pytest.raises(UsageError, match="quota"):
        store.change_account(chief, ana.user_id, quota_mb=-1)


def test_a_new_password_ends_all_sessions_but_one(store: Store, ana: Actor, ben: Actor) -> None:
    for user, secret in ((ana, "here"), (ana, "there"), (ben, "ben")):
        store.open_session(user.user_id, secret)
    store.set_password(ana.user_id, "new hash", keep="here")

    assert store.user(ana.user_id).password_hash == "new hash"
    assert [store.session_user(secret) is not None for secret in ("here", "there", "ben")] == [True, False, True]
    with pytest.raises(NotFoundError):
        store.set_password("nobody", "hash")


def test_a_new_priority_puts_a_waiting_job_in_the_outbox_again(store: Store, admin: Actor, ana: Actor) -> None:
    job, _ = store.submit(ana, {"source": "a"})
    store.mark_indexed([job], store.in_charge().backend_epoch)
    assert store.outbox(10) == []

    assert store.set_priority(admin, job.id, 90).priority == 90
    assert [waiting.id for waiting in store.outbox(10)] == [job.id]
    for actor, priority, error in ((ana, 50, ForbiddenError), (admin, 101, UsageError)):
        with pytest.raises(error):
            store.set_priority(actor, job.id, priority)
    store.cancel(ana, job.id)
    with pytest.raises(StateConflictError):
        store.set_priority(admin, job.id, 50)


def test_a_tailnets_login_names_one_user_and_a_change_of_it_ends_his_sessions(
    store: Store, chief: Actor, ana: Actor, ben: Actor
) -> None:
    assert store.set_tailscale_login(chief, ana.user_id, "ana@example.com").tailscale_login == "ana@example.com"
    store.open_session(ana.user_id, "secret")

    with pytest.raises(NameTakenError):
        store.set_tailscale_login(chief, ben.user_id, "ana@example.com")
    store.set_tailscale_login(chief, ana.user_id, "ana@example.com")  # nothing new
    assert store.session_user("secret") is not None
    assert store.user_by_tailscale_login("ana@example.com").id == ana.user_id
    with pytest.raises(NotFoundError):
        store.user_by_tailscale_login("Ana@example.com")

    store.set_tailscale_login(chief, ana.user_id, None)
    assert store.session_user("secret") is None
    with pytest.raises(NotFoundError):
        store.user_by_tailscale_login("ana@example.com")


@pytest.mark.parametrize("login", ["", "ana example", "ana\n", "añá@example.com", "x" * 255])
def test_what_is_no_login_of_a_tailnet_is_refused(store: Store, chief: Actor, ana: Actor, login: str) -> None:
    with pytest.raises(UsageError):
        store.set_tailscale_login(chief, ana.user_id, login)
    with pytest.raises(ForbiddenError):
        store.set_tailscale_login(ana, ana.user_id, "ana@example.com")


def test_preferences_are_each_users_own(store: Store, ana: Actor, ben: Actor) -> None:
    store.prefer(ana.user_id, "voice:es", "one")
    store.prefer(ana.user_id, "voice:es", "two")
    store.prefer(ana.user_id, "voice:ca", "three")
    store.prefer(ana.user_id, "other", "four")
    store.prefer(ben.user_id, "voice:es", "five")

    assert store.preferences(ana.user_id, "voice:") == {"ca": "three", "es": "two"}
    store.prefer(ana.user_id, "voice:es", None)
    assert store.preferences(ana.user_id) == {"other": "four", "voice:ca": "three"}
    assert store.preferences(ben.user_id, "voice:") == {"es": "five"}
