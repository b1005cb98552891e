"""What every test may ask for: real media, outside programs, servers, and settings that touch nothing of the user's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dubbing import config
from tests.services import PostgresServer, RedisServer, missing, postgres_binaries

pytest_plugins = ["tests.models.fixtures"]
ROOT = Path(__file__).resolve().parents[1]
settings.register_profile("busy", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("busy")


@pytest.fixture(scope="session")
def media_dir() -> Path:
    """Folder of real recordings: DUBBING_TEST_MEDIA, else ../shared/media beside the project."""
    folder = Path(os.environ.get("DUBBING_TEST_MEDIA") or ROOT.parent / "shared" / "media")
    if not (folder / "MANIFEST.tsv").is_file():
        pytest.skip(f"no real recordings in {folder}; DUBBING_TEST_MEDIA names another folder")
    return folder


@pytest.fixture(scope="session")
def require_program() -> Callable[..., str]:
    """`require_program("ffmpeg")` answers its path; a missing program skips the test here and fails it in CI."""

    def find(*names: str) -> str:
        for name in names:
            if path := shutil.which(name):
                return path
        missing = f"{' or '.join(names)} is not installed; scripts/setup.sh test installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)

    return find


@pytest.fixture
def tmp_settings(tmp_path: Path) -> config.Settings:
    """Settings that keep everything below the test's own folder, whatever the environment says."""
    env = {
        "DUBBING_OUTPUT_DIR": str(tmp_path / "Output"),
        "DUBBING_LOG_DIR": str(tmp_path / "logs"),
    }
    return config.load(env, env_file=None)


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
