"""One dispatcher a machine, and a bell that wakes it: a lock on a file and a named pipe, both safe against crashes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from pathlib import Path

from dubbing.queue_errors import DispatcherHeldError

POLL_S = 0.2
"""How often to look where there is no bell."""


class DispatcherLock:
    """The right to dispatch from a local queue: held by one process, named in the file, dropped by the kernel."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".dispatcher.lock")
        self._file: int | None = None

    def acquire(self, holder: str) -> None:
        """Take the lock or say who has it. Raises DispatcherHeldError."""
        if self._file is not None:
            return
        file = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held_by = os.pread(file, 200, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise DispatcherHeldError(lock=self.path, holder=held_by) from error
        os.truncate(file, 0)
        os.pwrite(file, f"{holder} (pid {os.getpid()})\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        """Let another dispatcher in; calling twice is fine."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Bell:
    """A named pipe: ringing it wakes who waits, in any process; nobody listening is no error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ears: int | None = None
        self._mutex = threading.Lock()

    def ring(self) -> None:
        """Wake who waits."""
        with contextlib.suppress(OSError):  # no pipe, no listener, or a pipe full of rings: nobody needs this one
            pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(pipe, b"!")
            finally:
                os.close(pipe)

    def wait(self, timeout_s: float) -> bool:
        """Whether it rang within `timeout_s`; a ring since the last wait counts."""
        ears = self._listen()
        if ears is None:
            time.sleep(min(timeout_s, POLL_S))
            return False
        heard, _, _ = select.select([ears], [], [], timeout_s)
        if heard:
            with contextlib.suppress(BlockingIOError):
                os.read(ears, 65536)
        return bool(heard)

    def _listen(self) -> int | None:
        with self._mutex:
            if self._ears is None:
                with contextlib.suppress(OSError):  # shared folders of some virtual machines have no pipes
                    if not self._path.exists():
                        os.mkfifo(self._path, 0o600)
                    # Opened for writing too, so that the pipe never reports its end when the last ringer leaves.
                    self._ears = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
            return self._ears

    def close(self) -> None:
        """Stop listening; calling twice is fine."""
        with self._mutex:
            if self._ears is not None:
                os.close(self._ears)
                self._ears = None
