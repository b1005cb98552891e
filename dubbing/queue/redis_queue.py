"""The queue in Redis: every operation is one Lua script (`lua/`), atomic for any number of dispatchers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import redis

from dubbing.jobs import POOLS
from dubbing.queue.base import (
    AGE_MS,
    COST_SCALE,
    PROMOTED_AT_ONCE,
    Cancelled,
    Claim,
    Claimed,
    Clock,
    Extended,
    Field,
    Lease,
    Put,
    Scope,
    Stats,
    Tick,
    Ticket,
)
from dubbing.queue_errors import QueueDownError, QueueSetupError

T = TypeVar("T")
LUA = Path(__file__).parent / "lua"
KEYS = ("meta", "config", "job", "pend", "delayed", "lease", "holder", "run", "vt", "age")
OLDEST_REDIS = (6, 2)
SKEW_LIMIT_MS = 5_000
ANSWER_TIMEOUT_S = 2.0
"""A script runs for less than a millisecond; who waits longer is better told that the queue is down."""


@cache
def _script(name: str) -> tuple[str, str]:
    """Source and SHA-1 of a script, with what all scripts share before it."""
    source = (LUA / "lib.lua").read_text() + (LUA / f"{name}.lua").read_text()
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisQueue:
    """A JobQueue over one Redis database; `namespace` keeps several installations apart."""

    name: Literal["redis", "local"] = "redis"

    def __init__(
        self, url: str, *, namespace: str = "dubbing", age_ms: int = AGE_MS, clock: Clock | None = None
    ) -> None:
        """Connect lazily; `clock` (ms) replaces Redis's own in tests."""
        self._home = self._client = redis.Redis.from_url(
            url,
            socket_timeout=ANSWER_TIMEOUT_S,
            socket_connect_timeout=ANSWER_TIMEOUT_S,
            decode_responses=True,
            retry=None,
        )
        options = self._home.connection_pool.connection_kwargs
        self.address = str(options.get("path") or f"{options.get('host')}:{options.get('port')}")
        prefix = f"dq:{{{namespace}}}:"
        names = [*KEYS, *(f"ready:{pool}" for pool in POOLS)]
        # As bytes, because every call sends them all and the client would encode them every time.
        self._keys = [(prefix + name).encode() for name in names]
        self._clock = clock
        self._age_ms = age_ms
        self._channel = prefix + "wake"
        self._subscription: redis.client.PubSub | None = None
        self._listening = threading.Lock()

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tickets: Sequence[Ticket]) -> list[Put]:
        """See JobQueue."""
        return [Put(word) for word in self._json("enqueue", tickets=[_plain(t) for t in tickets]) or ()]

    def claim(self, pool: str, count: int, *, owner: str, ttl_ms: int) -> Claimed:
        """See JobQueue."""
        answer = self._json("claim", pool=pool, count=count, owner=owner, ttl=ttl_ms, cost_scale=COST_SCALE)
        claims = (Claim(c["id"], c["token"], c["user"], c["pool"], c["band"]) for c in answer.get("claims") or ())
        return Claimed(answer["state"], tuple(claims), answer.get("next_due"))

    def extend(self, leases: Sequence[tuple[str, int]], ttl_ms: int) -> list[Extended]:
        """See JobQueue."""
        return [Extended(n) for n in self._json("extend", leases=list(leases), ttl=ttl_ms) or ()]

    def release(self, leases: Sequence[tuple[str, int]]) -> list[bool]:
        """See JobQueue."""
        return [bool(n) for n in self._json("release", leases=list(leases)) or ()]

    def requeue(self, job_id: str, token: int, *, epoch: int, run_at_ms: int) -> bool:
        """See JobQueue."""
        return bool(self._run("requeue", id=job_id, token=token, epoch=epoch, run_at=run_at_ms))

    def cancel(self, job_id: str) -> Cancelled:
        """See JobQueue."""
        return Cancelled(self._run("cancel", id=job_id))

    def configure(self, scope: Scope, name: str, field: Field, value: int | None) -> None:
        """See JobQueue."""
        self._run("configure", scope=scope, name=name, field=field, value=value)

    # --- time ---------------------------------------------------------------------------------------------------------

    def expired(self, limit: int, hold_ms: int) -> list[Lease]:
        """See JobQueue."""
        found = self._json("expired", limit=limit, hold=hold_ms) or ()
        return [Lease(lease["id"], lease["token"], lease["owner"]) for lease in found]

    def adopt(self, running: Sequence[tuple[Ticket, int, str]], ttl_ms: int) -> list[bool]:
        """See JobQueue."""
        given = [{"ticket": _plain(ticket), "token": token, "owner": owner} for ticket, token, owner in running]
        return [bool(n) for n in self._json("adopt", running=given, ttl=ttl_ms) or ()]

    def age(self, limit: int) -> int:
        """See JobQueue."""
        return int(self._run("age", limit=limit))

    def tick(self) -> Tick:
        """See JobQueue."""
        answer = self._json("tick")
        return Tick(answer["promoted"], answer.get("next_due"))

    def hold_expiry(self, grace_ms: int) -> None:
        """See JobQueue."""
        self._run("rebuild", step="hold", grace=grace_ms)

    def now_ms(self) -> int:
        """See JobQueue."""
        if self._clock is not None:
            return self._clock()
        seconds, micros = self._ask(lambda client: client.time())
        return int(seconds * 1000 + micros // 1000)

    # --- whole queue --------------------------------------------------------------------------------------------------

    def begin_rebuild(self) -> None:
        """See JobQueue."""
        self._run("rebuild", step="begin")

    def end_rebuild(self, grace_ms: int) -> None:
        """See JobQueue."""
        self._run("rebuild", step="end", grace=grace_ms, run_id=self._run_id())

    def is_ready(self) -> bool:
        """See JobQueue. A restarted or promoted server may lack the last second, so its memory counts as lost."""
        whole, run_id = self._json("whole")
        return bool(whole) and run_id == self._run_id()

    def stats(self) -> Stats:
        """See JobQueue."""
        by_name = dict(zip(KEYS, self._keys, strict=False))

        def count(client: redis.Redis) -> list[Any]:
            with client.pipeline(transaction=True) as pipe:
                pipe.hget(by_name["meta"], "state")
                for key in ("pend", "delayed", "lease"):
                    pipe.zcard(by_name[key])
                return pipe.execute()

        state, pending, delayed, leased = self._ask(count)
        return Stats(state == "ready", pending, delayed, leased)

    def fsck(self) -> list[str]:
        """See JobQueue."""
        return list(self._json("fsck") or ())

    def forget_everything(self) -> None:
        """Remove all keys of this installation, as if Redis had been emptied."""
        self._ask(lambda client: client.delete(*self._keys))

    def wake(self) -> None:
        """See JobQueue. Only a hint: while Redis is away nobody hears it."""
        with contextlib.suppress(redis.RedisError):
            self._client.publish(self._channel, "")

    def wait(self, timeout_s: float) -> bool:
        """See JobQueue. While Redis is away it sleeps: the caller will ask again."""
        until = time.monotonic() + timeout_s
        try:
            with self._listening:
                return self._ask(lambda client: self._listen(client, until))
        except QueueDownError:
            self._drop_subscription()
            time.sleep(max(0.0, min(until - time.monotonic(), 0.1)))
        return False

    def _listen(self, client: redis.Redis, until: float) -> bool:
        if self._subscription is None:
            self._subscription = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
            self._subscription.subscribe(self._channel)
        while (left := until - time.monotonic()) > 0:
            if self._subscription.get_message(timeout=left) is not None:
                return True
        return False

    def ping(self) -> None:
        """See JobQueue."""
        self._ask(lambda client: client.ping())

    def close(self) -> None:
        """See JobQueue."""
        self._drop_subscription()
        self._client.close()
        self._home.close()

    def check_server(self, now_ms: int) -> list[str]:
        """Whether this Redis can hold a queue: warnings as sentences. Raises QueueSetupError, QueueDownError.

        `now_ms` is the database's clock.
        """
        self._ask(
            lambda client: client.hget(self._keys[0], "state")
        )  # in a cluster this leads to the node that is meant
        facts: dict[str, Any] = self._ask(lambda client: client.info())
        policy, aof = facts.get("maxmemory_policy"), facts.get("aof_enabled")
        version = tuple(int(part) for part in str(facts["redis_version"]).split(".")[:2])
        if version < OLDEST_REDIS:
            raise QueueSetupError(
                address=self.address, detail=f"it is version {facts['redis_version']}", fix="Use Redis 6.2 or newer."
            )
        if str(policy).startswith("allkeys-"):
            raise QueueSetupError(
                address=self.address,
                detail=f"its maxmemory-policy {policy} throws keys of the queue away",
                fix="Set `maxmemory-policy noeviction`.",
            )
        warnings = []
        if not aof:
            warnings.append("Redis keeps no append-only file: after a restart the queue is rebuilt from the database.")
        if abs(skew := self.now_ms() - now_ms) > SKEW_LIMIT_MS:
            warnings.append(f"The clocks of Redis and of the database differ by {skew / 1000:.0f} s: set both by NTP.")
        return warnings

    # --- inside -------------------------------------------------------------------------------------------------------

    def _json(self, name: str, /, **arguments: Any) -> Any:
        return json.loads(self._run(name, **arguments))

    def _run(self, name: str, /, **arguments: Any) -> Any:
        source, digest = _script(name)
        given = {key: value for key, value in arguments.items() if value is not None}
        given |= {"pools": POOLS, "channel": self._channel, "promoted": PROMOTED_AT_ONCE, "age_ms": self._age_ms}
        if self._clock is not None:
            given["now"] = self._clock()
        packed = json.dumps(given, separators=(",", ":")).encode()

        def call(client: redis.Redis) -> Any:
            try:
                return client.evalsha(digest, len(self._keys), *self._keys, packed)
            except redis.exceptions.NoScriptError:
                return client.eval(source, len(self._keys), *self._keys, packed)

        return self._ask(call)

    def _run_id(self) -> str:
        return str(self._ask(lambda client: client.info("server"))["run_id"])

    def _drop_subscription(self) -> None:
        if self._subscription is not None:
            with contextlib.suppress(redis.RedisError):
                self._subscription.close()
            self._subscription = None

    def _ask(self, question: Callable[[redis.Redis], T]) -> T:
        """Ask the server that holds our keys. Raises QueueDownError.

        In a cluster all our keys are in one slot: any node says whose it is, and when that one fails we ask again.
        """
        try:
            try:
                return question(self._client)
            except redis.exceptions.MovedError as moved:
                self._client = self._node(moved.host, moved.port)
                return question(self._client)
        except redis.RedisError as error:
            if self._client is not self._home:
                self._client.close()
                self._client = self._home
            raise QueueDownError(address=self.address, detail=str(error)) from error

    def _node(self, host: str, port: int) -> redis.Redis:
        """A client of another node, with the options of the first."""
        pool = self._home.connection_pool
        options = {**pool.connection_kwargs, "port": port, "host": host or pool.connection_kwargs.get("host")}
        return redis.Redis.from_pool(redis.ConnectionPool(connection_class=pool.connection_class, **options))


def _plain(ticket: Ticket) -> dict[str, Any]:
    return {
        "id": ticket.job_id, "user": ticket.user, "pool": ticket.pool, "band": ticket.band, "seq": ticket.seq,
        "epoch": ticket.epoch, "cost": ticket.cost, "run_at": ticket.run_at_ms,
    }  # fmt: skip
