"""Asyncio inside a Ray task that `ray.cancel` ends cleanly: `finally` blocks run, ffmpeg is stopped and waited for."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class InterruptibleLoop(Generic[T]):
    """An event loop with one main task, run step by step in the main thread of a Ray worker.

    `ray.cancel` raises SIGINT in the worker. Python's own answer to that is a KeyboardInterrupt in whatever line is
    running, once something wakes the loop, which on a quiet loop is never. A handler of the loop wakes it at once and
    cancels the main task, which then ends in its own order.
    """

    def __init__(self, main: Coroutine[Any, Any, T]) -> None:
        self._main = main

    def __enter__(self) -> InterruptibleLoop[T]:
        self._loop = asyncio.new_event_loop()
        self._before = signal.getsignal(signal.SIGINT)
        self._loop.add_signal_handler(signal.SIGINT, self._interrupt)
        self.task: asyncio.Task[T] = self._loop.create_task(self._main)
        self._interrupted = False
        return self

    def step(self, timeout_s: float, wake: asyncio.Event | None = None) -> None:
        """Run until the main task is done, `wake` is set or the time is over."""

        async def wait() -> None:
            waker = asyncio.ensure_future((wake or asyncio.Event()).wait())
            await asyncio.wait({self.task, waker}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            waker.cancel()

        self._loop.run_until_complete(wait())

    def finish(self) -> T:
        """Run the main task to its end. Raises asyncio.CancelledError when it was interrupted."""
        return self._loop.run_until_complete(self.task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.task.cancel()
            rest = asyncio.all_tasks(self._loop)
            for task in rest:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*rest, self.task, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, self._before)
            self._loop.close()

    def _interrupt(self) -> None:
        # Once: a second cancellation would break into the `finally` that is waiting for ffmpeg's end.
        if not self._interrupted:
            self._interrupted = True
            self.task.cancel()


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` for a Ray task."""
    with InterruptibleLoop(main) as loop:
        return loop.finish()
