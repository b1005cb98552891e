"""Coming in and going out: login, logout, and the links that make users (setup and invitations)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dubbing.access_errors import BadLoginError, ThrottledError
from dubbing.errors import DubbingError, UsageError
from dubbing.store import User
from dubbing.web import pages, tailnet
from dubbing.web.catalogues import LANGUAGES
from dubbing.web.identity import Anyone, address_of, check_origin, drop_session, set_session
from dubbing.web.interpreter import COOKIE
from dubbing.web.office import Desk

router = APIRouter(prefix="/ui")
YEAR_S = 365 * 86_400


@router.get("/login")
def login_page(request: Request, desk: Desk, next: str = "/ui/jobs", left: bool = False) -> Response:  # noqa: A002 - the address says next
    """The login form; whoever is logged in already goes on, and so does whom the tailnet names, unless he just left."""
    if desk.identity.visitor(request):
        return RedirectResponse(_local(next), 303)
    login = tailnet.login_of(request)
    # pictures and frames of other sites open no sessions
    asked = request.headers.get("sec-fetch-dest", "document") == "document" and not left
    if asked and (secret := desk.identity.let_in(login, request)):
        answer = RedirectResponse(_local(next), 303)
        set_session(request, answer, secret)
        return answer
    return _login_form(next, known=desk.identity.known(login))


@router.post("/login")
async def log_in(
    request: Request,
    desk: Desk,
    name: Annotated[str, Form(max_length=64)] = "",
    password: Annotated[str, Form(max_length=4096)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/ui/jobs",  # noqa: A002
) -> Response:
    """Log in; the same form again, with the reason, when that failed."""
    check_origin(request)
    try:
        _, secret = await desk.identity.log_in(name, password, request)
    except (BadLoginError, ThrottledError) as error:
        refusal = _login_form(next, name, error)
        if isinstance(error, ThrottledError):
            refusal.headers["Retry-After"] = str(error.facts["wait_s"])
        return refusal
    answer = RedirectResponse(_local(next), 303)
    set_session(request, answer, secret)
    return answer


@router.post("/logout")
def log_out(request: Request, desk: Desk, visitor: Anyone) -> Response:
    """End this session."""
    desk.store.close_session(visitor.session)
    known = desk.identity.known(tailnet.login_of(request))
    answer = RedirectResponse("/ui/login?left=true" if known else "/ui/login", 303)
    drop_session(request, answer)
    return answer


@router.post("/language")
def choose_language(
    request: Request,
    tag: Annotated[str, Form(max_length=35)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/ui/jobs",  # noqa: A002
) -> Response:
    """Write the pages of this browser in another language, before and after login. Raises UsageError."""
    check_origin(request)
    if tag not in LANGUAGES:
        raise UsageError(detail="The pages are not written in that language")
    answer = RedirectResponse(_local(next), 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, tag, max_age=YEAR_S, path="/", secure=secure, httponly=True, samesite="lax")
    return answer


@router.get("/setup/{secret}")
@router.get("/invite/{secret}")
def join_page(secret: str, desk: Desk) -> HTMLResponse:
    """The form behind a setup link or an invitation. Raises NotFoundError."""
    return _join_form(desk.store.invite(secret).role)


@router.post("/setup/{secret}")
@router.post("/invite/{secret}")
async def join(
    request: Request,
    secret: str,
    desk: Desk,
    name: Annotated[str, Form(max_length=64)] = "",
    password: Annotated[str, Form(max_length=4096)] = "",
) -> Response:
    """Make the user of the link and log him in."""
    check_origin(request)
    role = desk.store.invite(secret).role
    try:
        user = desk.store.accept_invite(secret, name, await desk.identity.passwords.hash(password))
    except DubbingError as error:
        return _join_form(role, name, error)
    desk.store.audit(user.id, "joined", user.name, address_of(request))
    answer = RedirectResponse("/ui/jobs", 303)
    set_session(request, answer, desk.identity.open_session(user, request))
    return answer


def _login_form(
    next_page: str, name: str = "", error: DubbingError | None = None, known: User | None = None
) -> HTMLResponse:
    status = error.http_status if error else 200
    values = {"next": _local(next_page), "name": name, "error": error, "known": known, "me": None}
    return HTMLResponse(pages.render("login.html", **values), status)


def _join_form(role: str, name: str = "", error: DubbingError | None = None) -> HTMLResponse:
    status = error.http_status if error else 200
    return HTMLResponse(pages.render("join.html", role=role, name=name, error=error, me=None), status)


def _local(address: str) -> str:
    """A page of ours; whatever else a link asked for leads to the jobs."""
    plain = address.startswith("/ui/") and "\\" not in address and "//" not in address.partition("?")[0]
    return address if plain and address.isprintable() else "/ui/jobs"
