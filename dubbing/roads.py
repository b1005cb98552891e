"""The two roads a job can take: through this process, or through Ray (found by an entry point, never imported here)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from dubbing.config import Settings
from dubbing.engines import registry
from dubbing.engines.base import EngineClient, Engines
from dubbing.engines.local import LocalClient
from dubbing.errors import ClusterError
from dubbing.types import Job, JobResult, Progress


class Road(Protocol):
    """Runs jobs somewhere."""

    timings: dict[str, float]
    """Seconds spent on starting, by step."""
    notice: str
    """Once started: a sentence about what jobs will wait for; empty when they can begin."""

    async def start(self) -> None:
        """Get ready; the caller does something else meanwhile."""
        ...

    async def run_job(self, job: Job, report: Callable[[Progress], None]) -> JobResult:
        """Run one job; cancelling this stops it, its engine calls and its ffmpeg."""
        ...

    def host_job(self, job_id: str, job: Job) -> AbstractAsyncContextManager[None]:
        """Have one job of the queue run here while the body runs; `job_id` names its row."""
        ...

    async def host_queue(self) -> Mapping[str, Any]:
        """Have jobs of the queue run until `aclose`; what the dispatcher says of itself (queue, reason, slots, ...)."""
        ...

    async def keep_queue(self) -> None:
        """Look after the dispatcher until cancelled. Raises ServerLostError when it or its cluster is lost."""
        ...

    async def aclose(self) -> None:
        """Leave nothing running that was started here."""
        ...


class LocalRoad:
    """Everything in this process: for debugging, for tests, and where Ray is not wanted."""

    def __init__(self, engine_options: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.timings: dict[str, float] = {}
        self.notice = ""
        self._options = engine_options or {}
        self._clients: dict[str, LocalClient[Any, Any]] = {}

    async def start(self) -> None:
        """Nothing to start: engines load when a job needs them."""

    async def run_job(self, job: Job, report: Callable[[Progress], None]) -> JobResult:
        """Load the job's engines and run the pipeline here."""
        from dubbing import pipeline  # noqa: PLC0415 - on the other road the stages run in other processes
        from dubbing.stages.context import LocalLeaf  # noqa: PLC0415

        return await pipeline.run(job, self.engines(job), LocalLeaf(), report)

    def host_job(self, job_id: str, job: Job) -> AbstractAsyncContextManager[None]:
        """Raises ClusterError, as `host_queue`."""
        raise ClusterError(detail="the queue's jobs run on Ray, not in this process")

    async def host_queue(self) -> Mapping[str, Any]:
        """Raises ClusterError: the queue's jobs run on Ray."""
        raise ClusterError(detail="the queue's jobs run on Ray, not in this process")

    async def keep_queue(self) -> None:
        """Raises ClusterError, as `host_queue`."""
        await self.host_queue()

    def engines(self, job: Job) -> Engines:
        """Clients of the job's engines, loaded once."""
        pairs = [(job.source_language, tag) for tag in job.targets]

        def client(name: str) -> LocalClient[Any, Any]:
            if name not in self._clients:
                spec = registry.spec(name)
                early = {"pairs": pairs} if spec.kind == "translate" else {}
                self._clients[name] = LocalClient(spec.load(early | dict(self._options.get(name, {}))))
            return self._clients[name]

        return engines_of(job, client)

    async def aclose(self) -> None:
        """Close the engines."""
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def __aenter__(self) -> LocalRoad:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def engines_of(job: Job, client: Callable[[str], EngineClient[Any, Any]]) -> Engines:
    """The engines of a job, each made by `client` from its name."""
    one = {choice.kind: client(choice.name) for choice in job.choices if choice.target is None}
    translate = {c.target: client(c.name) for c in job.choices if c.kind == "translate" and c.target}
    speak = {c.target: client(c.name) for c in job.choices if c.kind == "speak" and c.target}
    return Engines(one.get("transcribe"), one.get("align"), translate, speak, one.get("separate"), one.get("diarize"))


def ray_road(settings: Settings, log_dir: Path, engines: Mapping[str, Mapping[str, Any]]) -> Road:
    """The Ray road; `engines`: kind -> name -> options of the engines it must host. Raises ClusterError."""
    road: Road = _ray_road()(settings, log_dir=log_dir, engine_args=engines)
    return road


def look_at_ray(settings: Settings) -> str:
    """A sentence about what the Ray at RAY_ADDRESS lacks for jobs; empty when they can begin. Raises ClusterError."""
    return str(_ray_road().look(settings))


def _ray_road() -> Any:
    found = list(entry_points(group="dubbing.cluster"))
    if not found:
        raise ClusterError(detail="the package `cluster` is not installed")
    return found[0].load()
