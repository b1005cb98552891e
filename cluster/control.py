"""The dispatcher as a Serve deployment with one replica, so that Serve starts it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from cluster import credentials
from cluster.clients import call
from cluster.demand import DemandReporter
from cluster.deployments import EngineLoadError
from cluster.launcher import POOL, RayLauncher
from cluster.sampler import Sampler
from cluster.serving import wait_until_healthy
from dubbing import heartbeat
from dubbing.config import Settings
from dubbing.dispatcher import Dispatcher, new_name
from dubbing.errors import ClusterError, DubbingError
from dubbing.queue.choose import choose_queue
from dubbing.store import open_store

log = logging.getLogger(__name__)
APP = "control"
NAME = "Dispatcher"
HEAD = {"node:__internal_head__": 0.001}
"""With SQLite the rows lie on the head node's disk."""
END_S = 15.0
INFO_TIMEOUT_S = 30.0
KEEP_S = 2.0
"""Between two words of a keeper."""
KEEP_TIMEOUT_S = 10.0
LOST_S = 60.0
"""Serve needs a while to replace a dispatcher that died; after this one it is lost."""
SILENT = (RayError, RayServeException, asyncio.TimeoutError, TimeoutError)
"""What a lost dispatcher, or a lost Ray, raises."""
KEEPER_GONE_S = 15.0
"""A keeper that was silent for so long is replaced by the next one that speaks."""


class Control:
    """Hosts the dispatcher; its loop has a thread of its own, so that health checks are answered at any time."""

    def __init__(self, settings: Settings, engines: Mapping[str, Sequence[str]]) -> None:
        """`settings` without secrets, which lie where `credentials` put them; `engines`: kind -> names of those deployed."""
        try:
            settings = credentials.pick_up(settings)
            self._store = open_store(settings)
            self._choice = choose_queue(settings, now_ms=self._store.clock_ms())
            self._launcher = RayLauncher(settings)
            facts = {"engines": engines}
            self._dispatcher = Dispatcher(self._store, self._choice, self._launcher, name=new_name(), facts=facts)
            self._launcher.report_to(self._dispatcher)
            self._dispatcher.start()
        except DubbingError as error:
            raise EngineLoadError(error) from error
        self._state = settings.state
        log.info("The queue is %s", self._choice.reason)
        self._keeper, self._keeper_at = "", 0.0
        self._thread = threading.Thread(target=self._dispatcher.go_on, name="dispatcher", daemon=True)
        self._thread.start()
        self._sampler = Sampler(settings.state, engines.get("speak", ()))
        self._demand = DemandReporter(lambda: self._dispatcher.demand(POOL))

    def info(self) -> dict[str, Any]:
        """Which queue is in use, why, and who dispatches."""
        return {
            "store": self._store.name,
            "queue": self._dispatcher.queue_name,
            "reason": self._choice.reason,
            "warnings": list(self._choice.warnings),
            "slots": dict(self._launcher.capacity()),
            "pid": os.getpid(),
        }

    def keep(self, keeper: str) -> bool:
        """`keeper`, a `dub serve`, lives; whether it is the one that takes this dispatcher away when it ends."""
        now = time.monotonic()
        if not self._keeper or now - self._keeper_at > KEEPER_GONE_S:
            self._keeper = keeper
        if keeper == self._keeper:
            self._keeper_at = now
        return keeper == self._keeper

    def check_health(self) -> None:
        """Raises RuntimeError when the dispatcher's loop ended by a defect; Serve then replaces this process."""
        if not self._thread.is_alive():
            raise RuntimeError("the dispatcher's loop has ended")
        with contextlib.suppress(OSError):  # a full disk is no reason to replace a dispatcher that runs
            heartbeat.beat(self._state)

    def __del__(self) -> None:
        if not hasattr(self, "_demand"):
            return
        self._sampler.close()
        self._demand.close()
        self._dispatcher.stop()
        self._thread.join(END_S)
        with contextlib.suppress(OSError):  # it grows old by itself
            heartbeat.stop(self._state)
        self._launcher.close()
        self._choice.close()
        self._store.close()


def deploy_unless_deployed(settings: Settings, engines: Mapping[str, Sequence[str]]) -> None:
    """Have the dispatcher run on the head node, unless it does. Raises the error that keeps it from starting."""
    deployed = serve.status().applications.get(APP)
    if deployed is not None and deployed.status in ("RUNNING", "DEPLOYING"):
        return
    deployment = serve.deployment(Control).options(
        name=NAME,
        num_replicas=1,
        health_check_period_s=1,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=END_S + 5,
        graceful_shutdown_wait_loop_s=0.1,
        # none of its CPU: the head of a cluster offers no CPU, so that user work stays away from it
        ray_actor_options={"num_cpus": 0, "resources": HEAD},
    )
    bound = deployment.bind(credentials.put_down(settings), engines)
    target = serve.RunTarget(bound, name=APP, route_prefix=None)
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    wait_until_healthy(APP, ours=True)


async def info(settings: Settings) -> dict[str, Any]:
    """What the running dispatcher says of itself. Raises ClusterError when it works for another database than ours."""
    told: dict[str, Any] = await call(serve.get_deployment_handle(NAME, APP).info, timeout_s=INFO_TIMEOUT_S)
    store = open_store(settings)
    store.close()
    if told["store"] != store.name:
        raise ClusterError(detail=f"the dispatcher of this cluster works for the database {told['store']}")
    return told


def is_deployed() -> bool:
    """Whether a dispatcher is there, or on its way."""
    return APP in serve.status().applications


async def keep(keeper: str) -> bool:
    """See `Control.keep`. Raises one of SILENT."""
    kept: bool = await call(serve.get_deployment_handle(NAME, APP).keep, keeper, timeout_s=KEEP_TIMEOUT_S)
    return kept


def remove(settings: Settings) -> None:
    """End the dispatcher: its jobs go back in line."""
    serve.delete(APP)
    credentials.remove(settings)
