"""A model hub on this machine that speaks Hugging Face's HTTP, with the faults a test asks for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """What it serves, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    repo: str = "maker/model"
    commit: str = COMMIT
    large: tuple[str, ...] = ("model.bin",)
    """Told with their SHA-256; the others by git's hash alone."""
    token: str | None = None
    """Whoever does not send it is refused."""
    refusal: tuple[int, str] = (401, "GatedRepo")
    sent_instead: dict[str, bytes] = field(default_factory=dict)
    cut_after: dict[str, int] = field(default_factory=dict)
    """The connection breaks after so many bytes of a file's answer."""
    no_ranges: bool = False
    wrong_range: bool = False
    silent: bool = False
    claimed_size: int | None = None
    listing: bytes | None = None
    cdn: str = ""
    """Other address that large files are served from."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def tell(self) -> bytes:
        """The answer of the API about the repository."""
        siblings: list[dict[str, Any]] = []
        for name, data in self.files.items():
            size = self.claimed_size or len(data)
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            lfs = {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 134}}
            siblings.append({"rfilename": name, "size": size, "blobId": blob, **(lfs if name in self.large else {})})
        return json.dumps({"id": self.repo, "sha": self.commit, "siblings": siblings}).encode()


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            hub.requests.append((unquote(self.path), dict(self.headers.items())))
            if hub.silent:
                hub.ended.wait(30)
                return None
            path = unquote(urlsplit(self.path).path)
            if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self._refuse(*hub.refusal)
            if path.startswith(f"/api/models/{hub.repo}/revision/"):
                if path.rpartition("/")[2] not in {"main", hub.commit}:
                    return self._refuse(404, "RevisionNotFound")
                return self._send(200, hub.listing if hub.listing is not None else hub.tell())
            if found := re.fullmatch(rf"(?:/cdn)?/{hub.repo}/resolve/{hub.commit}/(.+)", path):
                return self._file(found[1], path)
            return self._refuse(404, "RepoNotFound")

        def _refuse(self, status: int, reason: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", reason)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _file(self, name: str, path: str) -> None:
            if hub.cdn and not path.startswith("/cdn") and name in hub.large:
                self.send_response(302)
                self.send_header("Location", f"{hub.cdn}/cdn{path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = hub.sent_instead.get(name, hub.files[name])
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if wanted and not hub.no_ranges:
                start = int(wanted[1]) + (7 if hub.wrong_range else 0)
                span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
                self._send(206, data[start:], span, cut=hub.cut_after.get(name))
            else:
                self._send(200, data, cut=hub.cut_after.get(name))

        def _send(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[:cut])

    return Handler


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is what some tests are about."""


@contextmanager
def serve(hub: HubServer) -> Iterator[HubServer]:
    """Run the hub on a free port."""
    server = _Quiet(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
