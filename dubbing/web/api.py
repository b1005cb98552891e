"""The API over jobs: `/api/v1/jobs` and what belongs to one. Errors are problem+json (errors.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel

from dubbing.store.requests import Event, View
from dubbing.web import job_pages, removal, submission
from dubbing.web.api_models import (
    MOST_ID,
    PLAIN,
    EventList,
    EventOut,
    FileList,
    FileOut,
    JobList,
    JobOut,
    job_out,
)
from dubbing.web.bounds import BoundedRoute
from dubbing.web.identity import Anyone, Writer
from dubbing.web.office import Desk
from dubbing.web.submission import JobFields

router = APIRouter(prefix="/api/v1", tags=["jobs"], route_class=BoundedRoute)
JobId = Annotated[str, Path(max_length=64, pattern=PLAIN, description="Id of the job.")]
Language = Annotated[str, Path(max_length=35, description="BCP-47 tag of the dub.")]
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file, or the part of it that Range asks for.", "content": {"*/*": {}}}
}


@router.get("/jobs", summary="List jobs", response_model=JobList)
def jobs(
    desk: Desk,
    visitor: Anyone,
    view: Annotated[View, Query(description="All you may see, your own, or what others share.")] = "all",
    state: Annotated[Literal["", "waiting", "running", "done", "failed"], Query(description="Only such jobs.")] = "",
    q: Annotated[str, Query(max_length=100, pattern=PLAIN, description="Part of the name.")] = "",
    beginning: Annotated[str, Query(pattern=r"^[0-9a-f]{0,32}$", description="First digits of the id.")] = "",
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="From the answer before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Most jobs in one answer.")] = 50,
) -> Response:
    """The newest jobs first, a part at a time."""
    found = desk.store.jobs(
        visitor.actor,
        view=view,
        states=job_pages.FILTERS.get(state, ()),
        search=q,
        beginning=beginning,
        before_seq=None if cursor is None else int(cursor),
        limit=limit + 1,
    )
    return _written(
        JobList(
            jobs=tuple(job_out(job, visitor.user.id) for job in found[:limit]),
            cursor=str(found[limit - 1].seq) if len(found) > limit else None,
        )
    )


@router.post("/jobs", status_code=201, summary="Submit a job", responses={200: {"description": "Submitted before."}})
def submit(
    desk: Desk,
    visitor: Writer,
    fields: JobFields,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(pattern=r"^[\x21-\x7e]{1,200}$", description="A request with the same key makes no second job."),
    ] = None,
) -> JobOut:
    """Put a job in the queue. The answer comes at once; `/api/v1/events` or a webhook tells of the end."""
    job, new = submission.submit(desk, visitor, fields, idempotency_key)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return job_out(job, visitor.user.id)


@router.get("/jobs/{job_id}", summary="One job", response_model=JobOut)
def job(desk: Desk, visitor: Anyone, job_id: JobId) -> Response:
    """How a job stands."""
    return _written(job_out(desk.store.job(visitor.actor, job_id), visitor.user.id))


def _written(answer: BaseModel) -> Response:
    """What programs ask for all the time: FastAPI would check a model once more, with one more hop to a thread."""
    return Response(answer.model_dump_json(), media_type="application/json")


@router.delete("/jobs/{job_id}", status_code=204, summary="Delete a job")
def delete(desk: Desk, visitor: Writer, job_id: JobId) -> Response:
    """Forget an ended job with its files. Cancel it first if it has not ended."""
    removal.remove(desk, visitor.actor, job_id)
    return Response(status_code=204)


@router.get("/jobs/{job_id}/events", summary="What happened to a job")
def job_events(
    desk: Desk,
    visitor: Anyone,
    job_id: JobId,
    after: Annotated[int, Query(ge=0, le=MOST_ID, description="Only events after this one.")] = 0,
    limit: Annotated[int, Query(ge=1, le=500, description="Most events in one answer.")] = 100,
) -> EventList:
    """Events of a job, oldest first. Of progress only the latest is kept."""
    found = desk.store.events(visitor.actor, after=after, job_id=job_id, limit=limit)
    return EventList(
        events=tuple(EventOut(id=e.id, job_id=e.job_id, at_ms=e.at_ms, kind=e.kind, data=_told(e)) for e in found)
    )


def _told(event: Event) -> Mapping[str, Any]:
    """What an event says; where on this server a job is at work stays inside."""
    return {name: value for name, value in event.data.items() if name not in ("folder", "task")}


@router.get("/jobs/{job_id}/files", summary="Results of a job")
def files(desk: Desk, visitor: Anyone, job_id: JobId) -> FileList:
    """Films first, then subtitles, then the report and the log: what there is so far of a job that has not ended."""
    results = desk.results(desk.store.job(visitor.actor, job_id))
    return FileList(
        files=tuple(
            FileOut(
                name=file.name,
                size=file.size,
                changed_ms=file.changed_ms,
                content_type=file.content_type,
                language=file.tag,
                href=f"/api/v1/jobs/{job_id}/files/{quote(file.name, safe='')}",
            )
            for file in (results.files.values() if results else ())
        )
    )


@router.get("/jobs/{job_id}/files/{file_name}", summary="Download a result", response_class=Response, responses=FILE)
def file(
    desk: Desk,
    visitor: Anyone,
    job_id: JobId,
    file_name: Annotated[str, Path(max_length=255, description="As the list of files has it.")],
) -> FileResponse:
    """A result, whole or, with a Range header, in part."""
    return job_pages.job_file(desk, visitor, job_id, file_name, download=True)


@router.post("/jobs/{job_id}/{action}", summary="Act on a job")
def act(
    desk: Desk,
    visitor: Writer,
    job_id: JobId,
    action: Annotated[
        job_pages.Action,
        Path(description="A running job stops after its line; retry runs an ended job again and keeps what is done."),
    ],
) -> JobOut:
    """Cancel, pause, resume, run again, share with all users of the server, or stop sharing."""
    return job_out(job_pages.perform(desk, visitor.actor, job_id, action), visitor.user.id)


@router.get("/openapi.json", include_in_schema=False)
def description(visitor: Anyone) -> JSONResponse:
    """This API in OpenAPI's words."""
    from dubbing.web.openapi import document  # noqa: PLC0415 - it describes this module

    return JSONResponse(document())
