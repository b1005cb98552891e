"""Sending a film in pieces (tus 1.0.0): what the server has is asked, so a cut costs one piece.

A note on this machine remembers which upload a file went into, by what the file holds, until a job has it: the same
command goes on with it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from dubbing.artifacts import file_identity, fingerprint, write_atomically
from dubbing.errors import NotFoundError
from dubbing.remote.server import Server
from dubbing.remote_errors import ServerForeignError, ServerUnreachableError
from dubbing.upload_errors import ChecksumError, UploadBusyError, UploadOffsetError

PIECE = 8 << 20
"""Bytes that are sent, hashed and accepted at once; a cut loses no more."""
MOST_FAILURES = 8
"""Pieces that fail one after another before an upload is given up, for now."""
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 4.0
NOTES_KEPT_S = 3 * 86_400
"""A server forgets an upload that nobody touched for two days."""
TUS = {"Tus-Resumable": "1.0.0"}
PASSING = (ServerUnreachableError, UploadOffsetError, UploadBusyError, ChecksumError)
_ID = re.compile(r"[0-9a-f]{32}")
Told = Callable[[str, int, int], None]
"""Hears name, bytes that have arrived, and bytes in all."""


class Sender:
    """Sends files, and remembers in `notes` how far each came."""

    def __init__(self, server: Server, notes: Path, told: Told, sleep: Callable[[float], None] = time.sleep) -> None:
        self._server, self._notes, self._told, self._sleep = server, notes, told, sleep

    def begin(self, file: Path) -> tuple[str, int]:
        """Id of the upload that the file goes into, and how many bytes of it are there: of one begun before, if there is.

        Raises FileMissingError, EmptyFileError, and as Server.json.
        """
        note = self._note(file)
        upload = _noted(note)
        if upload is not None:
            with contextlib.suppress(NotFoundError):  # the server has forgotten it
                return upload, self._offset(upload)
        upload = self._new(file.name, file.stat().st_size)
        self._forget_old()
        write_atomically(note, json.dumps({"upload": upload, "name": file.name}))
        return upload, 0

    def send(self, file: Path, upload: str, offset: int) -> None:
        """Send what is missing of a file. Raises as Server.json."""
        size, failures = file.stat().st_size, 0
        self._told(file.name, offset, size)
        with file.open("rb") as opened:
            while offset < size:
                opened.seek(offset)
                before = offset
                try:
                    offset = self._piece(upload, offset, opened.read(PIECE))
                except PASSING:
                    failures += 1
                    if failures > MOST_FAILURES:
                        raise
                    self._sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**failures))
                    offset = self._offset(upload)
                if offset > before:
                    failures = 0
                    self._told(file.name, offset, size)

    def forget(self, file: Path) -> None:
        """A job has the file: sending it again begins anew."""
        self._note(file).unlink(missing_ok=True)

    def _note(self, file: Path) -> Path:
        key = fingerprint(server=self._server.url, file=file_identity(file), name=file.name)
        return self._notes / f"{key}.json"

    def _new(self, name: str, size: int) -> str:
        encoded = base64.b64encode(name.encode(errors="replace")).decode()
        headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": f"filename {encoded}"}
        answer = self._server.ask("POST", "/uploads", headers, repeat=False)
        upload = answer.headers.get("location", "").rpartition("/")[2]
        if not _ID.fullmatch(upload):
            raise ServerForeignError(url=self._server.url, detail="it takes no uploads")
        return upload

    def _offset(self, upload: str) -> int:
        answer = self._server.ask("HEAD", f"/uploads/{upload}", TUS, repeat=True)
        return self._number(answer.headers.get("upload-offset"))

    def _piece(self, upload: str, offset: int, data: bytes) -> int:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        headers = {
            **TUS,
            "Upload-Offset": str(offset),
            "Upload-Checksum": f"sha256 {digest}",
            "Content-Type": "application/offset+octet-stream",
        }
        with self._server.open("PATCH", f"/uploads/{upload}", headers, data) as response:
            return self._number(response.getheader("Upload-Offset"))

    def _number(self, text: str | None) -> int:
        if text is None or not text.isdecimal():
            raise ServerForeignError(url=self._server.url, detail="it takes no uploads")
        return int(text)

    def _forget_old(self) -> None:
        self._notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        for note in self._notes.glob("*.json"):
            if time.time() - note.stat().st_mtime > NOTES_KEPT_S:
                note.unlink(missing_ok=True)


def _noted(note: Path) -> str | None:
    """The upload that a note names; None where there is none that can be read."""
    try:
        upload = str(json.loads(note.read_text())["upload"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return upload if _ID.fullmatch(upload) else None
