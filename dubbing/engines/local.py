"""The in-process family: an engine of this process behind the same face as one on the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from dubbing.engines.base import Engine, EngineInfo
from dubbing.engines.batching import BatchStats, MicroBatcher

In = TypeVar("In")
Out = TypeVar("Out")


class LocalClient(Generic[In, Out]):
    """An `EngineClient` over an engine of this process. Lines of all its jobs share batches."""

    def __init__(
        self,
        engine: Engine[In, Out],
        *,
        max_batch: int | None = None,
        linger_s: float = 0.01,
        lane_weight: Callable[[str], float] = lambda lane: 1.0,
    ) -> None:
        """Take over `engine`: `aclose` closes it. `max_batch` defaults to what the engine says it takes."""
        self.info: EngineInfo = engine.info
        self._engine = engine
        self._batcher: MicroBatcher[In, Out] = MicroBatcher(
            engine.run,
            max_size=max_batch or engine.info.max_batch,
            linger_s=linger_s,
            bucket=engine.bucket,
            lane_weight=lane_weight,
            name=engine.info.name,
        )

    async def __call__(self, item: In, *, lane: str) -> Out:
        """Answer one item; raises what the engine raises for it."""
        return await self._batcher(item, lane=lane)

    def stats(self) -> BatchStats:
        """What the batcher has done so far."""
        return self._batcher.stats()

    async def aclose(self) -> None:
        """Fail who waits, let the running batch end, close the engine. Calling twice is fine."""
        await self._batcher.aclose()
        await asyncio.to_thread(self._engine.close)
