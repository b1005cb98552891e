"""The check of the way from a phone, on machines of every kind: a stand-in answers for `tailscale`, which is not ours."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.services import free_port

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "remote" / "tailscale_check.py"
DOWN = "failed to connect to local tailscaled; it doesn't appear to be running (sudo systemctl start tailscaled ?)"
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs the script with a stand-in `tailscale`, or without one, and nothing else in PATH."""

    def run(
        status: str | None = None, ip: str = "", *, port: int | str = 8000, serve: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        if status is not None:
            program = folder / "tailscale"
            program.write_text(
                f'#!/bin/sh\ncase "$1 $2" in\n"status --json") {status} ;;\n"ip -4") {ip or "exit 1"} ;;\n'
                f'"serve status") {serve or "exit 1"} ;;\nesac\n'
            )
            program.chmod(0o755)
        return subprocess.run(
            [sys.executable, SCRIPT], env={"PATH": str(folder), "PORT": str(port), **env}, cwd=tmp_path,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


def state(name: str, *addresses: str) -> str:
    return f"echo '{json.dumps({'BackendState': name, 'TailscaleIPs': list(addresses) or None})}'"


RUNNING = state("Running", "127.0.0.1", "fd7a:115c:a1e0::1")


@contextmanager
def server(status: int, body: bytes) -> Iterator[int]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    asked: list[str] = []
    http = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield http.server_address[1]
        assert asked == ["/livez"]
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def test_it_prints_the_address_of_the_login_page_when_the_server_answers(check: Check) -> None:
    with server(200, b"ok\n") as port:
        done = check(RUNNING, "echo 127.0.0.1", port=port)
    assert (done.returncode, done.stdout) == (0, f"http://127.0.0.1:{port}/ui/login\n")


def test_the_address_is_also_found_in_the_status(check: Check) -> None:
    with server(200, b"ok\n") as port:
        done = check(state("Running", "fd7a:115c:a1e0::1", "127.0.0.1"), "exit 1", port=port)
    assert (done.returncode, done.stdout) == (0, f"http://127.0.0.1:{port}/ui/login\n")


def test_the_port_may_stand_in_the_settings_file(check: Check, tmp_path: Path) -> None:
    with server(200, b"ok\n") as port:
        (tmp_path / ".env").write_text(f"HOST=0.0.0.0\nPORT={port}\n")
        assert check(RUNNING, "echo 127.0.0.1", port="").stdout == f"http://127.0.0.1:{port}/ui/login\n"


@pytest.mark.parametrize(
    ("status", "problem", "advice"),
    [
        (None, "Tailscale is not installed here", "https://tailscale.com/download"),
        (f'echo "{DOWN}" >&2; exit 1', "Tailscale's service does not run", "sudo systemctl enable --now tailscaled"),
        ("echo 'Access denied: status access denied' >&2; exit 1", "does not talk to this user", "--operator=$USER"),
        (state("NeedsLogin"), "Tailscale is logged out", "sudo tailscale up"),
        (state("Stopped", "127.0.0.1"), "Tailscale is switched off", "sudo tailscale up"),
        (state("NeedsMachineAuth"), "waits for approval", "https://login.tailscale.com/admin/machines"),
        (state("Starting"), "still starting", "run this again"),
        (state("NoState"), "has not started yet", "systemctl restart"),
        (state("Surprise"), "in the state Surprise", "sudo tailscale up"),
        (state("Running", "fd7a:115c:a1e0::1"), "no IPv4 address", "tailscale status"),
        ("echo nonsense", "does not run (exit code 0)", "systemctl"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_do(check: Check, status: str | None, problem: str, advice: str) -> None:
    done = check(status)
    assert (done.returncode, done.stdout) == (1, "")
    assert problem in done.stderr and advice in done.stderr and "Traceback" not in done.stderr


def test_a_server_that_does_not_run_is_told_below_its_address(check: Check) -> None:
    port = free_port()
    done = check(RUNNING, "echo 127.0.0.1", port=port)
    assert (done.returncode, done.stdout) == (1, f"http://127.0.0.1:{port}/ui/login\n")
    assert "nothing answers" in done.stderr and "REMOTE_ACCESS_MODE=tailscale HOST=0.0.0.0 dubbing-web" in done.stderr


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [(403, b"", "turns the tailnet away (403)"), (200, b"<html>", "something else than dubbing-web"), (404, b"", "something else")],
)  # fmt: skip
def test_another_server_or_mode_is_told(check: Check, status: int, body: bytes, problem: str) -> None:
    with server(status, body) as port:
        done = check(RUNNING, "echo 127.0.0.1", port=port)
    assert done.returncode == 1 and problem in done.stderr


def test_a_proxy_of_the_environment_is_not_asked(check: Check) -> None:
    with server(200, b"ok\n") as port:
        assert check(RUNNING, "echo 127.0.0.1", port=port, http_proxy="http://127.0.0.1:9").returncode == 0


@pytest.mark.parametrize("port", ["web", "0", "70000", "-1"])
def test_a_port_that_is_none_is_refused(check: Check, port: str) -> None:
    done = check(RUNNING, "echo 127.0.0.1", port=port)
    assert done.returncode == 1 and f"PORT is '{port}'" in done.stderr


# --- by `tailscale serve`, over the socket ------------------------------------------------------------------------------

NAMED = f"echo '{json.dumps({'BackendState': 'Running', 'Self': {'DNSName': 'box.tail1234.ts.net.'}})}'"


def leads(path: Path, **more: object) -> str:
    web = {"box.tail1234.ts.net:443": {"Handlers": {"/": {"Proxy": f"unix:{path}"}}}}
    return f"echo '{json.dumps({'Web': web, **more})}'"


@contextmanager
def on_socket(path: Path, body: bytes = b"ok\n") -> Iterator[None]:
    def answer() -> None:
        caller, _ = listener.accept()
        with caller:
            assert caller.recv(4096).startswith(b"GET /livez ")
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            thread.join(60)


def test_the_https_address_is_printed_when_serve_leads_to_the_socket(check: Check, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with on_socket(path):
        done = check(NAMED, serve=leads(path), DUBBING_WEB_SOCKET=str(path))
    assert (done.returncode, done.stdout) == (0, "https://box.tail1234.ts.net/ui/login\n")


def test_what_is_wrong_between_serve_and_socket_is_said_with_what_to_do(check: Check, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"

    def said(status: str = NAMED, serve: str = "", body: bytes | None = b"ok\n") -> str:
        with on_socket(path, body) if body is not None else nullcontext():
            done = check(status, serve=serve, DUBBING_WEB_SOCKET=str(path))
        path.unlink(missing_ok=True)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    assert "nothing answers" in (dead := said(body=None)) and f"DUBBING_WEB_SOCKET={path} dubbing-web" in dead
    assert "something else than dubbing-web" in said(body=b"no!")
    assert f"sudo tailscale serve --bg unix:{path}" in said(serve=leads(tmp_path / "other.sock"))
    assert "Funnel opens this machine" in said(serve=leads(path, AllowFunnel={"box.tail1234.ts.net:443": True}))
    assert "no name in the tailnet" in said(RUNNING, body=None)
