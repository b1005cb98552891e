"""The API over what administrators look after: the line of jobs, its pauses, and who the users are."""

from __future__ import annotations

from fastapi import APIRouter, Request

from dubbing.queue.base import Scope
from dubbing.web.api_models import InChargeOut, PauseFields, QueueOut, Switched, UserList, UserOut
from dubbing.web.identity import Admin, Visitor, address_of
from dubbing.web.office import Desk, Office

router = APIRouter(prefix="/api/v1", tags=["administration"])


@router.get("/queue", summary="The line of jobs")
def queue(desk: Desk, _visitor: Admin) -> QueueOut:
    """Which queue is used and why, how many jobs are in which state, caps and pauses."""
    charge = desk.store.in_charge()
    return QueueOut(
        reason=desk.choice.reason,
        in_charge=InChargeOut(queue=charge.backend, dispatcher=charge.holder),
        alive=tuple(one.name for one in desk.store.present() if one.serves),
        jobs=desk.store.counts(),
        settings=desk.store.settings(),
        warnings=tuple(desk.choice.warnings),
    )


@router.post("/queue/pause", summary="Pause the line")
def pause(request: Request, desk: Desk, visitor: Admin, fields: PauseFields) -> Switched:
    """Start nothing new, of one user or at all; running jobs go on."""
    return _switch(request, desk, visitor, fields.user, paused=True)


@router.post("/queue/resume", summary="End a pause")
def resume(request: Request, desk: Desk, visitor: Admin, fields: PauseFields) -> Switched:
    """Let jobs start again, those of one user or all."""
    return _switch(request, desk, visitor, fields.user, paused=False)


@router.get("/users", summary="List users")
def users(desk: Desk, visitor: Admin) -> UserList:
    """Everybody, with role and state."""
    return UserList(
        users=tuple(
            UserOut(id=user.id, name=user.name, role=user.role, disabled=user.disabled)
            for user in desk.store.users(visitor.actor)
        )
    )


def _switch(request: Request, desk: Office, visitor: Visitor, user: str | None, *, paused: bool) -> Switched:
    scope: Scope = "global" if user is None else "user"
    name = "" if user is None else desk.store.user_by_name(user).id
    desk.intake.configure(visitor.actor, scope, name, "paused", 1 if paused else None)
    desk.store.audit(visitor.user.id, "paused" if paused else "resumed", user or "all jobs", address_of(request))
    return Switched(user=user, paused=paused)
