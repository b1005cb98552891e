"""The dispatcher's Launcher on Ray: a coordinator task per run, followed in a loop of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from cluster import coordinator
from cluster.queued import QueuedJob, result_data
from dubbing.config import Settings
from dubbing.errors import ClusterError, DubbingError, JobBusyError, StoppedError
from dubbing.jobs import Job
from dubbing.launching import Report, Word
from dubbing.types import JobResult, Progress

log = logging.getLogger(__name__)
POOL = "cpu"
"""All jobs are in one pool, for all take the same: a slot on any node. GPUs belong to the engines, not to jobs."""
END_S = 10.0
"""How long `close` waits for coordinators that were told to stop."""


class Office(Protocol):
    """What a launcher tells its dispatcher; safe to call from any thread."""

    def heartbeat(self, job_id: str, epoch: int, progress: Mapping[str, Any] | None = None) -> Word:
        """See Dispatcher."""
        ...

    def report(self, report: Report) -> None:
        """See Dispatcher."""
        ...


@dataclass(slots=True)
class _Run:
    """One run. Everything but `stream` belongs to the loop's thread."""

    job_id: str
    epoch: int
    stream: ray.ObjectRefGenerator
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    """As in Whereabouts, once the run has said it."""
    task: asyncio.Task[None] | None = None
    stopping: bool = False
    fenced: bool = False

    def progress(self) -> dict[str, Any] | None:
        """What pages and terminals show; None until the first stage moved."""
        return {"stages": list(self.stages.values()), **self.where} if self.stages else None


class RayLauncher:
    """Launches jobs as Ray tasks owned by this process: they end when it dies."""

    def __init__(self, settings: Settings, work: Callable[[Job], coordinator.Work] | None = None) -> None:
        """`settings` has absolute paths that are valid on every node; `work` replaces what is made of a job."""
        # A coordinator reports to the dispatcher and never touches the database, so it does not learn where that is.
        known = settings.without_secrets()
        self._work = work or (lambda job: QueuedJob(job.id, job.request, known))
        self._office: Office | None = None
        self._runs: dict[tuple[str, int], _Run] = {}
        self._gone: list[tuple[str, int, str]] = []
        self._mutex = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="launcher", daemon=True)
        self._thread.start()

    def report_to(self, office: Office) -> None:
        """The dispatcher to report to; before the first launch."""
        self._office = office

    # --- the Launcher protocol ----------------------------------------------------------------------------------------

    def capacity(self) -> Mapping[str, int]:
        """Job slots of the nodes that are alive."""
        try:
            nodes = ray.nodes()
        except RayError as error:
            log.warning("The nodes of the cluster are not known: %s", error)
            return {}
        return {POOL: round(sum(node["Resources"].get("job_slot", 0) for node in nodes if node["Alive"]))}

    def launch(self, job: Job, epoch: int) -> None:
        """Start the coordinator of a job. Raises ClusterError."""
        try:
            stream = coordinator.submit(self._work(job))
        except RayError as error:
            raise ClusterError(detail=f"the job's process could not be started ({error})") from error
        run = _Run(job.id, epoch, stream)
        with self._mutex:
            self._runs[job.id, epoch] = run
        self._loop.call_soon_threadsafe(self._begin, run)

    def cancel(self, job_id: str, epoch: int, *, force: bool) -> None:
        """Stop a run as `ray.cancel` does, or kill its process, which takes its leaf tasks and ffmpeg along."""
        with self._mutex:
            run = self._runs.get((job_id, epoch))
        if run is None:
            return
        if force:
            run.fenced = True  # whoever forces an end has written it down, or has lost the job
            ray.cancel(run.stream, force=True, recursive=True)
        else:
            self._loop.call_soon_threadsafe(self._stop, run)

    def poll(self) -> Sequence[tuple[str, int, str]]:
        """Runs that ended by a defect; all others report."""
        with self._mutex:
            gone, self._gone = self._gone, []
        return gone

    def close(self) -> None:
        """Stop all runs, then the loop."""
        ended = asyncio.run_coroutine_threadsafe(self._stop_all(), self._loop)
        try:
            ended.result(END_S)
        except TimeoutError:
            log.warning("Some coordinators did not end within %.0f s.", END_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_S)
        if not self._thread.is_alive():
            self._loop.close()

    # --- in the loop --------------------------------------------------------------------------------------------------

    def _begin(self, run: _Run) -> None:
        run.task = self._loop.create_task(self._follow(run))
        run.task.add_done_callback(lambda task: self._ended(run, task))

    def _stop(self, run: _Run) -> None:
        # Once: a second cancellation would break off the wait for the coordinator's end.
        if run.task is not None and not run.stopping:
            run.stopping = True
            run.task.cancel()

    async def _stop_all(self) -> None:
        for run in list(self._runs.values()):
            self._stop(run)
        await asyncio.gather(*(run.task for run in self._runs.values() if run.task), return_exceptions=True)

    async def _follow(self, run: _Run) -> None:
        assert self._office is not None
        office = self._office

        def note(progress: Progress) -> None:
            facts = asdict(progress) | {"stage": progress.stage.value}
            run.where = facts.pop("where") or run.where
            run.stages[f"{progress.stage.value} {progress.target}"] = facts

        def beat() -> None:
            word = office.heartbeat(run.job_id, run.epoch, run.progress())
            if word != "go on":
                run.fenced = run.fenced or word == "fenced"
                self._stop(run)

        report = await self._outcome(run, note, beat)
        if not run.fenced:
            office.heartbeat(run.job_id, run.epoch, run.progress())
            office.report(report)

    async def _outcome(self, run: _Run, note: Callable[[Progress], None], beat: Callable[[], None]) -> Report:
        try:
            result: JobResult = await coordinator.follow(run.stream, note, beat)
        except (asyncio.CancelledError, StoppedError):
            return Report(run.job_id, run.epoch, "stopped", {"detail": "its task was cancelled"})
        except JobBusyError as error:
            log.info("Job %s waits: %s", run.job_id, error.message)
            return Report(run.job_id, run.epoch, "postponed")
        except ClusterError as error:
            return Report(run.job_id, run.epoch, "crashed", {"detail": error.message})
        except DubbingError as error:
            return Report(run.job_id, run.epoch, "failed", error.as_dict())
        warned = result.state == "done_with_warnings"
        return Report(run.job_id, run.epoch, "finished", result_data(result), warned=warned)

    def _ended(self, run: _Run, task: asyncio.Task[None]) -> None:
        defect = None if task.cancelled() else task.exception()
        with self._mutex:
            del self._runs[run.job_id, run.epoch]
            if (task.cancelled() or defect) and not run.fenced:
                self._gone.append((run.job_id, run.epoch, repr(defect) if defect else "it was cancelled"))
        if defect is not None:
            log.error("Run %s of job %s broke.", run.epoch, run.job_id, exc_info=defect)
