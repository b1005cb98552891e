"""What stands before the speech API: the key, the size of a request, how many are served at once (ASGI)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEALTH = "/healthz"
"""Answered without a key: it says nothing but whether the engines run."""


def digest(key: str) -> str:
    """What replicas are given of the key."""
    return hashlib.sha256(key.encode()).hexdigest()


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass
class Gate:
    """Lets in who has the key, with a body that fits, while there is room. Refuses before anything of a body is read."""

    app: ASGIApp
    key_digest: str
    max_body: int
    """Bytes."""
    max_concurrent: int
    running: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] == HEALTH:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._key(headers) or self._size(headers) or self._room()
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        self.running += 1
        try:
            await self.app(scope, self._counted(receive), send)
        finally:
            self.running -= 1

    def _key(self, headers: Headers) -> JSONResponse | None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(digest(key.strip()), self.key_digest):
            return None
        message = "Incorrect API key provided." if key else "You didn't provide an API key (Authorization: Bearer KEY)."
        body = error_body(message, "invalid_request_error", "invalid_api_key")
        return JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})

    def _size(self, headers: Headers) -> JSONResponse | None:
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) <= self.max_body:
            return None
        return JSONResponse(error_body(self._too_large, "invalid_request_error", "request_too_large"), 413)

    def _room(self) -> JSONResponse | None:
        if self.running < self.max_concurrent:
            return None
        message = f"{self.running} requests are being served, which is the limit. Try again in a moment."
        return JSONResponse(error_body(message, "requests", "rate_limit_exceeded"), 429, {"Retry-After": "1"})

    @property
    def _too_large(self) -> str:
        return f"The request is larger than {self.max_body >> 20} MB."

    def _counted(self, receive: Receive) -> Receive:
        """A body whose length nobody announced is counted while it comes."""
        come = 0

        async def counted() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > self.max_body:
                raise HTTPException(413, self._too_large)
            return message

        return counted
