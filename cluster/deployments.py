"""The engine replica: an engine and a MicroBatcher in a process of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import logging
import re
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dubbing import errors, queue_errors  # noqa: F401 - the second so that its errors are known by name
from dubbing.engines import registry
from dubbing.engines.base import EngineInfo, Probed
from dubbing.engines.batching import BatchStats, MicroBatcher
from dubbing.errors import DubbingError, EngineBrokenError, ServiceDownError, ServiceRefusedError

log = logging.getLogger(__name__)
_MARK = re.compile(r"engine-load-error (\{.*?\}) engine-load-error", re.DOTALL)


class ReplicaOptions(BaseModel):
    """`user_config` of an engine deployment; changes take effect without a restart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_size: int | None = Field(None, ge=1)
    """Most items of a batch; the engine's own limit when unset."""
    linger_s: float = Field(0.01, ge=0, le=1)
    """How long a batch that is not full waits for more, s."""
    stuck_s: float = Field(600.0, gt=0)
    """A model call that takes longer has hung: the health check fails and Serve starts another replica, s."""
    probe_s: float = Field(300.0, gt=0)
    """An engine that has answered nothing for so long, idle or failing, is given something tiny to do, s."""


class EngineLoadError(Exception):
    """An engine's own error, in the text of Serve's deployment status: the only way out of a constructor."""

    def __init__(self, error: DubbingError) -> None:
        facts = {key: str(value) for key, value in error.facts.items()}
        super().__init__(
            f"engine-load-error {json.dumps({'class': type(error).__name__, 'facts': facts})} engine-load-error"
        )


def load_error(status_message: str) -> DubbingError | None:
    """The error an engine raised while it was loaded, out of Serve's status message; None when it holds none."""
    if (found := _MARK.search(status_message)) is None:
        return None
    told = json.loads(found[1])
    return errors.named(told["class"])(**told["facts"])


_PROBE = object()
"""The item that stands for a probe."""
_PROBE_LANE = "probe"
_ELSEWHERE = (ServiceDownError, ServiceRefusedError)
"""What another replica would meet too: starting one again and again would mend nothing."""


@dataclass(frozen=True, slots=True)
class _Asked:
    item: Any
    alone: int | None
    """A number of its own for an item that must not share a batch."""


class EngineReplica:
    """One loaded engine whose batches are drawn from the lines of all jobs."""

    def __init__(self, engine: str, options: Mapping[str, Any], peers: Sequence[Any] = ()) -> None:
        """`peers` are handles of other deployments: they make one application of all and are not used."""
        try:
            self._engine = registry.spec(engine).load(options)
        except DubbingError as error:
            raise EngineLoadError(error) from error
        self._batcher: MicroBatcher[_Asked, Any] = MicroBatcher(
            self._run, max_size=self._engine.info.max_batch, bucket=self._bucket, name=engine
        )
        self._options = ReplicaOptions.model_validate({})
        self._numbers = itertools.count()
        self._since: float | None = None
        self._known_at: float | None = None
        """When the model last answered, or a probe last ended."""
        self._probing: asyncio.Task[Any] | None = None
        self.probes = 0
        """Probes that have ended."""
        self._broken: EngineBrokenError | None = None

    async def __call__(self, item: Any, lane: str, alone: bool = False) -> Any:
        """Answer one item; `lane` is the job. Raises what the engine raises for this item."""
        return await self._batcher(_Asked(item, next(self._numbers) if alone else None), lane=lane)

    def info(self) -> EngineInfo:
        """Facts about the engine."""
        return self._engine.info

    def stats(self) -> BatchStats:
        """What the batcher has done so far, probes not counted."""
        told = self._batcher.stats()
        return dataclasses.replace(told, batches=told.batches - self.probes, items=told.items - self.probes)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take over `user_config` (ReplicaOptions). Called by Serve after the start and whenever the config changes."""
        self._options = ReplicaOptions.model_validate(user_config)
        size = min(self._options.max_size or self._engine.info.max_batch, self._engine.info.max_batch)
        self._batcher.reconfigure(max_size=size, linger_s=self._options.linger_s)

    async def check_health(self) -> None:
        """Raises EngineBrokenError when the engine gave up, failed a probe, or hangs in a call; Serve then replaces us.

        A probe goes through the model's own thread and is waited for by a later check: this one always answers at once.
        """
        name = self._engine.info.name
        if self._probing is not None and self._probing.done():
            self._judge(self._probing.exception())
            self._probing = None
        if self._broken is not None:
            raise self._broken
        since = self._since
        if since is not None and (took_s := time.monotonic() - since) > self._options.stuck_s:
            raise EngineBrokenError(name=name, detail=f"one call has been running for {took_s:.0f} s")
        due = self._known_at is None or time.monotonic() - self._known_at > self._options.probe_s
        if due and self._probing is None and isinstance(self._engine, Probed):
            asked = _Asked(_PROBE, next(self._numbers))
            self._probing = asyncio.ensure_future(self._batcher(asked, lane=_PROBE_LANE))

    def _judge(self, error: BaseException | None) -> None:
        """What a probe that ended means for this replica."""
        self._known_at = time.monotonic()
        if isinstance(error, _ELSEWHERE):
            log.warning("Health check: %s", error.message)
        elif error is not None and self._broken is None:
            detail = f"it failed its health check ({error})"
            self._broken = EngineBrokenError(name=self._engine.info.name, detail=detail)

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.close()

    def _bucket(self, asked: _Asked) -> Hashable:
        return asked.alone, None if asked.item is _PROBE else self._engine.bucket(asked.item)

    def _probe(self) -> Sequence[Any]:
        assert isinstance(self._engine, Probed)
        try:
            self._engine.probe()
        finally:
            self.probes += 1
        return [None]

    def _run(self, asked: Sequence[_Asked]) -> Sequence[Any]:
        self._since = time.monotonic()
        try:
            answers = self._probe() if asked[0].item is _PROBE else self._engine.run([one.item for one in asked])
            self._known_at = time.monotonic()
        except _ELSEWHERE:
            raise
        except EngineBrokenError as error:
            self._broken = error
            raise
        finally:
            self._since = None
        return answers
