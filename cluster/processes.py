"""Which processes belong to a private Ray, so that none of them is left behind."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: str
    """Start time in clock ticks since boot, as /proc tells it."""

    def runs(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return _look(self.pid).get("started") == self.started and _look(self.pid).get("state") != "Z"


def of_folder(folder: Path) -> list[Process]:
    """Our children with `folder` in their command line, and everything below them. Empty where there is no /proc."""
    known = {int(p.name): _look(int(p.name)) for p in PROC.glob("[0-9]*")}
    children: dict[int, list[int]] = {}
    for pid, facts in known.items():
        children.setdefault(int(facts.get("parent", "0")), []).append(pid)
    waiting = [pid for pid in children.get(os.getpid(), []) if str(folder) in _command(pid)]
    found: list[Process] = []
    while waiting:
        pid = waiting.pop()
        found.append(Process(pid, known[pid]["started"]))
        waiting += children.get(pid, [])
    return found


def end(processes: list[Process], patience_s: float) -> None:
    """Wait for the processes to end; kill those that have not after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while any(process.runs() for process in processes):
        if time.monotonic() > deadline:
            for process in processes:
                if process.runs():
                    os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process of that number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _look(pid: int) -> dict[str, str]:
    try:
        # The name in brackets may itself hold spaces and brackets; what follows the last one is fixed.
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return {}
    return {"state": fields[0], "parent": fields[1], "started": fields[19]}


def _command(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
