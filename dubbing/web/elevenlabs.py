"""`/v1/dubbing` in the shape of ElevenLabs, so that its clients work with another base_url. A thin cover over the jobs."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import ValidationError

from dubbing.api_errors import NotReadyError
from dubbing.errors import EmptyFileError, NotFoundError, UsageError
from dubbing.jobs import TERMINAL, Job, State
from dubbing.store import Upload
from dubbing.web import pages, removal, uploads
from dubbing.web.api_models import PLAIN
from dubbing.web.arrivals import remove
from dubbing.web.film_form import FilmForm
from dubbing.web.identity import Anyone, Visitor, Writer
from dubbing.web.office import Desk, Office
from dubbing.web.results import File, Results
from dubbing.web.submission import BITS_PER_MS, JobFields, submit

router = APIRouter(prefix="/v1/dubbing", include_in_schema=False)
DubbingId = Annotated[str, Path(max_length=64, pattern=PLAIN)]
Language = Annotated[str, Path(max_length=35)]
SUFFIXES = {"srt": ".srt", "webvtt": ".vtt"}
PAGE = 100


@router.post("")
async def create(request: Request, desk: Desk, visitor: Writer) -> dict[str, Any]:
    """Take a film in, as an upload like any other, and put it in the queue.

    Raises UsageError, EmptyFileError, QuotaError, UploadRoomError, LanguageError.
    """
    form = FilmForm(request.stream(), request.headers.get("content-type", ""), file_field="file")
    if not await form.find_film():
        raise UsageError(detail="The form has no file (source_url is not fetched here)")
    length = request.headers.get("content-length", "")
    if not re.fullmatch(r"[0-9]{1,15}", length):
        raise UsageError(detail="The request must say how long it is (Content-Length)")
    name = uploads.shown_name(form.file_name)
    upload = await asyncio.to_thread(uploads.reserve, desk, visitor, name, int(length))
    async with AsyncExitStack() as undo:
        undo.push_async_callback(asyncio.to_thread, remove, desk.store, desk.uploads, desk.films, upload)
        size = await _receive(desk, visitor, upload, form)
        job = await asyncio.to_thread(_submit, desk, visitor, upload, form.fields)
        undo.pop_all()
    return {"dubbing_id": job.id, "expected_duration_sec": size * 8 / BITS_PER_MS / 1000}


async def _receive(desk: Office, visitor: Visitor, upload: Upload, form: FilmForm) -> int:
    """Take the film of a form in; its bytes."""
    async with desk.arrivals.hold(desk.store, desk.uploads, visitor.user.id, upload.id) as arrival:
        await arrival.receive(form.film(), None)
        if not form.ended:
            raise UsageError(detail="The form ends in the middle")
        if arrival.offset == 0:
            raise EmptyFileError(name=upload.name)
        await asyncio.to_thread(desk.store.complete_upload, upload.id)
        return arrival.offset


def _submit(desk: Office, visitor: Visitor, upload: Upload, fields: Mapping[str, str]) -> Job:
    if fields.get("mode", "automatic") != "automatic":
        raise UsageError(detail="mode must be automatic")
    try:
        asked = JobFields(
            upload=upload.id,
            targets=tuple(tag.strip() for tag in fields.get("target_lang", "").split(",") if tag.strip()),
            source_language=fields.get("source_lang") or "auto",
            title=fields.get("name") or upload.name[:200],
            start_ms=_ms(fields.get("start_time")),
            end_ms=_ms(fields.get("end_time")),
            keep_background=fields.get("drop_background_audio", "").lower() not in ("true", "1"),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(detail=f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    job, _ = submit(desk, visitor, asked)
    return job


def _ms(text: str | None) -> int | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UsageError(detail=f"{text[:40]!r} is not a number of seconds")
    return round(seconds * 1000)


@router.get("")
def dubs(
    desk: Desk,
    visitor: Anyone,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
    page_size: Annotated[int, Query(ge=1, le=200)] = PAGE,
) -> dict[str, Any]:
    """Dubs, newest first."""
    before = None if cursor is None else int(cursor)
    found = desk.store.jobs(visitor.actor, before_seq=before, limit=page_size + 1)
    shown, more = found[:page_size], len(found) > page_size
    return {
        "dubs": [_facts(desk, job) for job in shown],
        "next_cursor": str(shown[-1].seq) if more else None,
        "has_more": more,
    }


@router.get("/{dubbing_id}")
def dubbing(desk: Desk, visitor: Anyone, dubbing_id: DubbingId) -> dict[str, Any]:
    """How a dub stands: `dubbing`, `dubbed` or `failed`. Raises NotFoundError."""
    return _facts(desk, desk.store.job(visitor.actor, dubbing_id))


@router.delete("/{dubbing_id}")
def delete(desk: Desk, visitor: Writer, dubbing_id: DubbingId) -> dict[str, str]:
    """Delete a dub; one that waits is cancelled first, one that runs is asked to stop (StateConflictError)."""
    if desk.store.job(visitor.actor, dubbing_id).state not in TERMINAL:
        desk.intake.cancel(visitor.actor, dubbing_id)
    removal.remove(desk, visitor.actor, dubbing_id)
    return {"status": "ok"}


@router.get("/{dubbing_id}/audio/{language}")
def media(desk: Desk, visitor: Anyone, dubbing_id: DubbingId, language: Language) -> FileResponse:
    """The film in one language, or its sound if it has no pictures. Raises NotFoundError, NotReadyError."""
    results = _results(desk, visitor, dubbing_id)
    found = _found(results.of_language(language, ".mp4", ".m4a"), language)
    return FileResponse(found.path, media_type=found.content_type, filename=found.name)


@router.get("/{dubbing_id}/transcript/{language}")
def transcript(
    desk: Desk,
    visitor: Anyone,
    dubbing_id: DubbingId,
    language: Language,
    format_type: Literal["srt", "webvtt"] = "srt",
) -> JSONResponse:
    """Subtitles of one language, or of the `source`, as a JSON text: the client reads no other. Raises as `media`."""
    return JSONResponse(_subtitles(_results(desk, visitor, dubbing_id), language, format_type))


@router.get("/{dubbing_id}/transcripts/{language}/format/{format_type}")
def transcripts(
    desk: Desk,
    visitor: Anyone,
    dubbing_id: DubbingId,
    language: Language,
    format_type: Literal["srt", "webvtt"],
) -> dict[str, str]:
    """Subtitles as `transcript` has them, under the name of their format. Raises as `media`."""
    text = _subtitles(_results(desk, visitor, dubbing_id), language, format_type)
    return {"transcript_format": format_type, format_type: text}


def _subtitles(results: Results, language: str, kind: str) -> str:
    tag = results.report.source.language if language == "source" and results.report else language
    return _found(results.of_language(tag, SUFFIXES[kind]), language).path.read_text(encoding="utf-8")


def _results(desk: Office, visitor: Visitor, job_id: str) -> Results:
    job = desk.store.job(visitor.actor, job_id)
    if job.state not in TERMINAL:
        raise NotReadyError(name=pages.title(job))
    return pages.require(desk.results(job))


def _found(file: File | None, language: str) -> File:
    if file is None:
        raise NotFoundError(what=f"dub into {language}")
    return file


def _facts(desk: Office, job: Job) -> dict[str, Any]:
    """A job in the words of that API."""
    well = job.state in (State.DONE, State.WARNED)
    results = desk.results(job) if well else None
    report = results.report if results else None
    first = next((file for file in results.files.values() if file.is_media), None) if results else None
    facts = (
        {"content_type": first.content_type, "duration": report.source.duration_ms / 1000} if first and report else None
    )
    return {
        "dubbing_id": job.id,
        "name": pages.title(job),
        "status": "dubbed" if well else "failed" if job.state in TERMINAL else "dubbing",
        "source_language": report.source.language if report else None,
        "target_languages": list(job.request.get("targets", ())),
        "editable": False,
        "created_at": datetime.fromtimestamp(job.created_ms / 1000, timezone.utc).isoformat(),
        "media_metadata": facts,
        "error": job.error["message"] if job.error and not well else None,
    }
