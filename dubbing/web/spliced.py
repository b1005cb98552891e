"""A film whose beginning is another: its other bytes, and the answers to ranges of it, are those of the file."""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send


class SplicedResponse(FileResponse):
    """A file with its first bytes replaced by as many others, whole or in one part."""

    def __init__(self, path: Path, head: bytes, media_type: str, headers: dict[str, str]) -> None:
        super().__init__(path, media_type=media_type, headers=headers)
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; several ranges at once are answered with the whole."""
        at = 0

        async def send_spliced(message: Message) -> None:
            nonlocal at
            if message["type"] == "http.response.start":
                at = _first_byte(message)
            elif body := message.get("body", b""):
                part = self._head[at : at + len(body)]
                message = {**message, "body": part + body[len(part) :]}
                at += len(body)
            await send(message)

        await super().__call__(_of_one_part(scope), receive, send_spliced)


def _first_byte(start: Message) -> int:
    """Where in the file an answer begins."""
    ranges = dict(start["headers"]).get(b"content-range", b"")
    return int(ranges[len(b"bytes ") :].partition(b"-")[0]) if start["status"] == 206 else 0


def _of_one_part(scope: Scope) -> Scope:
    """The request without what would keep bytes from coming in their order through `send`."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"range" or b"," not in value]
    return {**scope, "headers": headers, "extensions": {}}
