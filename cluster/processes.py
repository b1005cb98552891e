"""Which processes belong to a private Ray, so that none of them is left behind."""

from __future__ import annotations

import contextlib
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


def of_ray_in(folder: Path) -> list[Process]:
    """Processes of the Ray that keeps its files in `folder`, whoever started them. Empty where there is no /proc.

    They are told by their command line, or, once they have written their name over that, by the logs they have open.
    """
    found, resolved = [], folder.resolve()
    for place in PROC.glob("[0-9]*"):
        pid = int(place.name)
        facts, command = _look(pid), _command(pid)
        started_there = "/ray/" in command and str(folder) in command
        named = facts.get("name", "").startswith("ray::")
        if facts and (started_there or (named and any(one.is_relative_to(resolved) for one in _open_files(place)))):
            found.append(Process(pid, facts["started"]))
    return [process for process in found if process.runs()]


def end(processes: list[Process], patience_s: float) -> None:
    """Wait for the processes to end; kill those that have not after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while any(process.runs() for process in processes):
        if time.monotonic() > deadline:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
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
        name, _, rest = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return {}
    fields = rest.split()
    return {"name": name.partition("(")[2], "state": fields[0], "parent": fields[1], "started": fields[19]}


def _open_files(place: Path) -> list[Path]:
    files = []
    with contextlib.suppress(OSError):  # it ended, or is somebody else's
        for link in (place / "fd").iterdir():
            with contextlib.suppress(OSError):
                files.append(link.readlink())
    return files


def _command(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
