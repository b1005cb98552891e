"""Resumable uploads: a tus 1.0.0 server (creation, checksum, expiration, termination)."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from dubbing.errors import DubbingError, EmptyFileError, UsageError
from dubbing.jobs import TERMINAL
from dubbing.store import Upload
from dubbing.store.uploads import KEPT_MS
from dubbing.upload_errors import TusVersionError, UploadOffsetError, UploadTooLargeError
from dubbing.web.arrivals import ALGORITHMS, Checksum, remove
from dubbing.web.errors import problem
from dubbing.web.identity import Visitor, Writer
from dubbing.web.office import Desk, Office
from dubbing.web.results import folder_of, kept_bytes

VERSION = "1.0.0"
HEADERS = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
ABILITIES = {
    "Tus-Version": VERSION,
    "Tus-Extension": "creation,checksum,expiration,termination",
    "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
}
MOST_METADATA = 4096
LONGEST_NAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
JOBS_COUNTED = 10_000


class TusRoute(APIRoute):
    """Every answer of these routes speaks tus: refusals name the version, and a wrong offset the right one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except DubbingError as error:
                response = problem(error)
                if isinstance(error, UploadOffsetError):
                    response.headers["Upload-Offset"] = str(error.facts["offset"])
                if isinstance(error, TusVersionError):
                    response.headers["Tus-Version"] = VERSION
            response.headers.update(HEADERS)
            return response

        return answer


router = APIRouter(prefix="/api/v1/uploads", route_class=TusRoute)


@router.options("", status_code=204)
def abilities(_visitor: Writer) -> Response:
    """What this server can do."""
    return Response(status_code=204, headers=ABILITIES)


@router.post("", status_code=201)
def begin(request: Request, desk: Desk, visitor: Writer) -> Response:
    """Begin an upload: `Upload-Length` in bytes, `Upload-Metadata` with a filename.

    Raises UsageError, EmptyFileError, QuotaError, UploadRoomError.
    """
    _check_version(request)
    size = _number(request, "Upload-Length")
    name = file_name(request.headers.get("upload-metadata", ""))
    if not size:
        raise EmptyFileError(name=name)
    upload = reserve(desk, visitor, name, size)
    return Response(status_code=201, headers={"Location": f"/api/v1/uploads/{upload.id}", **_facts(upload, 0)})


def reserve(desk: Office, visitor: Visitor, name: str, size: int) -> Upload:
    """Begin an upload if the user's quota and the disk have room for all of it. Raises QuotaError, UploadRoomError."""
    desk.arrivals.sweep(desk.store, desk.uploads, desk.films)
    quota = visitor.user.quota_mb * 1_000_000 or None
    return desk.store.add_upload(
        visitor.user.id,
        name,
        size,
        room=desk.arrivals.room(desk.uploads),
        quota=quota,
        kept=_results_bytes(desk, visitor) if quota else 0,
    )


@router.head("/{upload_id}")
def how_far(request: Request, desk: Desk, visitor: Writer, upload_id: str) -> Response:
    """Where to go on. Raises NotFoundError."""
    _check_version(request)
    upload = desk.store.upload(visitor.user.id, upload_id)
    name = base64.b64encode(upload.name.encode()).decode()
    facts = {"Upload-Length": str(upload.size), "Upload-Metadata": f"filename {name}"}
    return Response(headers=facts | _facts(upload, offset_of(upload, desk.uploads)))


@router.patch("/{upload_id}", status_code=204)
async def append(request: Request, desk: Desk, visitor: Writer, upload_id: str) -> Response:
    """Take the next piece in, straight to the disk.

    Raises NotFoundError, UploadOffsetError, UploadBusyError, UploadInUseError, ChecksumError, UploadTooLargeError,
    UploadRoomError.
    """
    _check_version(request)
    if request.headers.get("content-type") != "application/offset+octet-stream":
        raise UsageError(detail="A piece of an upload has the Content-Type application/offset+octet-stream")
    asked, checksum = _number(request, "Upload-Offset"), _checksum(request)
    async with desk.arrivals.hold(desk.store, desk.uploads, visitor.user.id, upload_id) as arrival:
        upload = arrival.upload
        if asked != arrival.offset:
            raise UploadOffsetError(offset=arrival.offset, asked=asked)
        length = request.headers.get("content-length", "0")
        if re.fullmatch(r"[0-9]+", length) and int(length) > upload.size - arrival.offset:
            raise UploadTooLargeError(limit=upload.size)
        await arrival.receive(request.stream(), checksum)
        return Response(status_code=204, headers=_facts(upload, arrival.offset))


@router.delete("/{upload_id}", status_code=204)
async def cancel(request: Request, desk: Desk, visitor: Writer, upload_id: str) -> Response:
    """Forget an upload and its bytes. Raises NotFoundError, UploadInUseError once a job has it."""
    _check_version(request)
    async with desk.arrivals.hold(desk.store, desk.uploads, visitor.user.id, upload_id, at_once=True) as arrival:
        await asyncio.to_thread(remove, desk.store, desk.uploads, desk.films, arrival.upload)
    return Response(status_code=204)


def offset_of(upload: Upload, folder: Path) -> int:
    """Bytes of an upload that are surely here: what the row says, unless the file lost some."""
    if upload.taken:
        return upload.size
    try:
        return min(upload.received, (folder / upload.id).stat().st_size)
    except FileNotFoundError:
        return 0


def file_name(metadata: str) -> str:
    """The filename of an `Upload-Metadata` header as a page may show it. Raises UsageError."""
    if len(metadata) > MOST_METADATA:
        raise UsageError(detail=f"Upload-Metadata is longer than {MOST_METADATA} characters")
    pairs = (pair.strip().partition(" ") for pair in metadata.split(","))
    found = {key: value for key, _, value in pairs}
    try:
        raw = base64.b64decode(found.get("filename", "").strip(), validate=True).decode(errors="replace")
    except ValueError:
        raise UsageError(detail="The filename of Upload-Metadata is not base64") from None
    return shown_name(raw)


def shown_name(raw: str) -> str:
    """What its owner calls a file, as a page may show it: without folders and what cannot be seen."""
    return PurePosixPath(_CONTROL.sub("", raw).replace("\\", "/")).name[:LONGEST_NAME].strip() or "video"


def _facts(upload: Upload, offset: int) -> dict[str, str]:
    facts = {"Upload-Offset": str(offset)}
    if not upload.taken:
        # a piece lengthens the life of an upload, so the row that was read first tells the least
        facts["Upload-Expires"] = formatdate((upload.used_ms + KEPT_MS) / 1000, usegmt=True)
    return facts


def _results_bytes(desk: Office, visitor: Visitor) -> int:
    """Bytes of a user's dubs, each folder once."""
    jobs = desk.store.jobs(visitor.actor, view="mine", states=TERMINAL, limit=JOBS_COUNTED)
    folders = {folder for job in jobs if (folder := folder_of(job))}
    return sum(map(kept_bytes, folders))


def _check_version(request: Request) -> None:
    found = request.headers.get("tus-resumable", "no version")
    if found != VERSION:
        raise TusVersionError(version=found)


def _number(request: Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise UsageError(detail=f"The header {header} must be a number of bytes, not {text[:40]!r}")
    return int(text)


def _checksum(request: Request) -> Checksum | None:
    text = request.headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, encoded = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise UsageError(detail=f"Upload-Checksum knows {' and '.join(ALGORITHMS)}, not {algorithm[:20]!r}")
    try:
        return Checksum(algorithm, base64.b64decode(encoded, validate=True))
    except ValueError:
        raise UsageError(detail="Upload-Checksum is not base64") from None
