"""The road a job takes over Ray: start or join, run jobs, leave nothing behind. Entry point group `dubbing.cluster`."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from cluster.local import RaySession
from dubbing.config import Settings
from dubbing.errors import BadInputError, StoppedError
from dubbing.queue_errors import ServerLostError
from dubbing.types import Job, Progress


class RoadJob(Protocol):
    """What the road needs to know of a job; the pipeline gets the whole of it."""

    @property
    def id(self) -> str:
        """Short name, unique on the cluster."""
        ...

    @property
    def engines(self) -> Mapping[str, str]:
        """Kind, or `kind:target`, -> engine name."""
        ...

    @property
    def targets(self) -> tuple[str, ...]:
        """BCP-47 tags."""
        ...


class _Failures(contextlib.AbstractContextManager[None]):
    """Notes whether a body failed by other than what the user gave, or a stop: Ray's logs are kept for it."""

    any = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        expected = isinstance(error, (BadInputError, StoppedError))
        self.any = self.any or (isinstance(error, Exception) and not expected)


class RayRoad:
    """Runs jobs on Ray: each as a coordinator task, with engines as Serve replicas and media work as leaf tasks.

    `start` does its work in a thread, so that a caller may probe the video meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log_dir: Path,
        engine_args: Mapping[str, Mapping[str, Any]],
        entry: str = "dubbing.pipeline:run",
    ) -> None:
        """`log_dir` gets Ray's logs after a failure; `entry`: `module:function` of the pipeline that coordinators run.

        `engine_args`: kind -> engine name -> options, deployed where no engines are yet; empty: the serve config's.
        """
        self._session = RaySession(settings)
        self._settings = settings.absolute()
        self._hosting: asyncio.Task[None] | None = None
        self._keeper = False
        """Whether the dispatcher goes when we go."""
        self._name = uuid.uuid4().hex
        self._log_dir, self._engine_args, self._entry = log_dir, engine_args, entry
        self._starting: asyncio.Task[None] | None = None
        self._failures = _Failures()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._closing = False
        self.kept_logs: Path | None = None
        """Where Ray's logs were kept by `aclose`; None when nothing failed."""

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of import, ray.init, serve.start, deploy and health, as far as the start has come."""
        return self._session.timings

    @property
    def notice(self) -> str:
        """A sentence about what jobs will wait for on the Ray that was joined; empty when they can begin."""
        return self._session.notice

    @staticmethod
    def look(settings: Settings) -> str:
        """Join the Ray of the settings for a moment, and say what it lacks, as `notice`. Raises ClusterError."""
        session = RaySession(settings)
        try:
            return session.look()
        finally:
            session.stop()

    async def start(self) -> None:
        """Have Ray up and the engines healthy. Raises ClusterError, or the error of an engine that cannot be loaded."""
        if self._starting is None:
            starting = asyncio.to_thread(self._session.start, self._engine_args, entry=self._entry)
            self._starting = asyncio.create_task(starting)
        # The thread cannot be broken off: a cancelled start goes on until `aclose` has waited for it.
        await asyncio.shield(self._starting)

    async def run_job(self, job: RoadJob, report: Callable[[Progress], None]) -> Any:
        """Run a job and return the pipeline's result; `report` is called here, in this loop.

        Raises what the pipeline raised. Cancelling this stops the job and waits until its tasks and ffmpeg are gone.
        """
        await self.start()
        from cluster import coordinator  # noqa: PLC0415 - imports ray, whose environment `start` has prepared

        assignment = coordinator.Assignment(
            job, job.id, dict(job.engines), tuple(job.targets), self._entry, 60.0 * self._settings.engine_start_min
        )
        following = asyncio.create_task(coordinator.follow(coordinator.submit(assignment), report))
        self._jobs.add(following)
        try:
            with self._failures:
                return await following
        except asyncio.CancelledError:
            if self._closing:
                raise StoppedError from None
            raise
        finally:
            self._jobs.discard(following)

    @asynccontextmanager
    async def host_job(self, job_id: str, job: Job) -> AsyncIterator[None]:
        """Have one job of the queue run here while the body runs. `job_id` names its row, `job` has every choice made.

        Raises StoreError, QueueDownError.
        """
        await self.start()
        from cluster.lone import LoneDispatcher  # noqa: PLC0415 - as in `run_job`

        lone = await asyncio.to_thread(LoneDispatcher, self._settings, job_id, job, self._session.folder)
        try:
            with self._failures:
                yield
        finally:
            await asyncio.to_thread(lone.close)

    async def host_queue(self) -> Mapping[str, Any]:
        """Have a dispatcher run on the head node until `aclose`, unless one runs there; what it says of itself.

        Raises ClusterError, DispatcherHeldError, or what the database or Redis has to say.
        """
        self._session.http = True  # a `dub run` beside it would want the same port
        await self.start()
        from cluster import control  # noqa: PLC0415 - as in `run_job`
        from cluster.clients import deployed_engines  # noqa: PLC0415

        deployed = await deployed_engines(patience_s=60.0 * self._settings.engine_start_min)
        engines = {kind: sorted(names) for kind, names in deployed.items()}
        self._hosting = asyncio.create_task(asyncio.to_thread(control.deploy_unless_deployed, self._settings, engines))
        await asyncio.shield(self._hosting)  # as in `start`
        told = {**await control.info(self._settings), "api": self._session.api}
        told["warnings"] = [*told["warnings"], *filter(None, [self.notice])]
        self._keeper = await control.keep(self._name)
        return told

    async def keep_queue(self) -> None:
        """Look after the dispatcher of `host_queue`, and deploy it again when its host took it away.

        Raises ClusterLostError when Ray is gone (`aclose` then waits for nothing of it), ServerLostError when the
        dispatcher has not answered for a while.
        """
        keeping, watching = asyncio.ensure_future(self._keep()), asyncio.ensure_future(self._session.until_lost())
        try:
            done, _ = await asyncio.wait({keeping, watching}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            self._failures.any = self._failures.any or self._session.lost
            keeping.cancel()
            watching.cancel()
            await asyncio.gather(keeping, watching, return_exceptions=True)

    async def _keep(self) -> None:
        from cluster import control  # noqa: PLC0415 - as in `run_job`

        heard_at = time.monotonic()
        while True:
            await asyncio.sleep(control.KEEP_S)
            try:
                self._keeper = await control.keep(self._name)
                heard_at = time.monotonic()
            except control.SILENT as error:
                if (silent_s := time.monotonic() - heard_at) > control.LOST_S:
                    self._keeper, self._failures.any = False, True
                    raise ServerLostError(what="The dispatcher on this Ray", silent_s=round(silent_s)) from error
                with contextlib.suppress(*control.SILENT):
                    if not await asyncio.to_thread(control.is_deployed):
                        await self.host_queue()

    async def aclose(self) -> None:
        """Stop our jobs (their `run_job` raises StoppedError); end a Ray we started, leave a joined one as it is."""
        if self._starting is None:
            return
        self._closing = True
        for following in self._jobs:
            following.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await asyncio.wait({self._starting})
        await self._end_hosting()
        failed = self._failures.any or self._starting.exception() is not None
        self._starting = None
        self.kept_logs = await asyncio.to_thread(self._session.stop, self._log_dir if failed else None)

    async def _end_hosting(self) -> None:
        """Remove the dispatcher if it is ours to remove."""
        if self._hosting is None:
            return
        await asyncio.wait({self._hosting})
        if self._keeper and not self._session.lost:
            from cluster import control  # noqa: PLC0415 - as in `run_job`

            await asyncio.to_thread(control.remove, self._settings)
        self._hosting = None

    async def __aenter__(self) -> RayRoad:
        async with contextlib.AsyncExitStack() as unless_started:
            unless_started.push_async_callback(self.aclose)
            await self.start()
            unless_started.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
