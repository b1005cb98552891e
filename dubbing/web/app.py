"""The web application: addresses, headers, and what an error looks like."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dubbing.errors import DubbingError, NotFoundError
from dubbing.web import pages
from dubbing.web.library import Library

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
READ = ["GET", "HEAD"]


def build(output_dir: Path) -> ASGIApp:
    """The application over an output folder, as uvicorn runs it: it answers to names of this machine only."""
    app = FastAPI(title="Dubbing Pipeline", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(packages=[("dubbing.web", "static")]), name="static")
    _add_pages(app, Library(output_dir))
    add_errors(app)
    # a page of another site whose name was made to point here must not read along (DNS rebinding)
    hosts = [*LOOPBACK, "[::1]"]
    return SecureHeaders(TrustedHostMiddleware(app, allowed_hosts=hosts, www_redirect=False))


def _add_pages(app: FastAPI, library: Library) -> None:
    @app.api_route("/", methods=READ)
    def jobs() -> HTMLResponse:
        return HTMLResponse(pages.render("jobs.html", jobs=library.jobs(), output_dir=str(library.output_dir)))

    @app.api_route("/jobs/{name}", methods=READ)
    def job(name: str, language: str | None = None) -> HTMLResponse:
        found = library.job(name)
        dubs, original = pages.dubs(found, language), pages.source_subtitles(found)
        return HTMLResponse(pages.render("job.html", job=found, dubs=dubs, original=original))

    @app.api_route("/jobs/{name}/files/{file_name}", methods=READ)
    def file(name: str, file_name: str, download: bool = False) -> FileResponse:
        found = library.file(name, file_name)
        return FileResponse(
            found.path,
            media_type=found.content_type,
            filename=found.name,
            content_disposition_type="attachment" if download else "inline",
            # in a sandbox browsers refuse to play a film that is opened by its own address
            headers={"Content-Security-Policy": POLICY if found.is_media else f"{POLICY}; sandbox"},
        )

    @app.api_route("/livez", methods=READ)
    def livez() -> PlainTextResponse:
        return PlainTextResponse("ok\n")


def add_errors(app: FastAPI) -> None:
    """Make every error a page."""

    def page(status: int, message: str, advice: str) -> HTMLResponse:
        return HTMLResponse(pages.render("error.html", status=status, message=message, advice=advice), status)

    @app.exception_handler(DubbingError)
    def known(request: Request, error: DubbingError) -> HTMLResponse:
        return page(error.http_status, error.message, error.advice)

    @app.exception_handler(HTTPException)
    def unrouted(request: Request, error: HTTPException) -> HTMLResponse:
        if error.status_code == NotFoundError.http_status:
            return known(request, NotFoundError(what="such page"))
        answer = page(error.status_code, str(error.detail), "")
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    def defect(request: Request, error: Exception) -> HTMLResponse:
        """The request's border; uvicorn logs the traceback."""
        message = DubbingError(detail=type(error).__name__).message
        return page(500, message, "The terminal that dubbing-web runs in holds the details.")


class SecureHeaders:
    """Puts the headers on every answer, those of refusals and defects among them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
