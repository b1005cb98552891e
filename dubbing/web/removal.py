"""Forgetting a job: its row, its results and its upload, unless another job has them too."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from dubbing.artifacts import JobFolder, Names
from dubbing.errors import JobBusyError
from dubbing.jobs import Actor, Job
from dubbing.web.office import Office
from dubbing.web.results import folder_of


def remove(desk: Office, actor: Actor, job_id: str) -> None:
    """Delete an ended job with its files and its upload. Raises NotFoundError, StateConflictError.

    The row goes first: files without a row are only garbage, a row without files would be a broken job.
    """
    job = desk.store.job(actor, job_id)
    desk.store.delete(actor, job_id)
    folder, source = folder_of(job), str(job.request.get("source", ""))
    if folder is not None and not _is_anothers(desk, job, folder):
        _remove_results(desk, JobFolder(folder))
    upload = Path(source).parent
    if upload.parent == desk.films and not desk.store.is_named("request", "source", source):
        shutil.rmtree(upload, ignore_errors=True)
        desk.store.forget_upload(upload.name)  # it would count against the quota until it is swept


def _is_anothers(desk: Office, job: Job, folder: Path) -> bool:
    """Whether somebody else has results in a folder: a job that is left, or a run of no job if this one has none."""
    report, named = Names(folder).report, desk.store.is_named
    if not job.result and report.exists():
        return True
    return named("result", "report", str(report)) or named("progress", "folder", str(folder))


def _remove_results(desk: Office, folder: JobFolder) -> None:
    """Remove a folder of ours: it lies below the output and has its own mark. Nothing else is ever removed."""
    below = folder.path.resolve().is_relative_to(desk.settings.output_dir)
    if below and (folder.work / "job.json").is_file():
        # another job over the same film may be at work in there
        with contextlib.suppress(JobBusyError), folder.lock():
            shutil.rmtree(folder.path, ignore_errors=True)
