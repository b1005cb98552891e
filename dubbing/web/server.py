"""`dubbing-web`: serve the pages to this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from collections.abc import Sequence

import uvicorn

from dubbing import __version__, config
from dubbing.config import Settings
from dubbing.errors import DubbingError, SettingsError
from dubbing.web.app import LOOPBACK, build


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; answers the exit code."""
    parser().parse_args(argv)
    try:
        settings = config.load()
        with listen(settings) as listener:
            sys.stdout.write(f"dubbing-web: {address(listener)} shows the dubs in {settings.output_dir.resolve()}\n")
            sys.stdout.flush()
            _serve(settings, listener)
    except DubbingError as error:
        sys.stderr.write(f"dubbing-web: {error.message}.\n             {error.advice}\n")
        return error.exit_code
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line: there is nothing to choose but the settings."""
    top = argparse.ArgumentParser(
        prog="dubbing-web",
        description="Show the finished dubs in a browser on this machine, until Ctrl-C.",
        epilog="Settings: DUBBING_OUTPUT_DIR, HOST, PORT (docs/settings.md).",
    )
    top.add_argument("--version", action="version", version=f"dubbing-web {__version__}")
    return top


def listen(settings: Settings) -> socket.socket:
    """The socket of HOST and PORT. Raises SettingsError for every HOST but this machine's own, and for a taken port."""
    if settings.host not in LOOPBACK:
        expected = "the pages have no log-in and are for this machine alone: 127.0.0.1, localhost or ::1"
        raise SettingsError(key="HOST", value=settings.host, expected=expected, fix="Unset it for 127.0.0.1.")
    ipv6 = settings.host == "::1"
    try:
        # not by the name: what localhost means can be configured, and must not open another address
        return socket.create_server(
            ("::1" if ipv6 else "127.0.0.1", settings.port), family=socket.AF_INET6 if ipv6 else socket.AF_INET
        )
    except OSError as error:
        expected = f"it cannot be listened on ({error.strerror})"
        fix = "Stop the program that has it, or choose another: PORT=8001 dubbing-web"
        raise SettingsError(key="PORT", value=settings.port, expected=expected, fix=fix) from error


def address(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _serve(settings: Settings, listener: socket.socket) -> None:
    options = uvicorn.Config(
        build(settings.output_dir),
        lifespan="off",
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,  # a paused player holds its connection open
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(options).run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
