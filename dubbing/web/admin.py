"""For administrators: users, invitations and the log of what was done."""

from __future__ import annotations

import secrets
from typing import Annotated

import segno
from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup

from dubbing.errors import DubbingError, UsageError
from dubbing.jobs import DEFAULT_USER_CAP, Role
from dubbing.queue.base import Field, setting
from dubbing.store import Store
from dubbing.web import pages
from dubbing.web.account import PRIVATE
from dubbing.web.catalogues import Words, gettext, noop
from dubbing.web.identity import Admin, Visitor, address_of
from dubbing.web.office import Desk, Office

router = APIRouter(prefix="/ui/admin")
PAGE = 100
MOST = 2**31 - 1
"""What the database keeps of a number."""
Number = Annotated[str, Form(max_length=12)]
SAID = Words({"changed": noop("The user is changed."), "withdrawn": noop("The invitation is withdrawn.")})


@router.get("")
def users_page(desk: Desk, visitor: Admin, said: str = "") -> HTMLResponse:
    """Users and invitations."""
    return _page(desk, visitor, said=SAID.get(said, ""))


@router.post("/users/{user_id}")
def change_user(
    request: Request,
    desk: Desk,
    visitor: Admin,
    user_id: str,
    role: Annotated[Role, Form()],
    active: Annotated[bool, Form()] = False,
    quota_mb: Number = "",
    cap: Number = "",
    weight: Number = "",
    tailscale: Annotated[str, Form(max_length=254)] = "",
    tailscale_shown: Annotated[bool, Form()] = False,
) -> Response:
    """Set role, quota, cap, weight, the tailnet's login, and whether the user may log in; empty means the default."""
    try:
        queue: dict[Field, int | None] = {
            "cap": _number(gettext("cap"), cap, 0),
            "weight": _number(gettext("weight"), weight, 1),
        }
        quota = _number(gettext("quota"), quota_mb, 0) or 0
        if tailscale_shown:
            desk.store.set_tailscale_login(visitor.actor, user_id, tailscale.strip() or None)
        user = desk.store.change_account(visitor.actor, user_id, role=role, disabled=not active, quota_mb=quota)
        for field, value in queue.items():
            desk.intake.configure(visitor.actor, "user", user.id, field, value)
    except DubbingError as error:
        return _page(desk, visitor, error=error)
    facts = [role, "may log in" if active else "locked out", f"quota {quota} MB"]
    facts += [f"{field} {'default' if value is None else value}" for field, value in queue.items()]
    facts += [f"Tailscale login {user.tailscale_login or 'none'}"] if tailscale_shown else []
    desk.store.audit(visitor.user.id, "user_changed", f"{user.name}: {', '.join(facts)}", address_of(request))
    return RedirectResponse("/ui/admin?said=changed", 303)


@router.post("/invitations")
def invite(request: Request, desk: Desk, visitor: Admin, role: Annotated[Role, Form()] = "user") -> HTMLResponse:
    """Make an invitation; this answer alone shows its link."""
    secret = secrets.token_urlsafe(24)
    made = desk.store.add_invite(secret, role, by=visitor.actor)
    desk.store.audit(visitor.user.id, "invited", f"{made.id} ({made.role})", address_of(request))
    link = f"{request.base_url}ui/invite/{secret}"
    values = {"me": visitor.user, "link": link, "code": qr(link), "invite": made}
    return HTMLResponse(pages.render("invited.html", **values), headers=PRIVATE)


@router.post("/invitations/{invite_id}/withdraw")
def withdraw(request: Request, desk: Desk, visitor: Admin, invite_id: str) -> RedirectResponse:
    """The link makes nobody a user from now on. Raises NotFoundError."""
    desk.store.end_invite(visitor.actor, invite_id)
    desk.store.audit(visitor.user.id, "invitation_withdrawn", invite_id, address_of(request))
    return RedirectResponse("/ui/admin?said=withdrawn", 303)


@router.get("/audit")
def audit_page(desk: Desk, visitor: Admin, before: int | None = None) -> HTMLResponse:
    """What was done, newest first, a page at a time."""
    found = desk.store.audit_log(visitor.actor, before=before, limit=PAGE + 1)
    return HTMLResponse(
        pages.render(
            "audit.html",
            me=visitor.user,
            entries=found[:PAGE],
            more=found[PAGE - 1].id if len(found) > PAGE else None,
            names=names(desk.store, visitor),
        )
    )


def names(store: Store, visitor: Visitor) -> dict[str, str]:
    """What to call whom, by user id."""
    return {user.id: user.name for user in store.users(visitor.actor)} | {
        "command-line": gettext("command line"),
        "": "–",
    }


def qr(link: str) -> Markup:
    """A QR code as an SVG element without styles or sizes of its own, which the policy of the pages allows."""
    return Markup(segno.make(link, error="m").svg_inline(omitsize=True, dark="#000", light="#fff", svgclass="qr"))  # noqa: S704


def _number(what: str, text: str, least: int) -> int | None:
    """A number of a form; None when its field was left empty. Raises UsageError."""
    if not text.strip():
        return None
    if not text.strip().isdecimal() or not least <= int(text) <= MOST:
        template = gettext("The %(what)s must be %(least)s to %(most)s, or empty for the default, not '%(text)s'")
        raise UsageError(detail=template % {"what": what, "least": least, "most": MOST, "text": text})
    return int(text)


def _page(desk: Office, visitor: Visitor, *, error: DubbingError | None = None, said: str = "") -> HTMLResponse:
    values = desk.store.settings()
    return HTMLResponse(
        pages.render(
            "admin.html",
            me=visitor.user,
            users=desk.store.users(visitor.actor),
            of_user=lambda user, field: values.get(setting("user", user.id, field), ""),
            default_cap=values.get(setting("user", "*", "cap"), DEFAULT_USER_CAP),
            invites=desk.store.invites(visitor.actor),
            tailscale=desk.settings.tailscale_login,
            names=names(desk.store, visitor),
            said=said,
            error=error,
        ),
        error.http_status if error else 200,
    )
