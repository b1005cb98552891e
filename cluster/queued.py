"""A job of the queue as a coordinator runs it: from the request in its row to the dub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray

from cluster.clients import deployed_engines, open_engines
from cluster.coordinator import loading
from cluster.leaf import RayLeaf
from dubbing import orders, pipeline
from dubbing.artifacts import JobFolder
from dubbing.config import Settings
from dubbing.prepare import prepare
from dubbing.types import Job, JobResult, Progress, Whereabouts


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """What a coordinator needs to know of a job in the queue."""

    job_id: str
    """Id of the row."""
    request: Mapping[str, Any]
    """As in the row."""
    settings: Settings
    """With absolute paths, valid on every node."""

    async def run(self, report: Callable[[Progress], None]) -> JobResult:
        """Make the choices, of the engines the cluster hosts, and run the pipeline.

        Whoever runs a job holds its folder: two submissions of one source share the folder, and a run that lost its
        job may live on for a moment. Raises JobBusyError when somebody else holds it.
        """
        request = orders.from_json(self.request)
        patience_s = 60.0 * self.settings.engine_start_min
        engines = await deployed_engines(patience_s=patience_s, tell=loading(report))
        job = replace(await prepare(request, self.settings, engines), preview=self.settings.preview)
        return await PreparedJob(self.job_id, job, patience_s).run(report)


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job of the queue with every choice made."""

    job_id: str
    """Id of the row."""
    job: Job
    patience_s: float
    """Longest wait for an engine to come up."""

    async def run(self, report: Callable[[Progress], None]) -> JobResult:
        """Run the pipeline; its progress says where it is at work. Raises as QueuedJob."""
        ours = ray.get_runtime_context()
        where = Whereabouts(str(self.job.folder), f"{ours.get_job_id()}/{ours.get_task_id()}")
        with JobFolder(self.job.folder).lock():
            engines = await open_engines(
                self.job.engines, self.job.targets, patience_s=self.patience_s, tell=loading(report)
            )
            return await pipeline.run(
                self.job, engines, RayLeaf(self.job_id), lambda progress: report(replace(progress, where=where))
            )


def result_data(result: JobResult) -> dict[str, Any]:
    """A result as JSON data, for the row."""
    return {
        "state": result.state,
        "files": {tag: [str(path) for path in paths] for tag, paths in result.files.items()},
        "report": str(result.report),
        "warnings": list(result.warnings),
    }
