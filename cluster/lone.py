"""The dispatcher inside a `dub run`: the queue's own, in a thread of the command, for that command's job alone."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import ray

from cluster import folders, slots
from cluster.launcher import RayLauncher
from cluster.queued import PreparedJob
from dubbing.config import Settings
from dubbing.dispatcher import Dispatcher, new_name
from dubbing.lone import OneJobStore
from dubbing.queue.choose import Choice
from dubbing.queue.fallback_local_queue import LocalQueue
from dubbing.types import Job

END_S = 15.0


class LoneDispatcher:
    """Runs one job of the queue on the Ray this process is connected to, until `close`."""

    def __init__(self, settings: Settings, job_id: str, job: Job, folder: Path | None) -> None:
        """`job_id` names the row, `job` has every choice made; the queue lies in `folder`, else in a temporary one.

        Raises StoreError, QueueDownError.
        """
        name = new_name()
        self._folder = folders.make(folders.QUEUE, folder)
        self._store = OneJobStore(settings, job_id, name)
        queue = LocalQueue(self._folder / "queue.sqlite3")
        self._choice = Choice(queue, "fallback", "SQLite, for this command's job alone.", local=queue)
        patience_s = 60.0 * settings.engine_start_min
        self._launcher = RayLauncher(settings, work=lambda row: PreparedJob(row.id, job, patience_s))
        self._dispatcher = Dispatcher(self._store, self._choice, self._launcher, name=name)
        self._launcher.report_to(self._dispatcher)
        # It claims only for slots that are there, and where none is, an autoscaler would hear of no need for any.
        self._wanted = None if any(self._launcher.capacity().values()) else slots.ask_for_one()
        self._dispatcher.start()
        self._thread = threading.Thread(target=self._dispatcher.go_on, name="dispatcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; a job that still runs goes back in line."""
        if self._wanted is not None:
            ray.cancel(self._wanted)
        self._dispatcher.stop()
        self._thread.join(END_S)
        self._launcher.close()
        self._choice.close()
        self._store.close()
        shutil.rmtree(self._folder, ignore_errors=True)
