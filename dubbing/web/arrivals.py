"""Bytes on their way in: one file per upload, one writer at a time, and nothing kept that was not accepted.

A row says what was accepted after it was written; what else lies in the file after a crash is cut off, and what the disk
lost is asked for again. A job waits until its film is flushed (new_dub.take), a sender does not: the disk would set the pace.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import ClientDisconnect

from dubbing.errors import NotFoundError
from dubbing.store import Store, Upload
from dubbing.upload_errors import ChecksumError, UploadBusyError, UploadInUseError, UploadRoomError, UploadTooLargeError

BUFFER = 1 << 20
"""Bytes that are written at once, in a thread, while the next ones arrive."""
MOST_PIECES = 512
"""How many pieces a single system call takes, with room to spare (IOV_MAX is 1024)."""
RESERVE = 1 << 30
"""Bytes of the disk that uploads leave to dubs."""
SWEEP_S = 600.0
ALGORITHMS = ("sha1", "sha256")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a piece must come to."""

    algorithm: str
    """One of ALGORITHMS."""
    digest: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is waited for senders, and how much a crash may cost."""

    stale_s: float = 5.0
    """A sender from whom nothing came for this long gives way to another: phones change networks without a word."""
    idle_s: float = 60.0
    """A sender from whom nothing came for this long is given up."""
    accept_bytes: int = 64 << 20
    """How often a long piece is noted, bytes; a crash costs no more."""


class Arrival:
    """An upload that this process has locked. The kernel frees it on kill -9."""

    def __init__(self, store: Store, folder: Path, user_id: str, upload_id: str, limits: Limits) -> None:
        """Lock and open; blocks. Raises NotFoundError, UploadBusyError."""
        self._store = store
        self._limits = limits
        self._writes = threading.Lock()
        self._fd = os.open(folder / upload_id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.upload = store.upload(user_id, upload_id)
        except BlockingIOError:
            os.close(self._fd)
            raise UploadBusyError from None
        except NotFoundError:  # it was cancelled a moment ago
            (folder / upload_id).unlink(missing_ok=True)
            os.close(self._fd)
            raise
        self.offset = self._position = min(self.upload.received, os.fstat(self._fd).st_size)
        """Bytes accepted; after a crash the file may have more or less than the row says."""
        self.gone = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._moved = time.monotonic()
        self._pieces: list[bytes] = []
        self._held = 0
        self._writing: asyncio.Future[None] | None = None
        self._hash = hashlib.sha256()
        self._checksum: Checksum | None = None

    @property
    def idle_s(self) -> float:
        """Seconds since something came."""
        return time.monotonic() - self._moved

    def stop(self) -> None:
        """End the receiving; what came is accepted, unless a checksum was to be kept."""
        if self._pump is not None:
            self._pump.cancel()

    @property
    def waiting(self) -> int:
        """Bytes that came and are not yet on their way to the disk."""
        return self._held

    def close(self) -> None:
        """Let others have it."""
        with self._writes:  # no thread may go on with a number that means another file then
            os.close(self._fd)
            self._fd = -1
        self.gone.set()

    async def receive(self, stream: AsyncIterator[bytes], checksum: Checksum | None) -> None:
        """Take a piece in, until it or its connection ends; `offset` tells what was accepted.

        Raises ChecksumError, UploadTooLargeError, UploadRoomError.
        """
        self._checksum = checksum
        self._hash = hashlib.new(checksum.algorithm if checksum else "sha256", usedforsecurity=False)
        await asyncio.to_thread(self._cut)
        self._pump = asyncio.create_task(self._read(stream))
        try:
            while not self._pump.done():
                await asyncio.wait({self._pump}, timeout=self._limits.idle_s)
                if self.idle_s > self._limits.idle_s:
                    self._pump.cancel()
        finally:
            self._pump.cancel()
            await asyncio.wait({self._pump})
            await self._finish(self._pump)

    async def _read(self, stream: AsyncIterator[bytes]) -> None:
        async for piece in stream:
            self._moved = time.monotonic()
            self._pieces.append(piece)
            self._held += len(piece)
            if self._held >= BUFFER or len(self._pieces) >= MOST_PIECES:
                await self._written()
                pieces, self._pieces, self._held = self._pieces, [], 0
                self._writing = asyncio.ensure_future(asyncio.to_thread(self._write, pieces))

    async def _written(self) -> None:
        """Wait for the thread, whose error is raised here."""
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    async def _finish(self, pump: asyncio.Task[None]) -> None:
        broken = pump.cancelled() or isinstance(pump.exception(), ClientDisconnect)
        failure = None if broken else pump.exception()
        if self._writing is not None:
            await asyncio.wait({self._writing})
            failure = failure or self._writing.exception()
        if failure is not None:
            self._pieces = []  # they would follow a gap
        await asyncio.to_thread(self._end, not broken and failure is None)
        if failure is not None:
            raise failure

    # --- in threads ----------------------------------------------------------------------------------------------

    def _write(self, pieces: list[bytes]) -> None:
        if self._position + sum(map(len, pieces)) > self.upload.size:
            raise UploadTooLargeError(limit=self.upload.size)
        with self._writes:
            for piece in pieces if self._checksum else ():
                self._hash.update(piece)
            while pieces:
                try:
                    written = os.pwritev(self._fd, pieces, self._position)
                except OSError as error:
                    if error.errno not in _NO_ROOM:
                        raise
                    left = self.upload.size - self._position
                    raise UploadRoomError(free_mb=0, need_mb=-(-left // 1_000_000)) from error
                self._position += written
                rest = b"" if written == sum(map(len, pieces)) else b"".join(pieces)[written:]
                pieces = [rest] if rest else []
        if not self._checksum and self._position - self.offset >= self._limits.accept_bytes:
            self._accept()

    def _end(self, whole: bool) -> None:
        """Write what is left and accept the piece; one whose checksum is wrong or unknown is cut off."""
        pieces, self._pieces, self._held = self._pieces, [], 0
        right = self._checksum is None
        try:
            if pieces:
                self._write(pieces)
            if self._checksum is not None and whole:
                right = self._hash.digest() == self._checksum.digest
                if not right:
                    raise ChecksumError(algorithm=self._checksum.algorithm)
        finally:
            if right:
                self._accept()
            else:
                self._cut()

    def _accept(self) -> None:
        if self._position > self.offset:
            self._store.note_received(self.upload.id, self._position)
            self.offset = self._position

    def _cut(self) -> None:
        with self._writes:
            os.ftruncate(self._fd, self.offset)
            self._position = self.offset


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the disk of a folder."""
    return shutil.disk_usage(folder).free


@dataclass
class Arrivals:
    """What this process is receiving."""

    free: Callable[[Path], int] = free_bytes
    limits: Limits = Limits()
    open: dict[str, Arrival] = field(default_factory=dict)
    """By upload id."""
    _swept: float = -SWEEP_S

    def room(self, folder: Path) -> int:
        """Bytes that all open uploads together may still bring."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return max(0, self.free(folder) - RESERVE)

    @asynccontextmanager
    async def hold(
        self, store: Store, folder: Path, user_id: str, upload_id: str, *, at_once: bool = False
    ) -> AsyncIterator[Arrival]:
        """Lock an upload of this user; a sender who fell silent (`at_once`: any sender) gives way.

        Raises NotFoundError, UploadBusyError, UploadInUseError once a job has it.
        """
        upload = await asyncio.to_thread(store.upload, user_id, upload_id)
        if upload.taken:
            raise UploadInUseError(name=upload.name)
        other = self.open.get(upload_id)
        if other is not None and (at_once or other.idle_s > self.limits.stale_s):
            other.stop()
            await other.gone.wait()
        arrival = await asyncio.to_thread(Arrival, store, folder, user_id, upload_id, self.limits)
        self.open[upload_id] = arrival
        try:
            yield arrival
        finally:
            del self.open[upload_id]
            arrival.close()

    def sweep(self, store: Store, folder: Path, films: Path) -> int:
        """Remove uploads that have ended, at most once in ten minutes; how many."""
        if time.monotonic() - self._swept < SWEEP_S:
            return 0
        self._swept = time.monotonic()
        stale = store.stale_uploads()
        for upload in stale:
            remove(store, folder, films, upload)
        return len(stale)


def remove(store: Store, folder: Path, films: Path, upload: Upload) -> None:
    """Forget an upload with its bytes, wherever they lie."""
    (folder / upload.id).unlink(missing_ok=True)
    shutil.rmtree(films / upload.id, ignore_errors=True)
    store.forget_upload(upload.id)
