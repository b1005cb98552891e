"""The dispatcher on a Ray that was joined: there while somebody hosts the queue, gone afterwards, one for one database."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cluster_support import Cluster
from ray import cloudpickle, serve
from ray._raylet import GcsClient
from ray.exceptions import RayError
from ray.serve.context import _get_global_client

from cluster import control, credentials
from cluster.coordinator import Work
from cluster.launcher import RayLauncher
from cluster.road import RayRoad
from dubbing import config
from dubbing.config import Settings
from dubbing.errors import ClusterError
from dubbing.store import open_store
from tests.services import RedisServer


def settings(cluster: Cluster, folder: Path) -> Settings:
    env = {"RAY_ADDRESS": cluster.address, "DUBBING_OUTPUT_DIR": str(folder), "QUEUE_MODE": "fallback"}
    return config.load(env, None, None)


def test_a_joined_ray_hosts_the_dispatcher_of_one_database_and_keeps_its_engines(
    cluster: Cluster, tmp_path: Path
) -> None:
    async def drive() -> None:
        async with RayRoad(settings(cluster, tmp_path / "a"), log_dir=tmp_path, engine_args={}) as first:
            told = await first.host_queue()
            assert told["slots"] == {"cpu": 2}
            assert told["reason"] == "SQLite, because QUEUE_MODE is fallback."
            async with RayRoad(settings(cluster, tmp_path / "a"), log_dir=tmp_path, engine_args={}) as guest:
                assert (await guest.host_queue())["pid"] == told["pid"]
            assert "control" in serve.status().applications, "a guest must not take the host's dispatcher away"
            async with RayRoad(settings(cluster, tmp_path / "b"), log_dir=tmp_path, engine_args={}) as stranger:
                with pytest.raises(ClusterError, match="works for the database"):
                    await stranger.host_queue()

    asyncio.run(drive())
    assert sorted(serve.status().applications) == ["api", "engines"]


SECRETS = ("db-s3cret", "redis-s3cret")
MARK = "folder-of-the-guarded"
"""Part of a path in the same settings, so that a search that would find nothing is known."""
NAMESPACES = ("", "serve", "job", "fun", "session", "cluster", "tracing", "package", "dashboard", "usage_stats")


@pytest.fixture
def guarded(cluster: Cluster, tmp_path: Path, own_redis: RedisServer, postgres_url: str) -> Settings:
    """Settings whose addresses hold passwords; they name real servers."""
    with own_redis.client() as client:
        client.config_set("requirepass", SECRETS[1])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    env = {
        "RAY_ADDRESS": cluster.address,
        "DUBBING_OUTPUT_DIR": str(tmp_path / MARK),
        "DUBBING_DATABASE_URL": postgres_url.replace("dubbing@", f"dubbing:{SECRETS[0]}@"),
        "REDIS_URL": own_redis.url.replace("redis://", f"redis://:{SECRETS[1]}@"),
        "QUEUE_MODE": "redis",
    }
    return config.load(env, None, None)


def what_ray_knows(cluster: Cluster) -> bytes:
    """Everything in the head's memory of keys, what Serve tells its dashboard, and all logs."""
    client = GcsClient(address=cluster.address)
    found: list[bytes] = []
    for name in NAMESPACES:
        space = name.encode() or None
        found += [client.internal_kv_get(key, space) or b"" for key in client.internal_kv_keys(b"", space)]
    told = _get_global_client().get_serve_details()
    assert cluster.session.folder is not None
    logs = [path.read_bytes() for path in cluster.session.folder.rglob("*") if path.is_file() and "/logs/" in str(path)]
    return b"".join([*found, repr(told).encode(), repr(serve.status()).encode(), *logs])


def test_passwords_reach_the_dispatcher_but_nothing_that_ray_shows_or_keeps(
    cluster: Cluster, guarded: Settings
) -> None:
    file = guarded.absolute().state / credentials.NAME

    async def drive() -> None:
        async with RayRoad(guarded, log_dir=guarded.log_dir, engine_args={}) as road:
            told = await road.host_queue()
            assert told["reason"] == "Redis, because QUEUE_MODE is redis."
            assert told["store"].startswith("postgresql")
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert all(secret in file.read_text() for secret in SECRETS)
            known = what_ray_knows(cluster)
            assert MARK.encode() in known, "this search finds no argument of the dispatcher"
            assert [secret for secret in SECRETS if secret.encode() in known] == []

    asyncio.run(drive())
    assert not file.exists()


def test_a_coordinator_is_told_neither_where_the_database_is_nor_where_redis_is(
    guarded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes] = []

    def submit(work: Work) -> Any:
        given.append(cloudpickle.dumps(work))
        raise RayError("no more of it")

    monkeypatch.setattr("cluster.coordinator.submit", submit)
    store = open_store(guarded)
    job, _ = store.submit(store.add_user("ana").actor, {"source": "a.mp4"})
    store.close()
    launcher = RayLauncher(guarded)
    with pytest.raises(ClusterError):
        launcher.launch(job, 1)
    launcher.close()
    (pickled,) = given
    assert MARK.encode() in pickled
    assert [word for word in (*SECRETS, "postgres", "redis:") if word.encode() in pickled] == []


def test_a_dispatcher_whose_node_cannot_read_the_state_folder_says_so(tmp_path: Path) -> None:
    elsewhere = Settings(state_dir=tmp_path / "not-mounted")
    with pytest.raises(ClusterError, match="DUBBING_STATE_DIR must be one folder for both"):
        credentials.pick_up(elsewhere)


def test_what_was_put_down_is_picked_up_and_a_second_time_replaces_it(tmp_path: Path) -> None:
    first = Settings(state_dir=tmp_path, redis_url="redis://:old@h/0", database_url="postgresql://u:p@h/d")
    second = Settings(state_dir=tmp_path, redis_url="redis://:new@h/0")
    for settings in (first, second):
        bare = credentials.put_down(settings)
        assert (bare.redis_url, bare.database_url) == (None, None)
        assert credentials.pick_up(bare) == settings
    credentials.remove(bare)
    assert list(tmp_path.iterdir()) == []


def test_credentials_that_cannot_be_written_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(ClusterError, match="cannot be written"):
        credentials.put_down(Settings(state_dir=tmp_path / "state"))


async def lives(road: RayRoad) -> bool:
    """Whether the road keeps the dispatcher, once it has looked after it for a while."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(road.keep_queue(), 2.5 * control.KEEP_S)
    return road._keeper


def test_the_dispatcher_of_a_killed_host_belongs_to_the_next_one(cluster: Cluster, tmp_path: Path) -> None:
    async def drive() -> None:
        killed = RayRoad(settings(cluster, tmp_path / "a"), log_dir=tmp_path, engine_args={})
        told = await killed.host_queue()
        async with RayRoad(settings(cluster, tmp_path / "a"), log_dir=tmp_path, engine_args={}) as heir:
            assert (await heir.host_queue())["pid"] == told["pid"]
            assert not heir._keeper
            deadline = time.monotonic() + 3 * control.KEEPER_GONE_S
            while not await lives(heir):
                assert time.monotonic() < deadline
        assert "control" not in serve.status().applications

    asyncio.run(drive())


def test_a_guest_deploys_the_dispatcher_again_when_its_host_has_gone(cluster: Cluster, tmp_path: Path) -> None:
    async def drive() -> None:
        async with RayRoad(settings(cluster, tmp_path / "a"), log_dir=tmp_path, engine_args={}) as host:
            told = await host.host_queue()
            guest = RayRoad(settings(cluster, tmp_path / "a"), log_dir=tmp_path, engine_args={})
            await guest.host_queue()
        assert "control" not in serve.status().applications
        keeping = asyncio.ensure_future(guest.keep_queue())
        while not guest._keeper:
            await asyncio.wait({keeping}, timeout=0.1)
            assert not keeping.done()
        keeping.cancel()
        assert (await control.info(settings(cluster, tmp_path / "a").absolute()))["pid"] != told["pid"]
        await guest.aclose()

    asyncio.run(drive())
    assert sorted(serve.status().applications) == ["api", "engines"]
