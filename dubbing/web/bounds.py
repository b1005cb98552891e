"""How much a request may say: bodies that are read into memory have a limit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.types import Message

from dubbing.upload_errors import UploadTooLargeError

MOST_BODY = 16 << 20
"""Bytes of a request: a transcript and some translations of 2 MiB each."""


async def bounded(request: Request) -> Request:
    """The same request with its body read. Raises UploadTooLargeError."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY:
            raise UploadTooLargeError(limit=MOST_BODY)

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return Request(request.scope, receive)


class BoundedRoute(APIRoute):
    """A route whose body is counted before anything is made of it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            return await handle(request if request.method in ("GET", "HEAD") else await bounded(request))

        return answer
