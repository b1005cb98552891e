"""Which queue, and why: decided at start, told to the user, changed only by the dispatcher's rule (docs/queue.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dubbing.config import Settings
from dubbing.errors import DubbingError, SettingsError
from dubbing.queue.base import JobQueue
from dubbing.queue.fallback_local_queue import LocalQueue
from dubbing.queue_errors import QueueDownError, QueueSetupError

if TYPE_CHECKING:
    from dubbing.queue.redis_queue import RedisQueue

Mode = Literal["auto", "redis", "fallback"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The queue that was chosen."""

    queue: JobQueue
    mode: Mode
    reason: str
    """A sentence for logs and pages."""
    warnings: tuple[str, ...] = ()
    redis: RedisQueue | None = None
    """The Redis that was named, also while SQLite stands in for it."""
    local: LocalQueue | None = None
    """The SQLite queue that may be used; None in mode redis."""

    def close(self) -> None:
        """Let go of both."""
        for queue in (self.redis, self.local):
            if queue is not None:
                queue.close()


def decide(mode: Mode, redis_named: bool, trouble: DubbingError | None) -> tuple[Literal["redis", "local"], str]:
    """Which backend, and the reason. `trouble`: why the Redis that was named cannot be used. Raises SettingsError."""
    if mode == "fallback":
        return "local", "SQLite, because QUEUE_MODE is fallback."
    if mode == "redis" and not redis_named:
        raise SettingsError(
            key="QUEUE_MODE", value="redis", expected="REDIS_URL is not set", fix="Set REDIS_URL=redis://host:6379/0."
        )
    if not redis_named:
        return "local", "SQLite, because REDIS_URL is not set."
    if mode == "redis":
        if trouble is None:
            return "redis", "Redis, because QUEUE_MODE is redis."
        return "redis", f"Redis, because QUEUE_MODE is redis; no job starts until it answers ({trouble.message})."
    if trouble is None:
        return "redis", "Redis, because REDIS_URL is set and it answers."
    return "local", f"SQLite, because {trouble.message}."


def choose_queue(settings: Settings, *, now_ms: int) -> Choice:
    """Open the queue of these settings; `now_ms` is the database's clock.

    Raises SettingsError, QueueDownError (SQLite) and, in mode redis, QueueSetupError.
    """
    mode, url = settings.queue_mode, settings.redis_url
    redis = _redis(url) if url and mode != "fallback" else None
    trouble: DubbingError | None = None
    warnings: list[str] = []
    if redis is not None:
        try:
            warnings = redis.check_server(now_ms)
        except QueueDownError as error:
            trouble = error
        except QueueSetupError as error:
            if mode == "redis":
                redis.close()
                raise
            trouble = error
    backend, reason = decide(mode, redis is not None, trouble)
    local = LocalQueue(settings.state / "queue.sqlite3") if mode != "redis" else None
    queue = redis if backend == "redis" else local
    assert queue is not None
    # A Redis that would lose keys is no place to return to.
    usable = None if isinstance(trouble, QueueSetupError) else redis
    if usable is None and redis is not None:
        redis.close()
    return Choice(queue, mode, reason, tuple(warnings), usable, local)


def _redis(url: str) -> RedisQueue:
    from dubbing.queue.redis_queue import RedisQueue  # noqa: PLC0415 - 0.1 s that a command without Redis need not wait

    return RedisQueue(url)
