"""The Ray task that runs one job's pipeline, and how its owner follows and stops it.

The task is a generator: what it yields (progress, at least once a second) is its heartbeat, and its end or its death
ends the stream. That needs no further process and no actor that could outlive somebody. The way back is `ray.cancel`,
which the task answers within milliseconds (cluster/interrupt.py).
"""

from __future__ import annotations

import asyncio
import pkgutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import ray
from ray.exceptions import RayError, RayTaskError

from cluster import awaiting, interrupt
from cluster.clients import open_engines
from cluster.leaf import RayLeaf
from dubbing.engines.base import Engines
from dubbing.errors import ClusterError, StoppedError
from dubbing.types import Progress, Stage

Entry = Callable[[Any, Engines, RayLeaf, Callable[[Progress], None]], Awaitable[Any]]

COORDINATOR_CPUS = 0.1
"""Little, but not nothing: a task that asks for nothing looks idle to the autoscaler."""
HEARTBEAT_S = 1.0
QUIET_S = 0.1
"""Progress of this long goes into one message."""
CANCEL_S = 20.0
"""How long a cancelled coordinator may take to put things away before it is killed."""


class Work(Protocol):
    """What a coordinator does; picklable."""

    @property
    def job_id(self) -> str:
        """Names the task."""
        ...

    async def run(self, report: Callable[[Progress], None]) -> Any:
        """Do it, in the coordinator's process."""
        ...


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job with every choice made."""

    job: Any
    """First argument of `entry`."""
    job_id: str
    engines: Mapping[str, str]
    """As in `open_engines`."""
    targets: tuple[str, ...]
    entry: str = "dubbing.pipeline:run"
    """`module:function` of the pipeline: async (job, engines, leaf, report) -> result."""
    patience_s: float = awaiting.PATIENCE_S
    """Longest wait for an engine to come up."""

    async def run(self, report: Callable[[Progress], None]) -> Any:
        """Run the pipeline with the engines the job chose."""
        entry: Entry = pkgutil.resolve_name(self.entry)
        engines = await open_engines(self.engines, self.targets, patience_s=self.patience_s, tell=loading(report))
        return await entry(self.job, engines, RayLeaf(self.job_id), report)


def loading(report: Callable[[Progress], None]) -> awaiting.Tell:
    """Tells of engines that are waited for as of the first stage, which begins when they are there."""
    return lambda doing: report(Progress(Stage.INGEST, None, 0, 100, note=doing))


@dataclass(frozen=True, slots=True)
class Message:
    """One heartbeat."""

    progress: tuple[Progress, ...] = ()
    """The latest state of each stage that moved since the last message."""
    finished: bool = False
    result: Any = None


@dataclass(slots=True)
class _Outbox:
    """Keeps the latest progress of each stage; older states of a stage say nothing the newer does not."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    held: dict[tuple[Any, str | None], Progress] = field(default_factory=dict)

    def report(self, progress: Progress) -> None:
        self.held[progress.stage, progress.target] = progress
        self.wake.set()

    def take(self) -> tuple[Progress, ...]:
        taken = tuple(self.held.values())
        self.held.clear()
        self.wake.clear()
        return taken


def submit(work: Work) -> ray.ObjectRefGenerator:
    """Start the coordinator of a job as the task `job:<id>`; it dies with the process that calls this."""
    task = _coordinate.options(
        name=f"job:{work.job_id}", num_cpus=COORDINATOR_CPUS, resources={"job_slot": 1}, num_returns="streaming"
    )
    return cast("ray.ObjectRefGenerator", task.remote(work))


def warm_up(entry: str) -> None:
    """Have a worker started and the pipeline imported while nobody waits for it yet; its failures show in the job."""
    _import_entry.options(num_cpus=COORDINATOR_CPUS).remote(entry)


def _silent() -> None:
    """Nobody listens."""


async def follow(
    stream: ray.ObjectRefGenerator, report: Callable[[Progress], None], beat: Callable[[], None] = _silent
) -> Any:
    """The result of a coordinator. Cancelling this stops the coordinator and waits until it is gone.

    `beat` is called after every heartbeat, with or without progress, at least once in about HEARTBEAT_S.
    Raises what the pipeline raised, StoppedError when someone else cancelled it, ClusterError when its process died.
    """
    try:
        async for ref in stream:
            message: Message = await ref
            for progress in message.progress:
                report(progress)
            beat()
            if message.finished:
                return message.result
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise ClusterError(detail=f"the job's process ended unexpectedly ({type(error).__name__})") from error
    except asyncio.CancelledError:
        await stop(stream)
        raise
    raise StoppedError


async def stop(stream: ray.ObjectRefGenerator) -> None:
    """Cancel a coordinator and wait until it is gone, with its leaf tasks and its calls of engines."""
    # Not recursive: the coordinator stops its own leaf tasks and waits for them, and a task interrupted from two sides
    # could be broken off while it waits for ffmpeg's end.
    ray.cancel(stream, recursive=False)
    ended = asyncio.ensure_future(_drain(stream))
    await asyncio.wait({ended}, timeout=CANCEL_S)
    if not ended.done():
        ray.cancel(stream, force=True, recursive=True)
        await ended


async def _drain(stream: ray.ObjectRefGenerator) -> None:
    try:
        async for ref in stream:
            await ref
    except (RayError, asyncio.CancelledError):
        return


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _import_entry(entry: str) -> None:
    pkgutil.resolve_name(entry)


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _coordinate(work: Work) -> Iterator[Message]:
    outbox = _Outbox()
    with interrupt.InterruptibleLoop(_work(work, outbox.report)) as loop:
        while not loop.task.done():
            loop.step(HEARTBEAT_S, outbox.wake)
            loop.step(QUIET_S)
            yield Message(outbox.take())
        if not loop.task.cancelled():
            yield Message(outbox.take(), finished=True, result=loop.finish())


async def _work(work: Work, report: Callable[[Progress], None]) -> Any:
    return await work.run(report)
