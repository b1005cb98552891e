"""`dub` as somebody types it, here or against a server; and servers that are not what they should be."""

from __future__ import annotations

import contextlib
import io
import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dubbing import cli
from tests.web.site import Site

PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


def dub(folder: Path, *arguments: object, **env: str) -> Done:
    """Run a command in this process, in a folder, with these settings and no others."""
    out, err = io.StringIO(), io.StringIO()
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name in [name for name in os.environ if name.startswith(("DUBBING_", "REDIS_", "QUEUE_"))]:
            patch.delenv(name)
        for name, value in env.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@dataclass
class Far:
    """Runs `dub` against the server at an address, with a key, from a folder of its own."""

    folder: Path
    address: str
    key: str

    def __call__(self, *arguments: object, **env: str) -> Done:
        """One command."""
        settings = {"DUBBING_URL": self.address, "DUBBING_API_KEY": self.key, "DUBBING_STATE_DIR": "state"}
        return dub(self.folder, *arguments, **{**settings, **env})


def key_of(site: Site, name: str = "root", role: str = "admin", scope: str = "write") -> str:
    """The secret of a new API key."""
    secret = f"dub_{name}_{scope}_{len(site.jobs)}_{os.urandom(4).hex()}"
    site.office.store.add_key(site.user(name, role).id, secret, name="dub", scope=scope)  # type: ignore[arg-type]
    return secret


@dataclass
class Reply:
    """What a double answers."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    """Bytes after which the connection breaks."""

    @classmethod
    def of(cls, data: object, status: int = 200, kind: str = "application/json") -> Reply:
        """JSON."""
        return cls(status, {"Content-Type": kind}, json.dumps(data).encode())


@dataclass
class Asked:
    """What a double was asked."""

    method: str
    path: str
    headers: dict[str, str]


@contextmanager
def double(answer: Callable[[Asked], Reply], *, tls: Path | None = None) -> Iterator[tuple[str, list[Asked]]]:
    """A server that answers as it is told; its address, and what it was asked. `tls` is a folder with its certificate."""
    seen: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, dict(self.headers.items()))
            seen.append(asked)
            reply = answer(asked)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body[: reply.cut_after])
            self.close_connection = reply.cut_after is not None

        def do_POST(self) -> None:
            self.do_GET()

        def handle(self) -> None:
            """See BaseHTTPRequestHandler; a client who does not trust us hangs up."""
            with contextlib.suppress(OSError):
                super().handle()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
        # shaken in the thread of the request, so that a client who hangs up ends only that
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)
