"""Bringing results here: each file grows beside its place under a name that says which version it is, and is put in
place when it is whole. What a server calls a file never leads out of the folder.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dubbing.errors import DiskFullError, NotFoundError, UsageError
from dubbing.remote.server import Server
from dubbing.remote.uploads import FIRST_WAIT_S, LONGEST_WAIT_S, MOST_FAILURES, Told
from dubbing.remote_errors import ServerForeignError, ServerUnreachableError

BLOCK = 1 << 20
"""Bytes that are read and written at once."""
LONGEST_NAME = 200
"""Bytes; the name of a file that grows has some more, and a folder takes 255."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A result on the server."""

    name: str
    size: int
    """Bytes."""
    changed_ms: int
    """Since 1970."""

    def is_at(self, path: Path) -> bool:
        """Whether this very version lies there."""
        if path.is_symlink() or not path.is_file():
            return False
        found = path.stat()
        return (found.st_size, found.st_mtime_ns // 1_000_000) == (self.size, self.changed_ms)


class Fetcher:
    """Downloads results of one job."""

    def __init__(self, server: Server, told: Told, sleep: Callable[[float], None] = time.sleep) -> None:
        self._server, self._told, self._sleep = server, told, sleep

    def fetch(self, job_id: str, names: list[str], folder: Path) -> None:
        """Put files of a job into a folder. Raises NotFoundError, ServerForeignError, and as Server.json."""
        for name in names:
            check_name(self._server.url, name)
        listed = self._server.json("GET", f"/jobs/{job_id}/files")
        found = {file.name: file for file in (self._remote(facts) for facts in _files(self._server.url, listed))}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(detail=f"The folder {folder} cannot be made ({error.strerror})") from error
        for name in names:
            if name not in found:
                raise NotFoundError(what=f"file named {name}")
            self._one(job_id, found[name], folder)

    def _remote(self, facts: Mapping[str, Any]) -> Remote:
        try:
            return Remote(str(facts["name"]), int(facts["size"]), int(facts["changed_ms"]))
        except (KeyError, TypeError, ValueError):
            raise ServerForeignError(url=self._server.url, detail="its list of files lacks something") from None

    def _one(self, job_id: str, file: Remote, folder: Path) -> None:
        place = folder / file.name
        if file.is_at(place):
            self._told(file.name, file.size, file.size)
            return
        half = folder / f".{file.name}.{file.size}-{file.changed_ms}.part"
        half.touch()
        failures = 0
        while (have := half.stat().st_size) < file.size:
            _check_room(folder, file.size - have)
            try:
                self._go_on(f"/jobs/{job_id}/files/{quote(file.name, safe='')}", file, half, have)
            except ServerUnreachableError:
                if failures >= MOST_FAILURES:
                    raise
            failures = 0 if half.stat().st_size > have else failures + 1
            if failures > MOST_FAILURES:
                raise ServerUnreachableError(url=self._server.url, detail="it sends nothing more of a file")
            if failures:
                self._sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**failures))
        os.utime(half, ns=(time.time_ns(), file.changed_ms * 1_000_000))
        half.replace(place)
        earlier = re.compile(rf"\.{re.escape(file.name)}\.[0-9]+-[0-9]+\.part")
        for other in folder.iterdir():
            if earlier.fullmatch(other.name):
                other.unlink()

    def _go_on(self, path: str, file: Remote, half: Path, have: int) -> None:
        """Take in what is missing, as far as the connection lasts."""
        headers = {"Accept": "*/*"}
        if have:
            date = formatdate(file.changed_ms // 1000, usegmt=True)
            headers |= {"Range": f"bytes={have}-", "If-Range": date}
        with self._server.open("GET", path, headers) as response, half.open("ab") as opened:
            whole = response.getheader("Content-Length")
            if response.status == http.client.PARTIAL_CONTENT:
                whole = self._whole(response.getheader("Content-Range", ""), have)
            else:
                opened.truncate(0)
                have = 0
            if whole != str(file.size):
                raise ServerForeignError(url=self._server.url, detail=f"{file.name} was changed while it was fetched")
            while block := self._block(response, min(BLOCK, file.size - have)):
                opened.write(block)
                have += len(block)
                self._told(file.name, have, file.size)

    def _block(self, response: http.client.HTTPResponse, size: int) -> bytes:
        try:
            return response.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnreachableError(url=self._server.url, detail="the download was cut") from error

    def _whole(self, text: str, have: int) -> str:
        found = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", text)
        if found is None or int(found[1]) != have:
            raise ServerForeignError(url=self._server.url, detail="it sends another part of a file than was asked for")
        return found[2]


def check_name(url: str, name: str) -> None:
    """A name that is one, and nothing else. Raises ServerForeignError."""
    plain = name.isprintable() and not name.startswith(".") and not {"/", "\\"} & set(name)
    if not name or not plain or len(name.encode()) > LONGEST_NAME:
        raise ServerForeignError(url=url, detail=f"it calls a file {name[:40]!r}")


def _files(url: str, listed: Any) -> list[Mapping[str, Any]]:
    files = listed.get("files") if isinstance(listed, dict) else None
    if not isinstance(files, list) or not all(isinstance(facts, dict) for facts in files):
        raise ServerForeignError(url=url, detail="its list of files is none")
    return files


def _check_room(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DiskFullError(folder=str(folder), free_mb=free // 1_000_000, need_mb=-(-need // 1_000_000))
