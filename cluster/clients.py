"""The engines of a job as its stages see them: `EngineClient` over Serve's deployment handles."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from cluster import awaiting
from cluster.app import APP, deployment_names
from dubbing.engines.base import PER_TARGET, EngineInfo, Engines
from dubbing.errors import DubbingError, EngineError, EngineMissingError

In = TypeVar("In")
Out = TypeVar("Out")

CALL_TIMEOUT_S = 900.0
"""Waiting behind the lines of other jobs is part of a call, so this only bounds what has gone wrong for good."""


async def call(handle: DeploymentHandle, *args: Any, timeout_s: float, **kwargs: Any) -> Any:
    """Call a deployment; who stops waiting cancels the replica's work too.

    Raises what the replica raised, as itself; RayActorError when the replica died or could not be reached;
    asyncio.TimeoutError after `timeout_s`.
    """
    response = handle.remote(*args, **kwargs)
    try:
        return await asyncio.wait_for(response, timeout_s)
    except RayTaskError as error:
        raise error.cause from None
    except (asyncio.CancelledError, asyncio.TimeoutError):
        # Leaving an await behind does not reach the replica: without this the model would still do the line.
        response.cancel()
        raise


class ServeClient(Generic[In, Out]):
    """An engine on the cluster, for one job."""

    def __init__(self, handle: DeploymentHandle, info: EngineInfo, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.info = info
        self._handle, self._timeout_s = handle, timeout_s
        self._quarantine = asyncio.Lock()

    async def __call__(self, item: In, *, lane: str) -> Out:
        """Answer one item. Raises what the engine raises, EngineError for all else that goes wrong with this line.

        When the replica dies, all lines it held come back here, one of them perhaps its killer. They are tried once
        more, one at a time and each in a batch of its own: the one that ends the replica again is the killer, and it
        alone fails.
        """
        try:
            return await self._ask(item, lane, alone=False)
        except RayActorError:
            async with self._quarantine:
                try:
                    return await self._ask(item, lane, alone=True)
                except RayActorError as error:
                    raise self._error("its process ended twice over this line") from error

    async def aclose(self) -> None:
        """Nothing to let go of: the engine belongs to the cluster."""

    async def _ask(self, item: In, lane: str, *, alone: bool) -> Out:
        try:
            answer: Out = await call(self._handle, item, lane, alone, timeout_s=self._timeout_s)
        except (DubbingError, RayActorError):
            raise
        except asyncio.TimeoutError as error:
            raise self._error(f"no answer within {self._timeout_s:.0f} s") from error
        except (RayError, RayServeException) as error:
            raise self._error(_first_line(error)) from error
        except Exception as error:
            raise self._error(f"{type(error).__name__}: {_first_line(error)}") from error
        return answer

    def _error(self, detail: str) -> EngineError:
        return EngineError(name=self.info.name, detail=detail)


async def open_engines(
    choice: Mapping[str, str],
    targets: Sequence[str],
    *,
    app: str = APP,
    patience_s: float = awaiting.PATIENCE_S,
    tell: awaiting.Tell = awaiting.log_it,
) -> Engines:
    """The engines a job chose: `choice` maps a kind, or `kind:target` for one target language, to an engine's name.

    Waits up to `patience_s` for each that is being started. Raises EngineMissingError for an engine that is not
    deployed, ClusterError for one that does not start, or its own error.
    """
    status = (await asyncio.to_thread(serve.status)).applications.get(app)
    deployed = set(status.deployments) if status else set()
    clients: dict[tuple[str, str], ServeClient[Any, Any]] = {}

    async def client(kind: str, target: str = "") -> ServeClient[Any, Any] | None:
        engine = choice.get(f"{kind}:{target}", choice.get(kind))
        if engine is None:
            return None
        if (kind, engine) not in clients:
            clients[kind, engine] = await _open(kind, engine, deployed, app, patience_s, tell)
        return clients[kind, engine]

    by_target = {kind: {t: c for t in targets if (c := await client(kind, t))} for kind in PER_TARGET}
    return Engines(
        transcribe=await client("transcribe"),
        align=await client("align"),
        translate=by_target["translate"],
        speak=by_target["speak"],
        separate=await client("separate"),
        diarize=await client("diarize"),
    )


async def deployed_engines(
    *, app: str = APP, patience_s: float = awaiting.PATIENCE_S, tell: awaiting.Tell = awaiting.log_it
) -> dict[str, set[str]]:
    """Kind -> names of the engines that are deployed. Waits and raises as `open_engines`."""
    status = (await asyncio.to_thread(serve.status)).applications.get(app)
    found: dict[str, set[str]] = {}
    asked = (_info(name, app, name, patience_s, tell) for name in (status.deployments if status else ()))
    for info in await asyncio.gather(*asked):
        found.setdefault(info.kind, set()).add(info.name)
    return found


async def _info(name: str, app: str, engine: str, patience_s: float, tell: awaiting.Tell) -> EngineInfo:
    handle = serve.get_deployment_handle(name, app)
    ask = functools.partial(call, handle.info, timeout_s=patience_s + awaiting.SPARE_S)
    return await awaiting.answer_of(ask, name, app, engine=engine, patience_s=patience_s, tell=tell)


async def _open(
    kind: str, engine: str, deployed: set[str], app: str, patience_s: float, tell: awaiting.Tell
) -> ServeClient[Any, Any]:
    for name in deployment_names(kind, engine):
        if name in deployed:
            info = await _info(name, app, engine, patience_s, tell)
            if info.name == engine:
                return ServeClient(serve.get_deployment_handle(name, app), info)
    raise EngineMissingError(
        kind=kind,
        name=engine,
        detail="it is not deployed on this cluster",
        install=f"Add it to args.engines.{kind} of the serve config, or choose an engine that is deployed.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
