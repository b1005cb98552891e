"""`dub run` through the queue: the job is a row that a running server takes, or a dispatcher of this command's own.

Whoever waits for a job takes it over when nobody else does, so that no end of another program leaves it hanging.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dubbing import orders
from dubbing.artifacts import JobFolder
from dubbing.config import Settings
from dubbing.desk import stages_of
from dubbing.engines.base import Engines
from dubbing.errors import DubbingError, StateConflictError, retold
from dubbing.jobs import MAX_ATTEMPTS, TERMINAL, WAITING, State, cost_of
from dubbing.jobs import Job as Row
from dubbing.local_desk import ADMIN, LocalDesk, open_local
from dubbing.prepare import prepare
from dubbing.progress import ProgressPrinter
from dubbing.queue_errors import JobStoppedError, ServerLostError
from dubbing.roads import ray_road
from dubbing.store import Event, Presence
from dubbing.types import DubRequest, Job, JobResult

LOOK_S = 0.1
"""Between two looks at the events of the job; each is one reading of the database."""
PRESENCE_S = 2.0
"""Between two looks at who is there."""
LOST_S = 30.0
"""Serve needs some seconds to replace a dispatcher that died, so a server is given up only after this silence."""
HELD_S = 3.0
"""A job that has not begun after this is told why."""
SAY_AGAIN_S = 60.0
END_S = 60.0
"""How long a stopped job may take to be put away; a job that is not heard of is stopped by force after 50 s."""


async def dub(
    request: DubRequest, settings: Settings, user: str, printer: ProgressPrinter
) -> tuple[JobResult, Job, dict[str, float], str]:
    """Dub through the queue; answers the result, the job as it was prepared, seconds by step, and the row's id.

    Raises the job's error, JobStoppedError, ServerLostError, or what stands in the way of the job's start. Cancelling
    this pauses the job, and returns when nobody works on it any more.
    """
    with open_local(settings) as at:
        order = _Order(at, settings, printer, request)
        await order.prepare()
        order.enter(user)
        while not await order.followed():
            await order.run_here()
        return order.result(), order.job, order.timings, order.row.id


class _Order:
    """One `dub run`: its row, and whoever runs it."""

    job: Job
    row: Row

    def __init__(self, at: LocalDesk, settings: Settings, printer: ProgressPrinter, request: DubRequest) -> None:
        self._at, self._settings, self._printer, self._request = at, settings, printer, request
        self.timings: dict[str, float] = {}
        self._servers = [one for one in at.store.present() if one.serves]
        self._ours = False
        """Whether this command wrote the row."""
        self._seen = 0
        self._looked_at = -PRESENCE_S
        self._heard_at: float | None = None
        """When a server last gave a sign of life after it was handed the job; None: it was dead by then."""
        self._beat_ms = max((one.beat_ms for one in self._servers), default=0)

    @contextmanager
    def _clock(self, step: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[step] = self.timings.get(step, 0.0) + time.monotonic() - start

    # --- into the queue -----------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Find what is wrong with the request before anything is started, with the engines that will be used."""
        with self._clock("prepare"):
            self.job = await prepare(self._request, self._settings, _engines(self._servers))
        for reason in dict.fromkeys(choice.reason for choice in self.job.choices):
            self._printer.say(f"  {reason}")

    def enter(self, user: str) -> None:
        """Write the row, or find the one of this request that has not ended."""
        with self._clock("submit"):
            store, intake = self._at.store, self._at.intake
            actor = self._at.user(user, make=True).actor
            data = orders.to_json(self._request)
            known = store.open_request(actor, data)
            if known is None:
                length = (self._request.end_ms or self.job.info.duration_ms) - (self._request.start_ms or 0)
                # Somebody who waits at a terminal hears of an error at once; a server tries again by itself.
                attempts = MAX_ATTEMPTS if self._servers else 1
                cost = cost_of(max(0, length), len(self.job.targets))
                self.row, self._ours = intake.submit(
                    actor, data, targets=self.job.targets, cost=cost, max_attempts=attempts
                )
            else:
                self._seen = max((event.id for event in store.events(ADMIN, job_id=known.id)), default=0)
                self.row = intake.resume(ADMIN, known.id) if known.state is State.PAUSED else known
        self._say_where(known)

    def _say_where(self, known: Row | None) -> None:
        name = self.row.id[:8]
        if known is not None:
            self._printer.say(f"goes on with job {name}, which was {known.state.shown}")
        if self._servers and self.row.state in WAITING:
            before = self._at.store.ahead(self.row)
            waiting = f"{before} {'job' if before == 1 else 'jobs'} before it" if before else "next in line"
            self._printer.say(f"handed to the running server as job {name}, {waiting}")
            self._say_what_holds_it()
        elif self._servers or (known is not None and known.state is State.RUNNING):
            self._printer.say(f"job {name} is running already: following it")

    # --- while somebody else has it -----------------------------------------------------------------------------------

    async def followed(self) -> bool:
        """Follow the job to its end; False when nobody is there who would run it. Raises ServerLostError."""
        with self._clock("wait"):
            return await self._follow(elsewhere=True)

    async def _follow(self, *, elsewhere: bool) -> bool:
        held_at = time.monotonic() + HELD_S
        try:
            while self._look() not in TERMINAL:
                if elsewhere and not self._somebody_has_it():
                    return False
                if not elsewhere and self.row.state is State.PENDING and time.monotonic() > held_at:
                    held_at += SAY_AGAIN_S
                    self._say_what_holds_it()
                await asyncio.sleep(LOOK_S)
        except asyncio.CancelledError:
            await self._pause()
            if self.row.state not in (State.DONE, State.WARNED):
                raise
        return True

    def _look(self) -> State:
        """Show what happened since the last look. Raises JobStoppedError for a pause that was not ours."""
        for event in self._at.store.events(ADMIN, after=self._seen, job_id=self.row.id):
            self._seen = event.id
            self._show(event)
        if self.row.state is State.PAUSED:
            raise JobStoppedError(name=self.row.id[:8], state="paused")
        return self.row.state

    def _show(self, event: Event) -> None:
        if event.kind == "progress":
            for progress in stages_of(event.data):
                self._printer(progress)
        elif event.kind in State._value2member_map_:
            self.row = self._at.store.job(ADMIN, self.row.id)
            if event.kind == State.DELAYED.value:
                error = event.data.get("error", {}).get("message")
                self._printer.say(f"  {error}; it will be tried again" if error else "  put back in line")

    def _somebody_has_it(self) -> bool:
        """Whether a dispatcher that lives has the job, or will take it. Raises ServerLostError."""
        now = time.monotonic()
        if now - self._looked_at < PRESENCE_S:
            return True
        self._looked_at = now
        present = self._at.store.present()
        beat_ms = max((one.beat_ms for one in present if one.serves), default=0)
        if beat_ms > self._beat_ms:
            self._heard_at, self._beat_ms = now, beat_ms
        if beat_ms or (self.row.state is State.RUNNING and any(one.name == self.row.owner for one in present)):
            return True
        if self._heard_at is None:
            return False
        if now - self._heard_at > LOST_S:
            raise ServerLostError(what="The server that was handed the job", silent_s=round(now - self._heard_at))
        return True

    def _say_what_holds_it(self) -> None:
        """Why the job does not start, if a pause or a cap is the reason."""
        settings, user = self._at.store.settings(), self.row.user_id
        if any(settings.get(key) for key in ("global::paused", f"user:{user}:paused", f"pool:{self.row.pool}:paused")):
            self._printer.say("  the queue is paused; `dub resume` lets its jobs start")
        running = sum(job.user_id == user for job in self._at.store.running())
        if running >= settings.get(f"user:{user}:cap", settings["user:*:cap"]):
            self._printer.say(f"  waits: this user has {running} jobs running, and may not have more at once")

    async def _pause(self) -> None:
        """Stop the job and wait until it is put away; the same command resumes it."""
        with contextlib.suppress(StateConflictError):  # it ended, or was stopped, by itself
            self.row = self._at.intake.pause(ADMIN, self.row.id)
        deadline = time.monotonic() + END_S
        while self.row.state is State.RUNNING and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
            self.row = self._at.store.job(ADMIN, self.row.id)

    # --- here ---------------------------------------------------------------------------------------------------------

    async def run_here(self) -> None:
        """Run the job on Ray with a dispatcher in this process, to its end."""
        road = f"the Ray at {self._settings.ray_address}" if self._settings.ray_address else "a Ray of its own"
        gone = "it has gone silent" if self._servers or self.row.state is State.RUNNING else "no server runs"
        self._printer.say(f"{gone} ({self._at.store.name}): dubbing on {road}")
        try:
            if self._servers:
                self._servers = []
                await self.prepare()
            await self._host()
        except asyncio.CancelledError:
            await self._pause()
            raise
        except DubbingError as error:
            error.log = self.job.folder / "job.log"
            raise
        finally:
            if self._ours and self._at.store.job(ADMIN, self.row.id).state in WAITING:
                self._at.intake.cancel(ADMIN, self.row.id)  # nobody waits for it any more

    async def _host(self) -> None:
        engines: dict[str, dict[str, dict[str, Any]]] = {}
        for choice in self.job.choices:
            engines.setdefault(choice.kind, {})[choice.name] = {}
        road = ray_road(self._settings, self._settings.log_dir, engines)
        try:
            with self._clock("start"), JobFolder(self.job.folder).lock():
                begun = asyncio.ensure_future(road.start())
                try:
                    self.timings["ingest"] = await self._ingest()
                    await begun
                finally:
                    begun.cancel()
            if road.notice:
                self._printer.say(f"  {road.notice}")
            with self._clock("run"):
                async with road.host_job(self.row.id, self.job):
                    await self._follow(elsewhere=False)
        finally:
            with self._clock("close"):
                await road.aclose()
            self.timings |= road.timings

    async def _ingest(self) -> float:
        """Decode the source while Ray starts; the pipeline then finds it done. Answers the seconds it took."""
        from dubbing.stages.context import Context, LocalLeaf  # noqa: PLC0415 - a server that is handed the job decodes
        from dubbing.stages.ingest import ingest  # noqa: PLC0415

        log = logging.getLogger("dubbing.job")
        context = Context(self.job, JobFolder(self.job.folder), Engines(), LocalLeaf(), self._printer, log)
        source = await ingest(context)
        await source.decoded()
        return context.trace.busy_s()

    # --- the end ------------------------------------------------------------------------------------------------------

    def result(self) -> JobResult:
        """The result of the job that ended. Raises its error, or JobStoppedError when somebody cancelled it."""
        if self.row.state is State.CANCELLED:
            raise JobStoppedError(name=self.row.id[:8], state="cancelled")
        if self.row.state is State.FAILED or self.row.result is None:
            error = retold(self.row.error or {})
            error.log = self.job.folder / "job.log"
            raise error
        told = self.row.result
        files = {tag: [Path(path) for path in paths] for tag, paths in told["files"].items()}
        return JobResult(told["state"], files, Path(told["report"]), tuple(told["warnings"]))


def _engines(servers: Sequence[Presence]) -> Mapping[str, Collection[str]] | None:
    """The engines a server can use, by kind; None where this machine's own are the ones that count."""
    return next((one.facts["engines"] for one in servers if one.facts.get("engines")), None)
