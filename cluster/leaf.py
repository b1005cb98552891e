"""Heavy media work of a stage as a Ray task, so that it runs where CPUs are free and shows on the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from cluster import interrupt
from dubbing.errors import WorkError

T = TypeVar("T")

CANCEL_S = 5.0
"""ffmpeg gets 2 s to end by itself; a worker that has not ended after this is killed, and takes ffmpeg with it."""


ASIDE = {"preview": 0.1}
"""CPUs asked for by what stands aside, so that it keeps nobody waiting for a core."""


class RayLeaf:
    """Runs `fn(*args)` as the task `<job id>/<stage>`. `fn` and `args` are picklable, `fn` is safe to run again."""

    def __init__(self, job_id: str, *, cpus: float = 1.0) -> None:
        self._job_id, self._cpus = job_id, cpus

    async def __call__(self, stage: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Raises what `fn` raises, WorkError when its process died three times. Cancelling waits until it is gone."""
        ref = _leaf.options(name=f"{self._job_id}/{stage}", num_cpus=ASIDE.get(stage, self._cpus)).remote(fn, *args)
        try:
            answer: T = await ref
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise WorkError(stage=stage, detail=f"its process ended unexpectedly ({type(error).__name__})") from error
        except asyncio.CancelledError:
            await _stop(ref)
            raise
        return answer


@ray.remote(max_retries=2, retry_exceptions=False)  # type: ignore[untyped-decorator]
def _leaf(fn: Callable[..., Any], *args: Any) -> Any:
    return interrupt.run(fn(*args))


async def _stop(ref: ray.ObjectRef[Any]) -> None:
    ray.cancel(ref)
    ended = asyncio.ensure_future(_ended(ref))
    await asyncio.wait({ended}, timeout=CANCEL_S)
    if not ended.done():
        ray.cancel(ref, force=True)
        await ended


async def _ended(ref: ray.ObjectRef[Any]) -> None:
    try:
        await ref
    except (RayError, asyncio.CancelledError):
        return
