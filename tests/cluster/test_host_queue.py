"""The dispatcher on a Ray that was joined: there while somebody hosts the queue, gone afterwards, one for one database."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
from conftest import Cluster
from ray import serve

from cluster import control
from cluster.road import RayRoad
from dubbing import config
from dubbing.config import Settings
from dubbing.errors import ClusterError


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
    assert list(serve.status().applications) == ["engines"]


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
    assert list(serve.status().applications) == ["engines"]
