from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from services import PostgresServer, RedisServer, missing, postgres_binaries


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis without persistence for the whole test run; tests use key names of their own."""
    if shutil.which("redis-server") is None:
        missing("redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def new_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Makes servers for one test, which may kill and start them again; none survives it."""
    if shutil.which("redis-server") is None:
        missing("redis-server")
    servers: list[RedisServer] = []

    def make(*, aof: bool = False, extra: tuple[str, ...] = ()) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis{len(servers)}", aof=aof, extra=extra).start())
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def own_redis(new_redis: Callable[..., RedisServer]) -> RedisServer:
    """A Redis of one test's own, without persistence."""
    return new_redis()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of our own; its socket's path must be short."""
    binaries = postgres_binaries()
    if binaries is None:
        missing("PostgreSQL")
    folder = Path(tempfile.mkdtemp(prefix="dub-pg-", dir="/tmp"))
    server = PostgresServer(folder, str(binaries)).start()
    yield server.url
    server.stop()
    shutil.rmtree(folder)
