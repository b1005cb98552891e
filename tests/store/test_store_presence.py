"""Signs of life of dispatchers, and what `dub run` asks of the rows, over both databases."""

from __future__ import annotations

from sqlalchemy import text

from dubbing.jobs import Actor, State
from dubbing.store import Store
from dubbing.store.presence import ALIVE_S, FORGET_MS


def silence(store: Store, ms: float) -> None:
    with store.write() as connection:
        connection.execute(text("UPDATE dispatcher SET beat_ms = beat_ms - :ms"), {"ms": round(ms)})


def test_a_dispatcher_is_present_while_it_beats_and_until_it_leaves(store: Store) -> None:
    store.beat("one", {"engines": {"speak": ["espeak-ng"]}})
    store.beat("lone", {}, serves=False)
    store.beat("one", {"engines": {"speak": ["xtts"]}})
    found = {one.name: (one.serves, one.facts) for one in store.present()}
    assert found == {"one": (True, {"engines": {"speak": ["xtts"]}}), "lone": (False, {})}

    store.leave("one")
    assert [one.name for one in store.present()] == ["lone"]
    silence(store, ALIVE_S * 1000 + 100)
    assert store.present() == []
    store.beat("lone", {}, serves=False)
    assert [one.name for one in store.present()] == ["lone"], "it was only slow"


def test_dispatchers_that_have_long_been_dead_are_forgotten(store: Store) -> None:
    store.beat("old", {})
    silence(store, FORGET_MS + 100)
    store.beat("new", {})
    with store.read() as connection:
        assert [row.name for row in connection.execute(text("SELECT name FROM dispatcher"))] == ["new"]


def test_an_open_request_is_found_by_its_content_and_its_user(store: Store, ana: Actor) -> None:
    request = {"source": "é.mp4", "targets": ["es"], "engines": {}}
    older, newer = (store.submit(ana, request)[0] for _ in range(2))
    found = store.open_request(ana, dict(reversed(request.items())))
    assert found is not None and found.id == newer.id
    assert store.open_request(store.add_user("ben").actor, request) is None
    store.cancel(ana, newer.id)
    store.pause(ana, older.id)
    found = store.open_request(ana, request)
    assert found is not None and (found.id, found.state) == (older.id, State.PAUSED)
    assert [store.ahead(newer), store.ahead(older)] == [0, 0], "who does not wait is before nobody"
