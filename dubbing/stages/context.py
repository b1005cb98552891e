"""What every stage is given: the job, its folder, its engines, a door to heavy media work, and a way to report."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from dubbing.artifacts import JobFolder
from dubbing.engines.base import Engines
from dubbing.trace import Trace
from dubbing.types import Job, Progress, Stage

T = TypeVar("T")
R = TypeVar("R")


class Leaf(Protocol):
    """Where heavy media work runs: in this process, or as a Ray task on a node with free cores."""

    async def __call__(self, stage: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run `fn(*args)`; arguments and result can be pickled. Cancelling this call stops the work and its ffmpeg."""
        ...


class LocalLeaf:
    """Leaf work in this process."""

    async def __call__(self, stage: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await `fn(*args)` here."""
        return await fn(*args)


@dataclass
class Meter:
    """Progress of one stage of one target."""

    context: Context
    stage: Stage
    target: str | None
    total: int = 0
    done: int = 0
    _started: float = field(default_factory=time.monotonic)

    def tick(self, count: int = 1, note: str = "") -> None:
        """Count finished units and tell whoever listens; the pace so far gives the time to go."""
        self.done += count
        took = time.monotonic() - self._started
        eta = took / self.done * (self.total - self.done) if self.done and self.total >= self.done else None
        self.context.report(Progress(self.stage, self.target, self.done, self.total, eta, note))


@dataclass
class Context:
    """Everything a stage may use."""

    job: Job
    folder: JobFolder
    engines: Engines
    leaf: Leaf
    report: Callable[[Progress], None]
    log: logging.Logger
    trace: Trace = field(default_factory=Trace)
    calls: dict[str, int] = field(default_factory=dict)
    """Engine calls made and lines taken from earlier runs, by stage: what resume and edits really cost."""
    warnings: list[str] = field(default_factory=list)

    def report_stage(self, stage: Stage, done: int, total: int, target: str | None = None) -> None:
        """Progress of a stage that has no lines."""
        self.report(Progress(stage, target, done, total))

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter of `calls`."""
        self.calls[name] = self.calls.get(name, 0) + by

    def warn(self, sentence: str) -> None:
        """Tell the user, in the log and the report."""
        if sentence not in self.warnings:
            self.log.warning(sentence)
            self.warnings.append(sentence)


class Feed(Generic[T]):
    """A growing list with any number of readers, each at its own pace."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._changed = asyncio.Event()
        self._closed = False

    def extend(self, items: Sequence[T]) -> None:
        """Append; readers wake up."""
        self._items.extend(items)
        self._wake()

    def close(self) -> None:
        """No more items will come."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def __aiter__(self) -> AsyncIterator[T]:
        at = 0
        while True:
            while at < len(self._items):
                yield self._items[at]
                at += 1
            if self._closed:
                return
            await self._changed.wait()


async def together(*work: Awaitable[T]) -> list[T]:
    """Await all; the first failure, or a cancel from outside, cancels the others and waits until they have ended."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def both(one: Awaitable[T], other: Awaitable[R]) -> tuple[T, R]:
    """Like `together`, for two of different kinds."""
    first, second = asyncio.ensure_future(one), asyncio.ensure_future(other)
    await together(first, second)
    return first.result(), second.result()


async def in_order(fn: Callable[[T], Awaitable[R]], items: Sequence[T], window: int) -> list[R]:
    """`fn` over all items, at most `window` at a time, answers in the order of the items; the first failure ends all."""
    slots = asyncio.Semaphore(window)

    async def one(item: T) -> R:
        async with slots:
            return await fn(item)

    return await together(*map(one, items))
