"""A tus client without a network: pieces may be cut, damaged or sent twice, as networks do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from dubbing.web.identity import COOKIE
from tests.web.site import Site

UPLOADS = "/api/v1/uploads"
OCTETS = "application/offset+octet-stream"


def metadata(name: str) -> str:
    return f"filename {base64.b64encode(name.encode()).decode()}"


def checksum(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def offset(self) -> int:
        return int(self.headers["upload-offset"])


@dataclass
class Tus:
    """A user's uploads to the application of a site, over ASGI itself: only so can a request break off."""

    site: Site
    cookie: str

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        pieces: list[bytes] | None = None,
        *,
        breaks: bool = False,
        hold: asyncio.Event | None = None,
    ) -> Answer:
        """One request; `breaks` ends the connection after the pieces, `hold` waits there before it goes on."""
        all_headers = {
            "Host": "127.0.0.1:8000",
            "Cookie": f"{COOKIE}={self.cookie}",
            "Sec-Fetch-Site": "same-origin",
            "Tus-Resumable": "1.0.0",
            **(headers or {}),
        }
        answer, left = Answer(), list(pieces or [b""])

        async def receive() -> dict[str, object]:
            if not left:
                if hold is not None:
                    await hold.wait()
                if breaks:
                    return {"type": "http.disconnect"}
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or breaks or hold is not None}

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                answer.status = int(message["status"])  # type: ignore[call-overload]
                answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}  # type: ignore[attr-defined]
            else:
                answer.body += message.get("body", b"")  # type: ignore[operator]

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
            "method": method, "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8000),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in all_headers.items()],
        }  # fmt: skip
        await self.site.app(scope, receive, send)  # type: ignore[arg-type]
        return answer

    async def begin(self, size: int, name: str = "talk.mp4") -> str:
        """The address of a new upload."""
        answer = await self.ask("POST", UPLOADS, {"Upload-Length": str(size), "Upload-Metadata": metadata(name)})
        assert answer.status == 201, answer.body
        return answer.headers["location"]

    async def patch(
        self,
        address: str,
        offset: int,
        *pieces: bytes,
        headers: Mapping[str, str] | None = None,
        breaks: bool = False,
        hold: asyncio.Event | None = None,
    ) -> Answer:
        """Send a piece in parts."""
        own = {"Upload-Offset": str(offset), "Content-Type": OCTETS, **(headers or {})}
        return await self.ask("PATCH", address, own, list(pieces), breaks=breaks, hold=hold)

    async def offset(self, address: str) -> int:
        """Where the server says to go on."""
        answer = await self.ask("HEAD", address)
        assert answer.status == 200
        return answer.offset
