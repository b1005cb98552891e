"""What a dispatcher and the launcher of its runs say to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from dubbing.jobs import Ask, Job

Word = Literal["go on", "cancel", "pause", "fenced"]
"""Answer to a heartbeat. fenced: the run is not the job's any more; stop at once and write nothing."""


class Launcher(Protocol):
    """Starts and stops the program that runs one job."""

    def capacity(self) -> Mapping[str, int]:
        """How many jobs each pool can run at once, all dispatchers together."""
        ...

    def launch(self, job: Job, epoch: int) -> None:
        """Start a run and return at once; it reports to the dispatcher. Raises DubbingError when it cannot start."""
        ...

    def cancel(self, job_id: str, epoch: int, *, force: bool) -> None:
        """Stop a run: politely, or with force. A run that is gone is no error."""
        ...

    def poll(self) -> Sequence[tuple[str, int, str]]:
        """Runs whose program ended without a report, as (job id, epoch, what is known), each told once."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended."""

    job_id: str
    epoch: int
    kind: Literal["finished", "failed", "crashed", "stopped", "postponed"]
    """stopped: ended because its user asked it to. postponed: could not begin now, which is no attempt of the job's."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """finished: the result; failed: `DubbingError.as_dict()`; crashed: `detail`."""
    warned: bool = False
    """finished: with warnings."""


@dataclass(slots=True)
class Run:
    """A run this dispatcher launched; times are seconds of the monotonic clock."""

    job: Job
    heard_at: float
    moved_at: float
    """Last change of its progress."""
    index_at: float
    """Last renewal in the queue."""
    row_at: float
    asked: Ask | None = None
    asked_at: float = 0.0
    cancels: int = 0
    """0: only asked, 1: launcher told, 2: with force."""
    progress: Mapping[str, Any] | None = None
    saved_progress: Mapping[str, Any] | None = None
    fenced: bool = False
    begun: bool = False
    """Was heard of; before that it may wait for a process to run in."""
