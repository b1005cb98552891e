"""The dispatcher on a Ray that was joined: there while somebody hosts the queue, gone afterwards, one for one database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cluster_support import Cluster
from ray import serve

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
