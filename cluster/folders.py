"""Temporary folders that say whose they are, so that the next start removes what a killed process left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import processes

RAY, QUEUE, API = "dub-ray", "dub-queue", "dub-api"
"""Sockets and logs of a private Ray; the queue of a command's own job; what a request of the speech API needs."""


def make(kind: str, base: Path | None = None) -> Path:
    """A new folder of this process, in `base` or where temporary files go; sweeps what dead ones left there."""
    base = base or Path(tempfile.gettempdir())
    sweep(base, kind)
    return Path(tempfile.mkdtemp(prefix=f"{kind}-{os.getpid()}-", dir=base))


@contextmanager
def temporary(kind: str) -> Iterator[Path]:
    """The same for as long as the body runs."""
    folder = make(kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(base: Path, kind: str) -> None:
    """Remove the folders of processes that are gone, and end what still writes there.

    Ray's agents outlive a raylet that was killed by a minute: so long they try to tell its head, which is gone too.
    """
    for left in base.glob(f"{kind}-*-*"):
        pid = left.name.removeprefix(f"{kind}-").partition("-")[0]
        if pid.isdigit() and not processes.alive(int(pid)):
            processes.end(processes.of_ray_in(left), 0)
            shutil.rmtree(left, ignore_errors=True)
