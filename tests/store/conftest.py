from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dubbing.jobs import Actor
from dubbing.store import Fence, Store


class Hand:
    """A clock that moves when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/dubbing.sqlite3"
    address: str = request.getfixturevalue("postgres_url")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return address


@pytest.fixture
def store(url: str, clock: Hand) -> Iterator[Store]:
    opened = Store(url, clock)
    yield opened
    opened.close()


@pytest.fixture
def ana(store: Store) -> Actor:
    return store.add_user("ana").actor


@pytest.fixture
def ben(store: Store) -> Actor:
    return store.add_user("ben").actor


@pytest.fixture
def admin(store: Store) -> Actor:
    return store.add_user("root", "admin").actor


@pytest.fixture
def running(store: Store, ana: Actor) -> Callable[[], tuple[str, Fence]]:
    def start() -> tuple[str, Fence]:
        job, _ = store.submit(ana, {"source": "a.mp4"}, targets=["es", "fr"])
        fence = Fence(job.id, job.epoch + 1, store.in_charge().backend_epoch)
        assert store.take(fence, owner="d1", ttl_ms=60_000)
        return job.id, fence

    return start
