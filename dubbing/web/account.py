"""Settings of the one who is logged in: browsers, API keys, password."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dubbing.access_errors import ThrottledError, WeakPasswordError, WrongPasswordError
from dubbing.errors import DubbingError, ForbiddenError, UsageError
from dubbing.passwords import LEAST
from dubbing.store.access import Scope, digest
from dubbing.web import pages
from dubbing.web.catalogues import Words, gettext, noop
from dubbing.web.identity import Person, Visitor, address_of
from dubbing.web.office import Desk, Office

router = APIRouter(prefix="/ui/settings")
PRIVATE = {"Cache-Control": "no-store"}
"""For answers with a secret that is shown once."""
DAY_MS = 86_400_000
DAYS = Words({"30": noop("30 days"), "90": noop("90 days"), "365": noop("a year"), "0": noop("no end")})
"""How long an API key can be made to live."""
SAID = Words(
    {
        "password": noop("Your password is changed, and every other browser is logged out."),
        "session": noop("That browser is logged out."),
        "sessions": noop("Every other browser is logged out."),
        "revoked": noop("The key is revoked."),
    }
)
"""What a page says after it was sent back to, by the word in its address."""
_BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("iPhone", noop("an iPhone")),
    ("iPad", noop("an iPad")),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", noop("a Mac")),
    ("Linux", "Linux"),
)


@router.get("")
def settings_page(desk: Desk, visitor: Person, said: str = "") -> HTMLResponse:
    """Everything on one page."""
    return _page(desk, visitor, said=SAID.get(said, ""))


@router.post("/sessions/end-others")
def end_others(request: Request, desk: Desk, visitor: Person) -> RedirectResponse:
    """Log every other browser out."""
    desk.store.end_sessions(visitor.user.id, but=visitor.session)
    return _back(request, desk, visitor, "sessions_ended", said="sessions")


@router.post("/sessions/{session_id}/end")
def end_session(request: Request, desk: Desk, visitor: Person, session_id: str) -> RedirectResponse:
    """Log one browser out. Raises NotFoundError."""
    desk.store.end_session(visitor.user.id, session_id)
    return _back(request, desk, visitor, "session_ended", session_id, said="session")


@router.post("/keys")
def add_key(
    request: Request,
    desk: Desk,
    visitor: Person,
    name: Annotated[str, Form(max_length=80)] = "",
    scope: Annotated[Scope, Form()] = "read",
    days: Annotated[Literal["30", "90", "365", "0"], Form()] = "90",
) -> Response:
    """Make an API key; this answer alone shows its secret."""
    if scope == "write" and visitor.user.role == "viewer":
        raise ForbiddenError(role="viewer", action="make a key that changes anything")
    if not name.strip():
        return _page(desk, visitor, error=UsageError(detail="An API key needs a name that says what it is for"))
    secret = f"dub_{secrets.token_urlsafe(32)}"
    ends = desk.store.clock_ms() + int(days) * DAY_MS if days != "0" else 0
    key = desk.store.add_key(visitor.user.id, secret, name=name.strip(), scope=scope, expires_ms=ends)
    desk.store.audit(visitor.user.id, "key_added", f"{key.name} ({key.scope})", address_of(request))
    return _page(desk, visitor, secret=secret, headers=PRIVATE)


@router.post("/keys/{key_id}/revoke")
def revoke_key(request: Request, desk: Desk, visitor: Person, key_id: str) -> RedirectResponse:
    """The key opens nothing from now on. Raises NotFoundError."""
    desk.store.end_key(visitor.user.id, key_id)
    return _back(request, desk, visitor, "key_revoked", key_id, said="revoked")


@router.post("/password")
async def change_password(
    request: Request,
    desk: Desk,
    visitor: Person,
    old: Annotated[str, Form(max_length=4096)] = "",
    new: Annotated[str, Form(max_length=4096)] = "",
) -> Response:
    """Change the password; the same page with the reason when that failed."""
    try:
        await desk.identity.change_password(visitor, old, new, request)
    except (WrongPasswordError, ThrottledError, WeakPasswordError) as error:
        headers = {"Retry-After": str(error.facts["wait_s"])} if isinstance(error, ThrottledError) else None
        return _page(desk, visitor, error=error, headers=headers)
    return RedirectResponse("/ui/settings?said=password", 303)


def device(agent: str) -> str:
    """A browser in words, from its User-Agent: `Firefox on Linux`. Browsers name others they resemble; order decides."""
    browser = next((name for mark, name in _BROWSERS if mark in agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    if not browser:
        return re.split(r"[/ (]", agent, maxsplit=1)[0][:40] or gettext("An unknown browser")
    if not system:
        return browser
    return gettext("%(browser)s on %(system)s") % {"browser": browser, "system": gettext(system)}


def _page(
    desk: Office,
    visitor: Visitor,
    *,
    error: DubbingError | None = None,
    said: str = "",
    secret: str | None = None,
    headers: dict[str, str] | None = None,
) -> HTMLResponse:
    return HTMLResponse(
        pages.render(
            "settings.html",
            me=visitor.user,
            sessions=desk.store.sessions(visitor.user.id),
            here=digest(visitor.session)[:16],
            device=device,
            keys=desk.store.keys(visitor.user.id),
            now_ms=desk.store.clock_ms(),
            days=DAYS,
            least=LEAST,
            secret=secret,
            said=said,
            error=error,
        ),
        error.http_status if error else 200,
        headers=headers,
    )


def _back(
    request: Request, desk: Office, visitor: Visitor, action: str, subject: str = "", *, said: str
) -> RedirectResponse:
    desk.store.audit(visitor.user.id, action, subject, address_of(request))
    return RedirectResponse(f"/ui/settings?said={said}", 303)
