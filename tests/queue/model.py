"""What a queue should answer, written a second time without any index: every call searches and sorts lists."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dubbing.jobs import POOLS
from dubbing.queue.base import Cancelled, Claim, Claimed, Extended, Lease, Put, Stats, Tick, Ticket


@dataclass
class Entry:
    ticket: Ticket
    place: str  # pending, delayed or leased
    band: int
    lift_at: int | None = None
    token: int = 0
    owner: str = ""
    cancel: bool = False
    expires: int = 0


@dataclass
class Model:
    age_ms: int
    now: int = 0
    state: str = ""
    grace_until: int = 0
    jobs: dict[str, Entry] = field(default_factory=dict)
    config: dict[str, int] = field(default_factory=dict)
    vt: dict[tuple[str, str], int] = field(default_factory=dict)

    def at(self, place: str) -> list[Entry]:
        return [e for e in self.jobs.values() if e.place == place]

    def wait(self, entry: Entry) -> None:
        entry.band = entry.ticket.band
        if entry.ticket.run_at_ms > self.now:
            entry.place, entry.lift_at = "delayed", None
        else:
            self.line_up(entry)

    def line_up(self, entry: Entry) -> None:
        entry.place, entry.lift_at = "pending", self.now + self.age_ms if entry.band else None

    def running(self, user: str) -> int:
        return sum(e.ticket.user == user for e in self.at("leased"))

    def may_start(self, user: str) -> bool:
        cap = self.config.get(f"user:{user}:cap", self.config.get("user:*:cap"))
        return not self.config.get(f"user:{user}:paused") and (cap is None or self.running(user) < cap)

    def next_due(self) -> int | None:
        return min((e.ticket.run_at_ms for e in self.at("delayed")), default=None)

    def enqueue(self, tickets: list[Ticket]) -> list[Put]:
        return [self.put(t) for t in tickets]

    def put(self, ticket: Ticket) -> Put:
        known = self.jobs.get(ticket.job_id)
        if known and known.place == "leased":
            return Put.LEASED
        if known and known.ticket.epoch > ticket.epoch:
            return Put.STALE
        if known is None or known.ticket != ticket:
            self.jobs[ticket.job_id] = Entry(ticket, "pending", ticket.band)
            self.wait(self.jobs[ticket.job_id])
        return Put.OK

    def claim(self, pool: str, count: int, *, owner: str, ttl_ms: int) -> Claimed:
        if self.state != "ready":
            return Claimed("rebuilding")
        self.promote()
        if self.config.get("global::paused") or self.config.get(f"pool:{pool}:paused"):
            return Claimed("paused", (), self.next_due())
        claims: list[Claim] = []
        while len(claims) < count and self.has_room(pool) and (claim := self.claim_one(pool, owner, ttl_ms)):
            claims.append(claim)
        return Claimed("ok", tuple(claims), self.next_due())

    def has_room(self, pool: str) -> bool:
        leased = self.at("leased")
        in_pool = sum(e.ticket.pool == pool for e in leased)
        limits = [(self.config.get(f"pool:{pool}:{name}"), in_pool) for name in ("cap", "slots")]
        limits.append((self.config.get("global::cap"), len(leased)))
        return all(limit is None or used < limit for limit, used in limits)

    def claim_one(self, pool: str, owner: str, ttl_ms: int) -> Claim | None:
        line = [e for e in self.at("pending") if e.ticket.pool == pool and self.may_start(e.ticket.user)]
        if not line:
            return None
        heads = {
            user: min((e for e in line if e.ticket.user == user), key=lambda e: (e.band, e.ticket.seq, e.ticket.job_id))
            for user in {e.ticket.user for e in line}
        }
        user = min(heads, key=lambda u: (heads[u].band, self.vt.get((pool, u), 0), u))
        first = heads[user]
        first.place, first.lift_at, first.token = "leased", None, first.ticket.epoch + 1
        first.owner, first.cancel, first.expires = owner, False, self.now + ttl_ms
        turn = max(1, first.ticket.cost * 1000 // self.config.get(f"user:{user}:weight", 1))
        clock = self.vt.get((pool, ""), 0)
        start = max(self.vt.get((pool, user), 0), clock)
        self.vt[pool, ""], self.vt[pool, user] = max(clock, start), start + turn
        return Claim(first.ticket.job_id, first.token, user, pool, first.band)

    def extend(self, leases: list[tuple[str, int]], ttl_ms: int) -> list[Extended]:
        answers = []
        for job_id, token in leases:
            entry = self.jobs.get(job_id)
            if entry is None or entry.place != "leased":
                answers.append(Extended.UNKNOWN)
            elif entry.token != token:
                answers.append(Extended.FENCED)
            else:
                entry.expires = self.now + ttl_ms
                answers.append(Extended.CANCEL if entry.cancel else Extended.OK)
        return answers

    def held(self, job_id: str, token: int) -> Entry | None:
        entry = self.jobs.get(job_id)
        return entry if entry and entry.place == "leased" and entry.token == token else None

    def release(self, leases: list[tuple[str, int]]) -> list[bool]:
        return [self.held(*lease) is not None and bool(self.jobs.pop(lease[0])) for lease in leases]

    def requeue(self, job_id: str, token: int, *, epoch: int, run_at_ms: int) -> bool:
        entry = self.held(job_id, token)
        if not entry:
            return False
        entry.ticket = replace(entry.ticket, epoch=epoch, run_at_ms=run_at_ms)
        self.wait(entry)
        return True

    def cancel(self, job_id: str) -> Cancelled:
        entry = self.jobs.get(job_id)
        if entry is None:
            return Cancelled.UNKNOWN
        if entry.place == "leased":
            entry.cancel = True
            return Cancelled.SIGNALLED
        del self.jobs[job_id]
        return Cancelled.REMOVED

    def configure(self, scope: str, name: str, field: str, value: int | None) -> None:
        self.config.pop(f"{scope}:{name}:{field}", None)
        if value is not None:
            self.config[f"{scope}:{name}:{field}"] = value

    def expired(self, limit: int, hold_ms: int) -> list[Lease]:
        if self.now < self.grace_until:
            return []
        past = [e for e in self.at("leased") if e.expires <= self.now]
        past.sort(key=lambda e: (e.expires, e.ticket.job_id))
        for entry in past[:limit]:
            entry.expires = self.now + hold_ms
        return [Lease(e.ticket.job_id, e.token, e.owner) for e in past[:limit]]

    def adopt(self, running: list[tuple[Ticket, int, str]], ttl_ms: int) -> list[bool]:
        answers = []
        for ticket, token, owner in running:
            known = self.jobs.get(ticket.job_id)
            newest = -1 if known is None else known.token if known.place == "leased" else known.ticket.epoch
            answers.append(newest < token)
            if newest < token:
                self.jobs[ticket.job_id] = Entry(
                    ticket, "leased", ticket.band, None, token, owner, False, self.now + ttl_ms
                )
        return answers

    def age(self, limit: int) -> int:
        old = [e for e in self.at("pending") if e.lift_at is not None and e.lift_at <= self.now]
        old.sort(key=lambda e: (e.lift_at, e.ticket.job_id))
        for entry in old[:limit]:
            entry.band -= 1
            self.line_up(entry)
        return len(old[:limit])

    def promote(self) -> int:
        due = [e for e in self.at("delayed") if e.ticket.run_at_ms <= self.now]
        due.sort(key=lambda e: (e.ticket.run_at_ms, e.ticket.job_id))
        for entry in due[:100]:
            self.line_up(entry)
        return len(due[:100])

    def tick(self) -> Tick:
        return Tick(self.promote(), self.next_due())

    def hold_expiry(self, grace_ms: int) -> None:
        self.grace_until = self.now + grace_ms

    def begin_rebuild(self) -> None:
        self.jobs.clear()
        self.config.clear()
        self.state = "rebuilding"

    def end_rebuild(self, grace_ms: int) -> None:
        self.state, self.grace_until = "ready", self.now + grace_ms

    def stats(self) -> Stats:
        return Stats(self.state == "ready", *(len(self.at(p)) for p in ("pending", "delayed", "leased")))


assert POOLS == ("cpu", "gpu")
