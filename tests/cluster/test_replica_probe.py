"""A real model that breaks in a real replica: its probe tells, and Serve starts another."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from cluster_doubles import SpoilableReplica, english
from cluster_support import eventually_async
from ray import serve
from ray.exceptions import RayActorError

from tests.models import nmt, spoiled

APP = "spoilable"


@pytest.mark.usefixtures("cluster")
def test_a_replica_whose_loaded_weights_break_turns_unhealthy_and_is_replaced_by_one_that_answers(
    tmp_path: Path,
) -> None:
    whole = nmt.make(tmp_path / "whole", "nllb")
    broken = spoiled.spoiled_ctranslate2(shutil.copytree(whole, tmp_path / "broken"))
    deployment = serve.deployment(SpoilableReplica).options(
        health_check_period_s=0.5, user_config={"probe_s": 0.2}, ray_actor_options={"num_cpus": 0.05}
    )
    handle: Any = serve.run(deployment.bind("nllb-600m", {"path": str(whole)}), name=APP, route_prefix=None)
    seen = set()

    async def watch() -> None:
        while True:
            status = await asyncio.to_thread(serve.status)
            seen.add(status.applications[APP].deployments["SpoilableReplica"].status.value)
            await asyncio.sleep(0.05)

    async def scenario() -> None:
        watching = asyncio.ensure_future(watch())
        first = await handle.pid.remote()
        assert (await handle.remote(english("hello"), "job")).text == "hola"
        await handle.spoil.remote(broken)

        async def replaced() -> bool:
            try:
                return bool(await handle.pid.remote() != first)
            except RayActorError:
                return False

        await eventually_async(replaced, within_s=120)
        assert (await handle.remote(english("hello"), "job")).text == "hola"
        watching.cancel()

    try:
        asyncio.run(scenario())
    finally:
        serve.delete(APP)
    assert "UNHEALTHY" in seen
