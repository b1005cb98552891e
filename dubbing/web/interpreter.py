"""In which language a request is answered."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dubbing.web.catalogues import LANGUAGES, SOURCE, language, speaking
from dubbing.web.errors import API
from dubbing.web.identity import cookie_name

COOKIE = "dub_language"
"""Holds the tag that was chosen in this browser; it says nothing of who uses it."""


def chosen(request: Request) -> str:
    """The language for a request: what was chosen in this browser, else what it asks for, else English.

    Programs are answered in English; a script of our pages, which has their session, in the language of the page.
    """
    if request.url.path.startswith(API) and cookie_name(request) not in request.cookies:
        return SOURCE
    cookie = request.cookies.get(COOKIE, "")
    return cookie if cookie in LANGUAGES else preferred(request.headers.get("accept-language", ""))


def preferred(header: str) -> str:
    """The best of LANGUAGES for an Accept-Language header (RFC 9110): by weight, then as listed; a region is no obstacle."""
    wishes: list[tuple[float, str]] = []
    for part in header.split(","):
        tag, _, weight = part.partition(";")
        try:
            wishes.append((-float(weight.strip().removeprefix("q=") or 1), tag.strip().partition("-")[0].lower()))
        except ValueError:
            continue  # nobody is refused over a header
    return next(
        (tag for weight, tag in sorted(wishes, key=lambda wish: wish[0]) if weight < 0 and tag in LANGUAGES), SOURCE
    )


class Interpreter:
    """ASGI middleware: settles the language of a request, and says so on every page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_language(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers["Content-Language"] = language()
                    headers.add_vary_header("Accept-Language")
                    headers.add_vary_header("Cookie")
            await send(message)

        with speaking(chosen(Request(scope))):
            await self._app(scope, receive, send_with_language)
        return None
