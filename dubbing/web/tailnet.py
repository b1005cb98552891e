"""The unix socket of `tailscale serve`: who may open it, and the one place that believes what it says of its clients.

Only the server's own user and root can reach a socket in a folder of mode 0700, so what comes over it comes from tailscaled.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dubbing.access_errors import AddressError
from dubbing.config import Settings
from dubbing.errors import SettingsError
from dubbing.web.admission import FORWARDED, IDENTITY, LOOPBACK, TAILNET, Policy, address_in
from dubbing.web.errors import answer_for

KEY = "DUBBING_WEB_SOCKET"
LOGIN = "dubbing.tailscale_login"
"""In an ASGI scope: as whom the tailnet knows the client. Nothing but `Door` writes it, and no client can."""
FUNNEL = "tailscale-funnel-request"
"""What `tailscale funnel` puts on requests that come from the internet."""
POLICY = Policy(TAILNET + LOOPBACK)


class Door:
    """ASGI middleware: what came over the socket goes in here, everything else by the other door."""

    def __init__(self, inside: ASGIApp, outside: ASGIApp, settings: Settings) -> None:
        """`inside` answers the socket's requests, `outside` all others; `settings` with absolute paths."""
        self._inside, self._outside = inside, outside
        self._here = (str(settings.web_socket), None)
        self._believes = settings.tailscale_login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer 403 to one that does not come from the tailnet."""
        # the kernel's word about our own end of the connection; over TCP it is an address and a port
        if scope["type"] != "http" or scope.get("server") != self._here:
            return await self._outside(scope, receive, send)
        headers = MutableHeaders(raw=list(scope["headers"]))
        hop = ",".join(headers.getlist("x-forwarded-for")).rpartition(",")[2].strip()
        logins, funnel = headers.getlist(IDENTITY[0]), FUNNEL in headers
        for name in (*FORWARDED, *IDENTITY):
            del headers[name]
        if funnel or (hop and not POLICY.admits(address_in(hop))):
            return await answer_for(Request(scope), AddressError(address=hop or "?"))(scope, receive, send)
        settled = dict(scope) | {"headers": headers.raw, "scheme": "https", "client": (hop, 0) if hop else None}
        if self._believes and len(logins) == 1:
            settled[LOGIN] = logins[0]
        return await self._inside(settled, receive, send)


def login_of(request: Request) -> str:
    """As whom the tailnet knows the client; empty for everybody who did not come over the socket, or where it is off."""
    login: str = request.scope.get(LOGIN, "")
    return login


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """Listen on the socket of the settings, and take it away afterwards. Raises SettingsError when that is not safe."""
    if settings.web_socket is None:
        expected = "it needs the socket of `tailscale serve`"
        raise SettingsError(key="DUBBING_TAILSCALE_LOGIN", value="true", expected=expected, fix=f"Set {KEY}, too.")
    path = settings.web_socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _locked(path):
            _make_room(path)
            try:
                listener.bind(str(path))
                path.chmod(0o600)
                listener.listen()
            except OSError as error:
                raise _refusal(path, f"it cannot be listened on ({error})", "Choose a shorter path.") from error
            mine = path.stat().st_ino
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == mine:
                    path.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder, if it is ours alone: of two servers that start at once, one finds the other listening."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        make = f"Make it: install -d -m 700 {path.parent}"
        raise _refusal(path, f"its folder cannot be opened ({error.strerror})", make) from error
    try:
        facts = os.fstat(folder)
        if facts.st_uid != os.geteuid():
            raise _refusal(
                path, "its folder must belong to the user that runs the server", "Choose a folder of its own."
            )
        if stat.S_IMODE(facts.st_mode) != 0o700:
            expected = f"its folder must have mode 0700, not {stat.S_IMODE(facts.st_mode):04o}"
            raise _refusal(path, expected, f"chmod 700 {path.parent}")
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _make_room(path: Path) -> None:
    """Remove a socket that nobody listens on any more, and nothing else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise _refusal(path, "something that is no socket has that name", "Choose another name.")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink()
        return
    raise _refusal(path, "another server listens there", "Stop it, or choose another name.")


def _refusal(path: Path, expected: str, fix: str) -> SettingsError:
    return SettingsError(key=KEY, value=str(path), expected=expected, fix=fix)
