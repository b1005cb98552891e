"""An engine that does not answer yet: what Serve says it is doing, and how long to wait for it.

A deployment that may have no replica at all loads its model when somebody first asks, perhaps on a node that has to be
rented first: minutes, during which nothing is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ray import serve
from ray.exceptions import RayActorError
from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger, ReplicaState
from ray.serve.exceptions import RayServeException
from ray.serve.schema import DeploymentStatusOverview

from cluster.deployments import load_error
from dubbing.config import ENGINE_START_MIN
from dubbing.errors import ClusterError

T = TypeVar("T")
Tell = Callable[[str], None]
"""Hears, every second, what is waited for."""

PATIENCE_S = 60.0 * ENGINE_START_MIN
LOOK_S = 1.0
SPARE_S = 60.0
"""Calls may take so much longer than the patience, so that it ends with words about what is going on."""

log = logging.getLogger(__name__)


async def answer_of(
    ask: Callable[[], Awaitable[T]], name: str, app: str, *, engine: str, patience_s: float, tell: Tell
) -> T:
    """What `ask` answers, a call of the deployment `name` that its queue delays or that has no replica yet.

    `engine` is what the user knows it by. Raises ClusterError at once when Serve has given up, or after `patience_s`;
    the engine's own error when it cannot be loaded; and what `ask` raises.
    """
    begun, doing = time.monotonic(), f"waiting for {engine}"
    asking = asyncio.ensure_future(ask())
    try:
        while True:
            await asyncio.wait({asking}, timeout=LOOK_S)
            if asking.done() and not isinstance(asking.exception(), (RayActorError, RayServeException)):
                return asking.result()
            status = (await asyncio.to_thread(serve.status)).applications.get(app)
            doing = outlook(engine, status.deployments.get(name) if status else None)
            waited_s = time.monotonic() - begun
            if waited_s > patience_s:
                raise ClusterError(detail=f"{engine} did not answer within {_time(patience_s)} ({doing})")
            tell(f"{doing}, {_time(waited_s)}")
            if asking.done():  # the replica died over it, or Serve had none to give it to
                asking = asyncio.ensure_future(ask())
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def outlook(engine: str, deployment: DeploymentStatusOverview | None) -> str:
    """What an engine that does not answer is doing, for the user. Raises the error that it will never come over.

    A replica that failed its health check is being replaced, which is no reason to give up.
    """
    if deployment is None:
        raise ClusterError(detail=f"{engine} has been taken away from this cluster")
    failed = deployment.status is DeploymentStatus.DEPLOY_FAILED or (
        deployment.status is DeploymentStatus.UNHEALTHY
        and deployment.status_trigger is DeploymentStatusTrigger.REPLICA_STARTUP_FAILED
    )
    if deployment.status is not DeploymentStatus.HEALTHY and (error := load_error(deployment.message)) is not None:
        raise error
    if failed:
        last = (deployment.message.strip().splitlines() or ["Serve does not say why"])[-1]
        raise ClusterError(detail=f"{engine} did not start: {last[:300]}")
    if deployment.replica_states.get(ReplicaState.RUNNING):
        return f"waiting for {engine}, which is busy"
    if "to be scheduled" in deployment.message:
        return f"waiting for a node with room for {engine}"
    return f"loading {engine}"


def log_it(doing: str) -> None:
    """The usual `Tell`: a line in the log."""
    log.info("%s", doing)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
