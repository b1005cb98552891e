"""The web application: its rooms, the order of its doors, and the headers on every answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dubbing.web import (
    account,
    admin,
    admission,
    api,
    api_account,
    api_queue,
    courier,
    elevenlabs,
    entrance,
    health,
    job_pages,
    line_pages,
    live,
    new_dub,
    queue_pages,
    tailnet,
    uploads,
    voice_pages,
)
from dubbing.web.errors import add_errors
from dubbing.web.headers import HEADERS
from dubbing.web.interpreter import Interpreter
from dubbing.web.office import Office
from dubbing.web.traffic import Meter


def routes(office: Office) -> FastAPI:
    """All routes over an office, before the doors that stand in front of them."""
    app = FastAPI(title="Dubbing Pipeline", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_work)
    app.state.office = office
    app.mount("/static", StaticFiles(packages=[("dubbing.web", "static")]), name="static")
    app.state.hub = live.Hub(office.store)
    for room in (  # asked in this order, so what people look at all the time stands first
        live,
        job_pages,
        api,
        entrance,
        line_pages,
        uploads,
        new_dub,
        voice_pages,
        account,
        admin,
        queue_pages,
        api_account,
        api_queue,
        elevenlabs,
        health,
    ):
        app.include_router(room.router)
    app.include_router(line_pages.api)

    @app.get("/", include_in_schema=False)
    def home() -> RedirectResponse:
        return RedirectResponse("/ui/jobs", 303)

    @app.api_route("/livez", methods=["GET", "HEAD"])
    def livez() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    add_errors(app)
    return app


@asynccontextmanager
async def _work(app: FastAPI) -> AsyncIterator[None]:
    """What runs beside the requests for as long as the server does."""
    webhooks = asyncio.create_task(courier.carry(app.state.office.store))
    try:
        yield
    finally:
        webhooks.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await webhooks


def build(office: Office) -> ASGIApp:
    """The whole application. Raises SettingsError."""
    return guarded(routes(office), office)


def guarded(app: ASGIApp, office: Office) -> ASGIApp:
    """The application behind its doors, as uvicorn runs it. Raises SettingsError."""
    policy = admission.policy(office.settings)
    known = app
    if policy.allowed == admission.LOOPBACK:
        # a page of another site whose name was made to point here must not read along (DNS rebinding)
        hosts = [*admission.LOOPBACK_HOSTS, "[::1]"]
        known = TrustedHostMiddleware(app, allowed_hosts=hosts, www_redirect=False)
    doors: ASGIApp = admission.Admission(Meter(known, office.traffic), policy)
    if office.settings.web_socket is not None:
        doors = tailnet.Door(Meter(app, office.traffic), doors, office.settings)
    return SecureHeaders(Interpreter(doors))


_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class SecureHeaders:
    """Puts the headers on every answer, those of refusals and defects among them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message = {**message, "headers": given + [pair for pair in _RAW_HEADERS if pair[0] not in names]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
