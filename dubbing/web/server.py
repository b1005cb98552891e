"""`dubbing-web`: the pages and the API on HOST:PORT until Ctrl-C, with `dub serve` beside them to do the work."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from dubbing import __version__, config
from dubbing.config import Settings
from dubbing.errors import DubbingError, SettingsError
from dubbing.web.app import guarded, routes
from dubbing.web.live import Hub
from dubbing.web.office import first_administrator, open_office

STOP_S = 30.0
"""How long the dispatcher gets to put running jobs back in line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; answers the exit code."""
    arguments = parser().parse_args(argv)
    try:
        settings = config.load()
        with listen(settings) as listener, open_office(settings) as office, _worker(wanted=not arguments.pages_only):
            app = routes(office)
            place = address(listener)
            sys.stdout.write(f"dubbing-web: {place} is ready; the queue is {office.choice.reason}\n")
            if setup := asyncio.run(first_administrator(office)):
                sys.stdout.write(f"dubbing-web: open {place}{setup[1:]} to make the first administrator (works once)\n")
            sys.stdout.flush()
            options = uvicorn.Config(
                guarded(app, office),
                lifespan="on",
                log_level="warning",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,  # a paused player holds its connection open
            )
            with contextlib.suppress(KeyboardInterrupt):
                Server(options, app.state.hub).run(sockets=[listener])
    except DubbingError as error:
        sys.stderr.write(f"dubbing-web: {error.message}.\n             {error.advice}\n")
        return error.exit_code
    return 0


class Server(uvicorn.Server):
    """Ends the live streams first, for they would hold it open until its patience ends."""

    def __init__(self, options: uvicorn.Config, hub: Hub) -> None:
        super().__init__(options)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        self._hub.close()
        await super().shutdown(sockets)


def parser() -> argparse.ArgumentParser:
    """The command line: nearly everything is a setting."""
    top = argparse.ArgumentParser(
        prog="dubbing-web",
        description="Take videos, run the jobs and show the dubs in a browser, until Ctrl-C.",
        epilog="Settings: HOST, PORT, REMOTE_ACCESS_MODE, DUBBING_OUTPUT_DIR and others (docs/settings.md).",
    )
    top.add_argument("--version", action="version", version=f"dubbing-web {__version__}")
    top.add_argument(
        "--pages-only", action="store_true", help="do not run jobs here: `dub serve` does, on this machine or another"
    )
    return top


def listen(settings: Settings) -> socket.socket:
    """The socket of HOST and PORT. Raises SettingsError when it cannot be had."""
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    ipv6 = ":" in host
    try:
        return socket.create_server((host, settings.port), family=socket.AF_INET6 if ipv6 else socket.AF_INET)
    except OSError as error:
        key = "PORT" if error.filename is None and "in use" in str(error) else "HOST"
        expected = f"it cannot be listened on ({error.strerror or error})"
        fix = "Stop the program that has it, or choose another: PORT=8001 dubbing-web"
        raise SettingsError(key=key, value=f"{settings.host}:{settings.port}", expected=expected, fix=fix) from error


def address(listener: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"


@contextmanager
def _worker(*, wanted: bool) -> Iterator[None]:
    """`dub serve` as a child: it has Ray and the dispatcher, of which this process knows nothing."""
    if not wanted:
        yield
        return
    child = subprocess.Popen([sys.executable, "-m", "dubbing.cli", "serve"], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


if __name__ == "__main__":
    sys.exit(main())
