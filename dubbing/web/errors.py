"""What an error looks like: a page to people, problem+json (RFC 9457) to programs."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from dubbing.access_errors import NotLoggedInError, ThrottledError
from dubbing.errors import DubbingError, NotFoundError, UsageError
from dubbing.web import pages, words
from dubbing.web.catalogues import gettext, noop

API = ("/api/", "/v1/")
METHODS = noop("Method Not Allowed")
"""What a page says of itself that was asked for in another way than it answers."""
HTTP_CODES = {status.value: status.name.lower() for status in HTTPStatus}


def is_api(request: Request) -> bool:
    """Whether a program asks, or a script of our pages that says so."""
    return request.url.path.startswith(API) or request.headers.get("accept", "").startswith("application/json")


def answer_for(request: Request, error: DubbingError) -> Response:
    """The answer that says what went wrong."""
    headers = {"Retry-After": str(error.facts["wait_s"])} if isinstance(error, ThrottledError) else {}
    if is_api(request):
        return problem(error, headers=headers)
    if isinstance(error, NotLoggedInError) and request.method in ("GET", "HEAD"):
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/ui/login?next={quote(path)}", 303)
    return _page(error.http_status, words.message(error), words.advice(error), headers)


def problem(error: DubbingError, *, headers: dict[str, str] | None = None) -> JSONResponse:
    """problem+json of an error: type, title, status, detail, and our code, hint, retryable, stage."""
    facts = {
        "type": f"/docs/errors#{error.code}",
        "title": words.message(error),
        "status": error.http_status,
        "detail": words.advice(error),
        "code": error.code,
        "retryable": error.retryable,
        "stage": error.facts.get("stage"),
    }
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers = (headers or {}) | {"WWW-Authenticate": "Bearer"}
    return JSONResponse(facts, error.http_status, headers=headers, media_type="application/problem+json")


def add_errors(app: FastAPI) -> None:
    """Make every error an answer of ours."""

    @app.exception_handler(DubbingError)
    def known(request: Request, error: DubbingError) -> Response:
        return answer_for(request, error)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer_for(request, UsageError(detail=f"{where}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    def unrouted(request: Request, error: HTTPException) -> Response:
        if error.status_code == NotFoundError.http_status:
            return answer_for(request, NotFoundError(what="such page"))
        headers = dict(error.headers or {})
        if is_api(request):
            facts = {"title": str(error.detail), "status": error.status_code, "code": HTTP_CODES[error.status_code]}
            return JSONResponse(facts, error.status_code, headers=headers, media_type="application/problem+json")
        return _page(error.status_code, gettext(str(error.detail)), "", headers)

    @app.exception_handler(Exception)
    def defect(request: Request, error: Exception) -> Response:
        """The request's border; uvicorn logs the traceback."""
        hidden = DubbingError(detail=type(error).__name__)
        if is_api(request):
            return problem(hidden)
        return _page(
            500, words.message(hidden), gettext("The terminal that dubbing-web runs in holds the details."), {}
        )


def _page(status: int, message: str, advice: str, headers: dict[str, str]) -> HTMLResponse:
    return HTMLResponse(
        pages.render("error.html", status=status, message=message, advice=advice, me=None), status, headers=headers
    )
