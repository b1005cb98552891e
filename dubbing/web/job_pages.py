"""The list of jobs, one job with its player and report, its files, and the buttons that act on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from dubbing.errors import NotFoundError
from dubbing.jobs import Actor, Job, State
from dubbing.store.requests import View
from dubbing.web import pages
from dubbing.web.headers import POLICY
from dubbing.web.identity import Anyone, Visitor, Writer, address_of
from dubbing.web.office import Desk, Office
from dubbing.web.removal import remove
from dubbing.web.results import original_head
from dubbing.web.spliced import SplicedResponse

router = APIRouter(prefix="/ui")
PAGE = 30
Action = Literal["cancel", "pause", "resume", "retry", "share", "unshare"]
FILTERS = {
    "waiting": (State.PENDING, State.DELAYED, State.PAUSED),
    "running": (State.RUNNING,),
    "done": (State.DONE, State.WARNED),
    "failed": (State.FAILED, State.CANCELLED),
}
"""States a list can be narrowed to, by the word in its address."""


@router.get("/jobs")
def job_list(
    desk: Desk,
    visitor: Anyone,
    view: View = "all",
    state: Literal["", "waiting", "running", "done", "failed"] = "",
    q: str = "",
    before: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
) -> HTMLResponse:
    """The newest jobs first, a page at a time."""
    states = FILTERS.get(state, ())
    found = desk.store.jobs(visitor.actor, view=view, states=states, search=q[:100], before_seq=before, limit=PAGE + 1)
    return HTMLResponse(
        pages.render(
            "jobs.html",
            me=visitor.user,
            jobs=found[:PAGE],
            more=found[PAGE - 1].seq if len(found) > PAGE else None,
            view=view,
            state=state,
            q=q,
            first=before is None and not (q or state),
            names={user.id: user.name for user in desk.store.users(visitor.actor)} if visitor.actor.sees_all else {},
        )
    )


@router.get("/jobs/{job_id}")
def job_page(
    desk: Desk,
    visitor: Anyone,
    job_id: str,
    language: str | None = None,
    sound: Literal["dub", "original"] = "dub",
) -> HTMLResponse:
    """One job: its stages, log and files while it runs, its dub and report afterwards."""
    facts = facts_of(desk, visitor, job_id)
    results = facts["results"]
    return HTMLResponse(
        pages.render(
            "job.html",
            me=visitor.user,
            dubs=pages.dubs(results, language) if results else [],
            original=pages.source_subtitles(results) if results else None,
            sound=sound,
            **facts,
        )
    )


def facts_of(desk: Office, visitor: Visitor, job_id: str) -> dict[str, Any]:
    """What the parts of a job's page that change while it runs are made of. Raises NotFoundError."""
    job = desk.store.job(visitor.actor, job_id)
    results = desk.results(job)
    mine = visitor.user.id == job.user_id or visitor.actor.sees_all
    return {
        "job": job,
        "results": results,
        "mine": mine and visitor.user.role != "viewer",
        "log": pages.log_tail(results),
        "task": pages.task_address(desk.settings.dashboard_url, job) if visitor.user.role == "admin" else None,
    }


@router.get("/jobs/{job_id}/stages", include_in_schema=False)
def stages(desk: Desk, visitor: Anyone, job_id: str) -> HTMLResponse:
    """The parts of a job's page that change while it runs."""
    return HTMLResponse(pages.render("job_now.html", **facts_of(desk, visitor, job_id)))


@router.get("/jobs/{job_id}/delete")
def delete_page(desk: Desk, visitor: Writer, job_id: str) -> HTMLResponse:
    """Asks before a job is deleted. Raises NotFoundError, also for the shared jobs of others."""
    job = desk.store.job(visitor.actor, job_id)
    if visitor.user.id != job.user_id and not visitor.actor.sees_all:
        raise NotFoundError(what=f"job {job_id}")
    return HTMLResponse(pages.render("delete.html", me=visitor.user, job=job, results=desk.results(job)))


@router.post("/jobs/{job_id}/delete")
def delete(request: Request, desk: Desk, visitor: Writer, job_id: str) -> RedirectResponse:
    """Delete an ended job with its files. Raises NotFoundError, StateConflictError."""
    name = pages.title(desk.store.job(visitor.actor, job_id))
    remove(desk, visitor.actor, job_id)
    desk.store.audit(visitor.user.id, "job_deleted", f"{job_id}: {name}", address_of(request))
    return RedirectResponse("/ui/jobs", 303)


@router.api_route("/jobs/{job_id}/files/{file_name}", methods=["GET", "HEAD"])
def job_file(
    desk: Desk,
    visitor: Anyone,
    job_id: str,
    file_name: str,
    download: bool = False,
    sound: Literal["dub", "original"] = "dub",
) -> FileResponse:
    """A result, whole or in part; a film also with the original as its first sound track. Raises NotFoundError."""
    results = desk.results(desk.store.job(visitor.actor, job_id))
    found = pages.require(results).file(file_name)
    if sound == "original":
        head = original_head(found)
        if head is None:
            raise NotFoundError(what=f"original sound of {file_name} that browsers play")
        return SplicedResponse(found.path, head.read_bytes(), found.content_type, {"Content-Security-Policy": POLICY})
    return FileResponse(
        found.path,
        media_type=found.content_type,
        filename=found.name,
        content_disposition_type="attachment" if download else "inline",
        # in a sandbox browsers refuse to play a film that is opened by its own address
        headers={"Content-Security-Policy": POLICY if found.is_media else f"{POLICY}; sandbox"},
    )


@router.post("/jobs/{job_id}/{action}")
def act(
    desk: Desk,
    visitor: Writer,
    job_id: str,
    action: Action,
) -> RedirectResponse:
    """Cancel, pause, resume, run again, share or stop sharing. Raises as `perform`."""
    perform(desk, visitor.actor, job_id, action)
    return RedirectResponse(f"/ui/jobs/{job_id}", 303)


def perform(desk: Office, actor: Actor, job_id: str, action: Action) -> Job:
    """Act on a job. Raises NotFoundError, StateConflictError."""
    if action in ("share", "unshare"):
        return desk.store.share(actor, job_id, action == "share")
    intake = desk.intake
    acts = {"cancel": intake.cancel, "pause": intake.pause, "resume": intake.resume, "retry": intake.retry}
    return acts[action](actor, job_id)
