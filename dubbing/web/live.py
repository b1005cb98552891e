"""Live progress: one poller for the whole process reads what changed and hands it to every open stream.

A stream is a coroutine, never a thread. What waits for a slow reader is the latest state of each job, so it is bounded
by the jobs that change; a reader who lags by MOST_WAITING jobs is let go and comes back by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import HTMLResponse, StreamingResponse

from dubbing.errors import StoreError
from dubbing.jobs import TERMINAL, Actor, State
from dubbing.store import Store
from dubbing.store.access import digest
from dubbing.store.live import Change
from dubbing.web import pages
from dubbing.web.api_models import job_out
from dubbing.web.identity import Anyone, Visitor, key_of
from dubbing.web.office import Desk

LOOK_S = 0.4
"""Between two looks at the events: one query, however many streams are open."""
HEARTBEAT_S = 15.0
"""A comment is sent when nothing else was, so that both ends notice a dead connection; each stream takes up to a third less."""
MOST_WAITING = 200
MOST_MISSED = 500
OVERLAP = 64
"""Events looked at again: PostgreSQL may show a higher id before a lower one."""
RETRY_MS = 3_000
"""When a reader comes back, give or take a third: after a restart all of them do."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
ACTIVE = tuple(state for state in State if state not in TERMINAL)
log = logging.getLogger(__name__)
router = APIRouter(tags=["live"])


@dataclass(slots=True)
class News:
    """A change, and what readers are sent of it: written once for all of them."""

    change: Change
    _texts: dict[bool, str] = field(default_factory=dict)

    def text(self, actor: Actor) -> str:
        """One event: the whole state of a job. Owners read that it is theirs, all others read the same."""
        mine = self.change.job.user_id == actor.user_id
        if mine not in self._texts:
            self._texts[mine] = message(self.change, actor)
        return self._texts[mine]


@dataclass
class Stream:
    """One reader. `waiting` holds the latest change of each job he has not been sent."""

    door: str
    """Hash of the secret he came in with: his session or API key."""
    actor: Actor
    waiting: dict[str, News] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str | None = None
    """Why it is over: `replaced`, `closed`, `slow`, `stopped`."""

    def put(self, news: News) -> None:
        """Note a change; lets the reader go when he is too far behind."""
        job = news.change.job.id
        self.waiting.pop(job, None)
        self.waiting[job] = news
        if len(self.waiting) > MOST_WAITING:
            self.end("slow")
        self.wake.set()

    def take(self) -> list[News]:
        """What waits, in the order of the events."""
        found = sorted(self.waiting.values(), key=lambda news: news.change.event_id)
        self.waiting.clear()
        self.wake.clear()
        return found

    def end(self, why: str) -> None:
        """Let the reader go."""
        self.ended = self.ended or why
        self.waiting.clear()
        self.wake.set()


class Hub:
    """All open streams and the one poller, which works while there are any."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._streams: dict[str, Stream] = {}
        self._poller: asyncio.Task[None] | None = None

    @property
    def streams(self) -> int:
        """Open streams."""
        return len(self._streams)

    async def join(self, door: str, actor: Actor) -> Stream:
        """Open a stream; one that came through the same door before is over."""
        if old := self._streams.get(door):
            old.end("replaced")
        stream = self._streams[door] = Stream(door, actor)
        if self._poller is None or self._poller.done():
            last = await asyncio.to_thread(self._store.last_event)
            if self._poller is None or self._poller.done():
                self._poller = asyncio.create_task(self._poll(last))
        return stream

    def leave(self, stream: Stream) -> None:
        """Forget a stream."""
        if self._streams.get(stream.door) is stream:
            del self._streams[stream.door]

    def close(self) -> None:
        """Let all readers go: the server stops."""
        for stream in self._streams.values():
            stream.end("stopped")

    async def _poll(self, last: int) -> None:
        seen: deque[int] = deque(range(last - OVERLAP, last + 1), maxlen=4 * OVERLAP)
        while self._streams:
            try:
                doors, changes = await asyncio.to_thread(self._look, last, frozenset(seen))
            except StoreError as error:
                log.warning("live progress waits for the database: %s", error.message)
                await asyncio.sleep(LOOK_S)
                continue
            seen.extend(change.event_id for change in changes)
            last = max(last, *seen)
            news = [News(change) for change in changes]
            for stream in list(self._streams.values()):
                if stream.door not in doors:
                    stream.end("closed")
                    continue
                stream.actor = doors[stream.door]
                for one in news:
                    if one.change.seen_by(stream.actor):
                        stream.put(one)
            await asyncio.sleep(LOOK_S)

    def _look(self, last: int, seen: frozenset[int]) -> tuple[dict[str, Actor], Sequence[Change]]:
        changes = self._store.changes(after=last - OVERLAP, known=seen)
        return dict(self._store.doors()), changes


async def messages(hub: Hub, store: Store, stream: Stream, after: int | None) -> AsyncIterator[str]:
    """What a reader is sent: first what he missed, or all jobs that are under way, then every change."""
    try:
        missed = await asyncio.to_thread(_missed, store, stream.actor, after)
        sent = {change.job.id: change.event_id for change in missed}
        retry = f"retry: {_scattered(2 / 3 * RETRY_MS, 4 / 3 * RETRY_MS):.0f}\n\n"
        yield retry + "".join(message(change, stream.actor) for change in missed)
        while stream.ended is None:
            try:
                # streams that were opened together must not all speak together
                await asyncio.wait_for(stream.wake.wait(), _scattered(2 / 3 * HEARTBEAT_S, HEARTBEAT_S))
            except asyncio.TimeoutError:
                yield ": still here\n\n"
                continue
            news = (one for one in stream.take() if sent.get(one.change.job.id, 0) < one.change.event_id)
            if text := "".join(one.text(stream.actor) for one in news):
                yield text
            sent.clear()
        yield f"event: end\ndata: {stream.ended}\n\n"
    finally:
        hub.leave(stream)


def message(change: Change, actor: Actor) -> str:
    """One event: the whole state of a job."""
    return f"id: {change.event_id}\nevent: job\ndata: {job_out(change.job, actor.user_id).model_dump_json()}\n\n"


def _scattered(least: float, most: float) -> float:
    return random.uniform(least, most)  # noqa: S311 - keeps streams apart, protects nothing


def _missed(store: Store, actor: Actor, after: int | None) -> list[Change]:
    if after is not None:
        return [change for change in store.changes(after=after, limit=MOST_MISSED) if change.seen_by(actor)]
    last = store.last_event()
    return [Change(last, job) for job in store.jobs(actor, states=ACTIVE, limit=MOST_WAITING)]


@router.get(
    "/api/v1/events",
    summary="Live progress",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events `job`, each the whole state of a job; `end` says why the stream is over.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def events(
    request: Request,
    visitor: Anyone,
    desk: Desk,
    last_event_id: Annotated[
        str | None, Header(max_length=40, description="Id of the last event that was seen; what came after is sent.")
    ] = None,
) -> StreamingResponse:
    """All jobs you may see, as they change. A new stream ends the one before of the same session or API key."""
    hub: Hub = request.app.state.hub
    after = int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else None
    stream = await hub.join(_door(request, visitor), visitor.actor)
    known = None if after is None else min(after, 2**62)
    return StreamingResponse(messages(hub, desk.store, stream, known), media_type="text/event-stream", headers=HEADERS)


def _door(request: Request, visitor: Visitor) -> str:
    return digest(visitor.session or key_of(request))


@router.get("/ui/jobs/{job_id}/row", include_in_schema=False)
def row(desk: Desk, visitor: Anyone, job_id: str) -> HTMLResponse:
    """A job's row of the list."""
    job = desk.store.job(visitor.actor, job_id)
    names = {job.user_id: desk.store.user(job.user_id).name} if visitor.actor.sees_all else {}
    return HTMLResponse(pages.render("job_row.html", job=job, names=names))
