"""A model whose memory is too small for a full batch, on a real replica."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cluster_doubles import english
from ray import serve

from cluster.clients import ServeClient
from cluster.deployments import EngineReplica
from dubbing.engines import registry

FITS, LARGEST, LINES = 4, 16, 32


@pytest.mark.usefixtures("cluster")
def test_a_batch_that_does_not_fit_into_memory_is_halved_until_it_does(tmp_path: Path) -> None:
    calls = tmp_path / "calls.jsonl"
    options = {"out_of_memory_above": FITS, "max_batch": LARGEST, "base_ms": 100, "calls_log": str(calls)}
    deployment = serve.deployment(EngineReplica).options(
        name="Tight", max_ongoing_requests=LINES, ray_actor_options={"num_cpus": 0.05}
    )
    handle = serve.run(deployment.bind("fake-translate", options), name="tight", route_prefix=None)
    client: ServeClient[Any, Any] = ServeClient(handle, registry.spec("fake-translate").load({}).info)

    async def all_lines() -> list[str]:
        answers = await asyncio.gather(*(client(english(f"line {n}"), lane="job") for n in range(LINES)))
        return [answer.text for answer in answers]

    try:
        assert asyncio.run(all_lines()) == [f"[es] line {n}" for n in range(LINES)]
        ran = [json.loads(line) for line in calls.read_text().splitlines()]
        assert Counter(call["text"] for call in ran) == {f"line {n}": 1 for n in range(LINES)}
        assert max(call["batch"] for call in ran) <= FITS
        tried = asyncio.run(_stats(handle))
        # Batches that failed were counted too, so there were more calls than those that answered.
        assert tried.items > LINES
    finally:
        serve.delete("tight")


async def _stats(handle: Any) -> Any:
    return await handle.stats.remote()
