"""Engines without a replica until somebody asks: they are waited for while they load, and given up when they cannot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_doubles import english
from cluster_support import eventually_async, write_config
from ray import serve
from ray.serve.schema import DeploymentStatusOverview

from cluster import serving
from cluster.awaiting import outlook
from cluster.clients import open_engines
from cluster.coordinator import loading
from cluster.deployments import EngineLoadError
from dubbing.errors import ClusterError, ProgramMissingError
from dubbing.progress import render
from dubbing.types import Progress, Stage

APP = "cold"
FROM_NONE = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 1}
EVER_S = 120.0


@contextmanager
def deployed_cold(folder: Path, engines: dict[str, Any]) -> Iterator[None]:
    """An application of engines that have no replica yet."""
    config = write_config(folder / "cold.yaml", engines, app=APP, autoscaling_config=FROM_NONE)
    serving.wait_until_healthy(serving.deploy(serving.load_config(config), {}), ours=True)
    try:
        yield
    finally:
        serve.delete(APP)


@pytest.mark.usefixtures("cluster")
def test_an_engine_that_starts_from_nothing_is_waited_for_and_its_loading_told(tmp_path: Path) -> None:
    gate, told = tmp_path / "gate", []

    async def scenario() -> str:
        opening = asyncio.ensure_future(
            open_engines({"translate": "slow-translate"}, ["es"], app=APP, patience_s=EVER_S, tell=told.append)
        )

        async def loads() -> bool:
            assert not opening.done(), opening
            return any(line.startswith("loading slow-translate") for line in told)

        await eventually_async(loads, within_s=EVER_S)
        gate.touch()
        engines = await opening
        return str((await engines.translate["es"](english("hello"), lane="job")).text)

    with deployed_cold(tmp_path, {"translate": {"slow-translate": {"gate": str(gate)}}}):
        assert asyncio.run(scenario()) == "[es] hello"
    assert re.fullmatch(r"loading slow-translate, \d+ s", told[-1])


@pytest.mark.usefixtures("cluster")
def test_an_engine_that_never_comes_up_is_given_up_when_patience_ends(tmp_path: Path) -> None:
    with (
        deployed_cold(tmp_path, {"translate": {"slow-translate": {"gate": str(tmp_path / "never")}}}),
        pytest.raises(ClusterError, match=r"slow-translate did not answer within 2 s \("),
    ):
        asyncio.run(open_engines({"translate": "slow-translate"}, ["es"], app=APP, patience_s=2.0))


@pytest.mark.usefixtures("cluster")
def test_an_engine_that_cannot_be_loaded_when_it_is_first_asked_fails_with_its_own_error(tmp_path: Path) -> None:
    with deployed_cold(tmp_path, {"speak": {"programless-speak": {}}}), pytest.raises(ProgramMissingError):
        asyncio.run(open_engines({"speak": "programless-speak"}, ["es"], app=APP, patience_s=EVER_S))


def overview(status: str, trigger: str, message: str = "", **replicas: int) -> DeploymentStatusOverview:
    from ray.serve.schema import DeploymentStatus, DeploymentStatusTrigger, ReplicaState  # noqa: PLC0415

    states = {ReplicaState[name]: count for name, count in replicas.items()}
    return DeploymentStatusOverview(DeploymentStatus(status), DeploymentStatusTrigger[trigger], states, message)


@pytest.mark.parametrize(
    ("seen", "doing"),
    [
        (overview("UPSCALING", "AUTOSCALING", STARTING=1), "loading xtts"),
        (overview("HEALTHY", "UPSCALE_COMPLETED"), "loading xtts"),
        (overview("HEALTHY", "UPSCALE_COMPLETED", RUNNING=1), "waiting for xtts, which is busy"),
        (
            overview(
                "UPSCALING", "AUTOSCALING", "1 replicas that have taken more than 30s to be scheduled.", STARTING=1
            ),
            "waiting for a node with room for xtts",
        ),
        (overview("UNHEALTHY", "HEALTH_CHECK_FAILED", "A replica's health check failed.", STOPPING=1), "loading xtts"),
    ],
)
def test_what_an_engine_is_doing_is_read_from_the_status_of_its_deployment(
    seen: DeploymentStatusOverview, doing: str
) -> None:
    assert outlook("xtts", seen) == doing


@pytest.mark.parametrize(
    ("seen", "error", "said"),
    [
        (None, ClusterError, "xtts has been taken away"),
        (
            overview("DEPLOY_FAILED", "REPLICA_STARTUP_FAILED", "Trace\nZeroDivisionError: x"),
            ClusterError,
            "not start: Z",
        ),
        (
            overview("UNHEALTHY", "REPLICA_STARTUP_FAILED", "Trace\nKeyError: 1"),
            ClusterError,
            "did not start: KeyError",
        ),
        (overview("DEPLOY_FAILED", "HEALTH_CHECK_FAILED"), ClusterError, "Serve does not say why"),
        (
            overview("UPSCALING", "AUTOSCALING", f"x {EngineLoadError(ProgramMissingError(program='p'))}", STARTING=1),
            ProgramMissingError,
            "The program p is not installed",
        ),
    ],
)
def test_an_engine_that_will_never_come_is_given_up_at_once(
    seen: DeploymentStatusOverview | None, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        outlook("xtts", seen)


def test_a_job_tells_which_engine_it_waits_for_as_of_its_first_stage() -> None:
    heard: list[Progress] = []
    loading(heard.append)("loading xtts, 2 min")
    assert heard == [Progress(Stage.INGEST, None, 0, 100, note="loading xtts, 2 min")]
    assert render(heard[0], bar=False).split() == ["ingest", "...", "loading", "xtts,", "2", "min"]
