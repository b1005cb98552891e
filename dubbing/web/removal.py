"""Forgetting a job: its row, and its folder when no other job has its results there."""

from __future__ import annotations

import shutil
from pathlib import Path

from dubbing.jobs import Actor
from dubbing.web.office import Office


def remove(desk: Office, actor: Actor, job_id: str) -> None:
    """Delete an ended job with its files. Raises NotFoundError, StateConflictError.

    The row goes first: files without a row are only garbage, a row without files would be a broken job.
    """
    report = (desk.store.job(actor, job_id).result or {}).get("report")
    desk.store.delete(actor, job_id)
    if not report or desk.store.has_result(str(report)):
        return
    folder = Path(str(report)).parent
    # a folder of ours lies below the output and has its own marks; nothing else is ever removed
    if folder.resolve().is_relative_to(desk.settings.output_dir) and (folder / ".work" / "job.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
