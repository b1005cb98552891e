"""What comes and how it is answered: counted for `/metrics`, and written to the access log without a secret.

Neither holds query strings, cookies, headers, names of users or the secrets that stand in the paths of invitations.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
SECRET_PARAMETERS = frozenset(("secret", "token"))
LOG_BYTES = 10 << 20
LOG_FILES = 5
log = logging.getLogger("dubbing.access")


@dataclass
class Traffic:
    """Counts since the start. Written by the event loop; readers copy."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """(method, route, status) -> answers that ended."""
    seconds: dict[str, list[int]] = field(default_factory=dict)
    """Route -> answers by BUCKETS_S, and one more for all that took longer; until the first byte, for streams never end."""
    sums: Counter[str] = field(default_factory=Counter)
    """Route -> microseconds until the first byte, summed."""
    open: Counter[str] = field(default_factory=Counter)
    """Method -> requests under way, streams among them."""

    def note(self, method: str, route: str, status: int, took_s: float) -> None:
        """Count one answer."""
        self.requests[method, route, status] += 1
        found = self.seconds.setdefault(route, [0] * (len(BUCKETS_S) + 1))
        found[next((i for i, limit in enumerate(BUCKETS_S) if took_s <= limit), len(BUCKETS_S))] += 1
        self.sums[route] += round(took_s * 1e6)


class Meter:
    """ASGI middleware behind Admission: counts every answer and writes its line."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app, self._traffic = app, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status, first = time.perf_counter(), 500, 0.0
        method = scope["method"] if scope["method"] in METHODS else "other"

        async def send_noted(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status, first = message["status"], time.perf_counter() - began
            await send(message)

        path = scope["path"]  # a mount shortens it
        self._traffic.open[method] += 1
        try:
            await self._app(scope, receive, send_noted)
        finally:
            self._traffic.open[method] -= 1
            took = time.perf_counter() - began
            self._traffic.note(method, route_of(scope, path), status, first or took)
            client = (scope.get("client") or ("?", 0))[0]
            log.info("%s %s %s %d %.1f ms", client, method, shown(scope, path), status, took * 1000)


def route_of(scope: Scope, path: str) -> str:
    """The route that answered, such as `/ui/jobs/{job_id}`: a handful of words, whatever is asked for."""
    template: str | None = getattr(scope.get("route"), "path", None)
    if path.startswith("/static/"):
        return "/static"
    return template or "none"


def shown(scope: Scope, path: str) -> str:
    """The path with secrets left out, fit for one line; of a path that no route has, only the beginning."""
    template = getattr(scope.get("route"), "path", None)
    if template is None and not path.startswith("/static/"):
        first, _, rest = path.lstrip("/").partition("/")
        return quote(f"/{first[:40]}") + ("/..." if rest else "")
    parameters: dict[str, Any] = scope.get("path_params") or {}
    for name in SECRET_PARAMETERS & parameters.keys():
        path = path.replace(str(parameters[name]), "***")
    return quote(path, safe="/*")


@contextmanager
def access_log(folder: Path) -> Iterator[None]:
    """Write the lines to `access.log` in a folder, 10 MB at a time, five files at most."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(folder / "access.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
