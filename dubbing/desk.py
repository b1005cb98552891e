"""What the commands ask for, wherever the jobs are: of this machine's own database, or of a server over HTTP.

A job is told as facts, JSON data with the same keys everywhere. Only paths differ: a server names its files, it does not
say where they lie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

from dubbing.errors import NotFoundError, UsageError
from dubbing.line_edits import Change
from dubbing.types import DubRequest, Progress, Stage

Facts = Mapping[str, Any]
"""A job: id, state, user, source, targets, priority, attempt, crash_count, asked, progress, result, error, times in ms."""
MOST_FOUND = 200
"""How many jobs that begin alike are counted."""
DONE = ("done", "done_with_warnings")
ENDED = (*DONE, "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Order:
    """A dub that is asked for, and when it may run."""

    request: DubRequest
    targets: tuple[str, ...]
    """Checked, each once."""
    priority: int
    """0..100, higher first."""
    user: str
    """Whose job it is."""
    run_at_ms: int = 0
    """Not before this time, since 1970; 0 for at once."""


class Desk(Protocol):
    """Where commands find jobs. Every method raises the errors of errors.py."""

    @property
    def look_s(self) -> float:
        """Seconds between two looks at a job that is watched."""

    @property
    def reason(self) -> str:
        """Which queue a submitted job waits in, and why."""

    def submit(self, order: Order) -> Facts:
        """Put a job in line."""

    def job(self, job_id: str) -> Facts:
        """One job. Raises NotFoundError."""

    def jobs(self, *, limit: int, beginning: str = "") -> Sequence[Facts]:
        """The newest jobs first; those whose id begins so."""

    def cancel(self, job_id: str) -> Facts:
        """End a waiting job, ask a running one to stop. Raises NotFoundError, StateConflictError."""

    def retry(self, job_id: str) -> Facts:
        """Put an ended job back in line. Raises as `cancel`."""

    def pause(self, job_id: str) -> Facts:
        """Take a job out of the line. Raises as `cancel`."""

    def resume(self, job_id: str) -> Facts:
        """Put a paused job back in line. Raises as `cancel`."""

    def switch(self, user: str | None, *, paused: bool) -> None:
        """Pause all jobs, or those of one user, or let them go on. Raises NotFoundError, ForbiddenError."""

    def queue(self) -> Mapping[str, Any]:
        """reason, in_charge, alive, jobs, settings, warnings."""

    def lines(self, job: Facts, tag: str) -> Mapping[str, Any]:
        """target, version, voices and lines of a dub that is finished. Raises NotFoundError, EditsFileError."""

    def change_lines(self, job: Facts, tag: str, changes: Mapping[int, Change]) -> None:
        """Save changes of lines, all or none. Raises NotFoundError, LineEditError, LineLockedError, EditsFileError."""

    def bring(self, job: Facts, names: Sequence[str], folder: Path, told: Callable[[str, int, int], None]) -> None:
        """Put results of a job into a folder, each as a whole or not at all; `told` hears name, bytes so far and in all."""


def find(at: Desk, text: str) -> Facts:
    """The job of an id or of its first digits. Raises NotFoundError, UsageError when several begin so."""
    if not re.fullmatch(r"[0-9a-f]{4,31}", text):
        return at.job(text)
    found = at.jobs(limit=MOST_FOUND, beginning=text)
    if len(found) > 1:
        raise UsageError(detail=f"{len(found)} jobs begin with {text}; give more digits")
    if not found:
        raise NotFoundError(what=f"job {text}")
    return found[0]


def dub_of(job: Facts, tag: str | None) -> str:
    """The language of the finished dub that is meant. Raises UsageError, NotFoundError."""
    targets = job["targets"]
    chosen = tag or (targets[0] if len(targets) == 1 else None)
    if chosen is None:
        raise UsageError(detail=f"Say which dub is meant: --to {' or --to '.join(targets)}")
    if chosen not in targets or not (job["result"] or {}).get("report"):
        raise NotFoundError(what=f"finished dub of job {job['id'][:8]} into {chosen}")
    return str(chosen)


def stages_of(progress: Mapping[str, Any] | None) -> list[Progress]:
    """The stages in the progress of a job or an event."""
    stages = (progress or {}).get("stages", ())
    return [Progress(**{**stage, "stage": Stage(stage["stage"])}) for stage in stages]


def result_names(job: Facts, tag: str | None) -> dict[str, list[str]]:
    """Names of the results of a job by language, of one language if it is named. Raises NotFoundError."""
    files: Mapping[str, Sequence[str]] = (job["result"] or {}).get("files", {})
    if tag is not None and tag not in files:
        raise NotFoundError(what=f"finished dub of job {job['id'][:8]} into {tag}")
    return {each: [PurePath(path).name for path in paths] for each, paths in files.items() if tag in (None, each)}
