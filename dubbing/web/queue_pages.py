"""For administrators: the line of jobs, and whether this server is ready for them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from dubbing.config import shown
from dubbing.jobs import State
from dubbing.queue.base import Scope, setting
from dubbing.web import pages
from dubbing.web.admin import names
from dubbing.web.identity import Admin, Visitor, address_of
from dubbing.web.office import Desk, Office
from dubbing.web.readiness import examine

router = APIRouter(prefix="/ui/admin")
LISTED = 100
"""Jobs shown of each kind."""


@router.get("/queue")
def queue_page(desk: Desk, visitor: Admin) -> HTMLResponse:
    """What runs and what waits, pauses, priorities."""
    store, actor = desk.store, visitor.actor
    values = store.settings()
    return HTMLResponse(
        pages.render(
            "queue.html",
            me=visitor.user,
            counts={State(state): count for state, count in store.counts().items()},
            running=store.running()[:LISTED],
            waiting=sorted(store.waiting(0, LISTED), key=lambda job: (job.band, job.seq)),
            paused=values.get(setting("global", "", "paused")) == 1,
            users=store.users(actor),
            paused_users={
                user.id for user in store.users(actor) if values.get(setting("user", user.id, "paused")) == 1
            },
            names=names(store, visitor),
            reason=desk.choice.reason,
        )
    )


@router.post("/queue/pause")
def pause(request: Request, desk: Desk, visitor: Admin, user: Annotated[str, Form()] = "") -> RedirectResponse:
    """Start nothing new, of one user or at all; running jobs go on. Raises NotFoundError."""
    return _switch(request, desk, visitor, user, paused=True)


@router.post("/queue/resume")
def resume(request: Request, desk: Desk, visitor: Admin, user: Annotated[str, Form()] = "") -> RedirectResponse:
    """End a pause. Raises NotFoundError."""
    return _switch(request, desk, visitor, user, paused=False)


@router.post("/queue/priority")
def prioritise(
    request: Request, desk: Desk, visitor: Admin, job: Annotated[str, Form()], priority: Annotated[int, Form()]
) -> RedirectResponse:
    """Change the priority of a waiting job. Raises UsageError, NotFoundError, StateConflictError."""
    moved = desk.intake.prioritise(visitor.actor, job, priority)
    desk.store.audit(visitor.user.id, "job_prioritised", f"{moved.id}: {priority}", address_of(request))
    return RedirectResponse("/ui/admin/queue", 303)


@router.get("/readiness")
def readiness_page(desk: Desk, visitor: Admin) -> HTMLResponse:
    """Whether jobs can run, and the settings, secrets masked."""
    return HTMLResponse(
        pages.render("readiness.html", me=visitor.user, checks=examine(desk), settings=shown(desk.settings))
    )


def _switch(request: Request, desk: Office, visitor: Visitor, user_id: str, *, paused: bool) -> RedirectResponse:
    scope: Scope = "user" if user_id else "global"
    whose = desk.store.user(user_id).name if user_id else "all jobs"
    desk.intake.configure(visitor.actor, scope, user_id, "paused", 1 if paused else None)
    desk.store.audit(visitor.user.id, "paused" if paused else "resumed", whose, address_of(request))
    return RedirectResponse("/ui/admin/queue", 303)
