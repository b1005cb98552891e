"""`dubbing-web`: the pages and the API on HOST:PORT until Ctrl-C, with `dub serve` beside them to do the work."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn
from starlette.types import ASGIApp

from dubbing import __version__, config
from dubbing.config import Settings
from dubbing.errors import DubbingError, SettingsError
from dubbing.remote_errors import NotRemoteError
from dubbing.web import tailnet
from dubbing.web.app import guarded, routes
from dubbing.web.live import Hub
from dubbing.web.office import first_administrator, open_office
from dubbing.web.traffic import access_log
from dubbing.web.worker import Worker

SWITCH_S = 0.001
"""How long a thread may keep the interpreter while others wait."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; answers the exit code."""
    arguments = parser().parse_args(argv)
    # uvicorn hands SIGTERM on once it has stopped; the default would end this process before the worker has ended
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = config.load()
        if settings.url is not None:
            raise NotRemoteError(command="dubbing-web")
        with contextlib.suppress(KeyboardInterrupt):
            serve(settings, pages_only=arguments.pages_only)
    except DubbingError as error:
        sys.stderr.write(f"dubbing-web: {error.message}.\n             {error.advice}\n")
        return error.exit_code
    return 0


PATIENCE_S = 1.0
"""How long answers that are under way get to end: a paused player would hold its connection open for ever."""


class Server(uvicorn.Server):
    """Ends the live streams first, and hangs up on who takes no more, whom uvicorn would report as errors of ours."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        self._hub.close()
        hanging_up = asyncio.get_running_loop().call_later(PATIENCE_S, self._hang_up)
        try:
            await super().shutdown(sockets)
        finally:
            hanging_up.cancel()

    def _hang_up(self) -> None:
        for connection in self.server_state.connections:
            if connection.transport is not None:
                connection.transport.abort()


def serve(settings: Settings, *, pages_only: bool) -> None:
    """Answer requests until SIGINT or SIGTERM. Raises SettingsError, and what the database or the queue has to say."""
    settings = settings.absolute()
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listen(settings))]
        if settings.web_socket or settings.tailscale_login:
            listeners.append(stack.enter_context(tailnet.listening(settings)))
        office = stack.enter_context(open_office(settings))
        stack.enter_context(access_log(settings.log_dir))
        if not pages_only:
            stack.enter_context(Worker(say))
        app = routes(office)
        place = address(listeners[0])
        say(f"{place} is ready; the queue is {office.choice.reason}")
        if settings.web_socket:
            believed = "whom tailscale serve names is let in" if settings.tailscale_login else "everybody logs in"
            say(f"{settings.web_socket} is ready; {believed}")
        if setup := asyncio.run(first_administrator(office)):
            say(f"open {place}{setup[1:]} to make the first administrator (works once)")
        tune()
        Server(options(guarded(app, office)), app.state.hub).run(sockets=listeners)


def options(app: ASGIApp) -> uvicorn.Config:
    """How the application is served."""
    return uvicorn.Config(
        app,
        lifespan="on",
        http="httptools",
        loop="uvloop",
        log_level="warning",
        access_log=False,  # ours is without secrets
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=round(PATIENCE_S) + 4,  # for what goes on though nobody listens
    )


def tune() -> None:
    """Keep this process's pauses short, for they are what the slowest answers wait for."""
    # the modules' 100,000 objects live as long as the process: looking through them takes a twentieth of a second
    gc.collect()
    gc.freeze()
    # a thread that renders a page would keep the loop, and with it all other answers, waiting for up to 5 ms
    sys.setswitchinterval(SWITCH_S)


def say(text: str) -> None:
    """A line for whoever started the server."""
    sys.stdout.write(f"dubbing-web: {text}\n")
    sys.stdout.flush()


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


if __name__ == "__main__":
    sys.exit(main())
