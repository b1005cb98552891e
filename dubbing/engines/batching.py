"""Batches drawn from many callers, formed only when the model is free. No Ray in here."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dubbing.errors import DubbingError, EngineBrokenError, EngineError

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class BatchStats:
    """What a batcher has done so far."""

    batches: int
    """Calls of the model, halves of failed batches included."""
    items: int
    """Items in those calls; an item of a failed batch counts once per call it was in."""
    busy_s: float
    """Seconds the model thread was at work."""
    waiting: int
    """Items waiting now."""

    @property
    def mean_batch(self) -> float:
        """Items per call of the model; 0 before the first."""
        return self.items / self.batches if self.batches else 0.0


@dataclass(slots=True)
class _Waiting(Generic[In, Out]):
    item: In
    answer: asyncio.Future[Out]
    queued: bool = True


@dataclass(slots=True)
class _Lane(Generic[In, Out]):
    turn: float
    """Virtual time of its next item (start-time fair queuing): the lane with the smallest is next."""
    step: float = 1.0
    """Virtual cost of one item: 1 / weight, as of the last item that came."""
    buckets: dict[Hashable, deque[_Waiting[In, Out]]] = field(default_factory=dict)

    def take(self, bucket: Hashable) -> _Waiting[In, Out] | None:
        """The oldest item of a bucket whose caller still waits."""
        queue = self.buckets.get(bucket, deque())
        while queue:
            waiting = queue.popleft()
            if waiting.queued:
                # Back of the lane's line, so that one language cannot starve another of the same job.
                del self.buckets[bucket]
                if queue:
                    self.buckets[bucket] = queue
                return waiting
        self.buckets.pop(bucket, None)
        return None


class MicroBatcher(Generic[In, Out]):
    """Run a model on batches of what many callers want, on one thread of its own.

    A batch is formed only once the model is free, so everything that arrived while the last one ran goes into the next.
    Lanes (jobs) take turns by weight, so a short job is not stuck behind a long one. One event loop makes all calls.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Sequence[Out | DubbingError]],
        *,
        max_size: int,
        linger_s: float = 0.01,
        bucket: Callable[[In], Hashable] | None = None,
        lane_weight: Callable[[str], float] = lambda lane: 1.0,
        name: str = "engine",
    ) -> None:
        """`run` answers a batch in order, an item that alone failed with its error.

        `bucket` keeps batches homogeneous; a lane of weight 2 gets twice as much."""
        self._run, self._bucket, self._lane_weight, self._name = run, bucket, lane_weight, name
        self._lanes: dict[str, _Lane[In, Out]] = {}
        self._now = 0.0
        self._count = 0
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"model-{name}")
        self._batches, self._items, self._busy_s = 0, 0, 0.0
        self.reconfigure(max_size=max_size, linger_s=linger_s)

    async def __call__(self, item: In, *, lane: str = "") -> Out:
        """The model's answer to one item. Raises what the model raised for it, EngineError once closed."""
        if self._closed:
            raise EngineError(name=self._name, detail="it has been shut down")
        waiting: _Waiting[In, Out] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._enqueue(waiting, lane)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            return await waiting.answer
        finally:
            self._dequeue(waiting)

    def reconfigure(self, *, max_size: int | None = None, linger_s: float | None = None) -> None:
        """Change the size and the linger of the batches to come."""
        if max_size is not None:
            if max_size < 1:
                raise ValueError(f"max_size is {max_size}, but a batch holds at least 1 item")
            self._max_size = max_size
        if linger_s is not None:
            self._linger_s = linger_s
        self._note_fullness()

    def stats(self) -> BatchStats:
        """Counts since the start."""
        return BatchStats(self._batches, self._items, self._busy_s, self._count)

    async def aclose(self) -> None:
        """Fail everybody who waits with EngineError, let the batch in flight end, and stop the thread."""
        self._closed = True
        for lane in self._lanes.values():
            for waiting in (w for queue in lane.buckets.values() for w in queue):
                _settle(waiting, EngineError(name=self._name, detail="it was shut down while this was waiting"))
                self._dequeue(waiting)
        self._lanes.clear()
        if self._worker is not None:
            await asyncio.wait([self._worker])
        self._thread.shutdown(wait=False)

    def _enqueue(self, waiting: _Waiting[In, Out], name: str) -> None:
        lane = self._lanes.get(name)
        if lane is None or not any(lane.buckets.values()):
            # A lane that was idle joins at the present: it neither claims the past nor forgets what it has had.
            turn = max(self._now, lane.turn if lane else 0.0)
            lane = self._lanes[name] = _Lane(turn)
        lane.step = 1.0 / max(self._lane_weight(name), 1e-6)
        bucket = self._bucket(waiting.item) if self._bucket else None
        lane.buckets.setdefault(bucket, deque()).append(waiting)
        self._count += 1
        self._note_fullness()

    def _dequeue(self, waiting: _Waiting[In, Out]) -> None:
        if waiting.queued:
            waiting.queued = False
            self._count -= 1
            self._note_fullness()

    def _note_fullness(self) -> None:
        if self._count >= self._max_size or self._closed:
            self._full.set()
        else:
            self._full.clear()

    async def _work(self) -> None:
        while self._count:
            if not self._full.is_set() and self._linger_s > 0:
                timer = asyncio.get_running_loop().call_later(self._linger_s, self._full.set)
                await self._full.wait()
                timer.cancel()
            self._note_fullness()
            if batch := self._form():
                await self._answer(batch)

    def _form(self) -> list[_Waiting[In, Out]]:
        """The next batch: lanes take turns, and all items share the bucket of the lane whose turn it is."""
        batch: list[_Waiting[In, Out]] = []
        lanes = sorted(self._lanes.values(), key=lambda lane: lane.turn)
        for first in lanes:
            for bucket in list(first.buckets):
                able = {id(lane): lane for lane in lanes if lane.buckets.get(bucket)}
                while able and len(batch) < self._max_size:
                    lane = min(able.values(), key=lambda lane: lane.turn)
                    waiting = lane.take(bucket)
                    if waiting is None:
                        del able[id(lane)]
                        continue
                    self._now = max(self._now, lane.turn)
                    lane.turn += lane.step
                    self._dequeue(waiting)
                    batch.append(waiting)
                if batch:
                    self._forget_idle_lanes()
                    return batch
        self._lanes.clear()
        return batch

    def _forget_idle_lanes(self) -> None:
        for name in [n for n, lane in self._lanes.items() if not lane.buckets and lane.turn <= self._now]:
            del self._lanes[name]

    async def _answer(self, batch: list[_Waiting[In, Out]]) -> None:
        """Run a batch; when it fails, halve it until only the items at fault fail (or the halves fit into memory)."""
        batch = [waiting for waiting in batch if not waiting.answer.done()]
        if not batch:
            return
        call = asyncio.get_running_loop().run_in_executor(self._thread, self._call, [w.item for w in batch])
        await asyncio.wait([call])
        error = call.exception()
        if error is None:
            for waiting, output in zip(batch, call.result(), strict=True):
                if isinstance(output, DubbingError):
                    _settle(waiting, output)
                elif not waiting.answer.done():
                    waiting.answer.set_result(output)
        elif len(batch) == 1 or isinstance(error, EngineBrokenError):
            for waiting in batch:
                _settle(waiting, error)
        else:
            middle = len(batch) // 2
            await self._answer(batch[:middle])
            await self._answer(batch[middle:])

    def _call(self, items: list[In]) -> Sequence[Out | DubbingError]:
        start = time.perf_counter()
        try:
            outputs = self._run(items)
        except StopIteration as error:  # a future refuses it, and its callers would wait for ever
            raise EngineError(name=self._name, detail="it stopped in the middle of a batch") from error
        finally:
            self._batches += 1
            self._items += len(items)
            self._busy_s += time.perf_counter() - start
        if len(outputs) != len(items):
            raise EngineError(name=self._name, detail=f"{len(items)} items went in, {len(outputs)} answers came out")
        return outputs


def _settle(waiting: _Waiting[In, Out], error: BaseException) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
