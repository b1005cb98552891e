"""Real servers for tests: started on a free port in a folder of their own, stopped by their process id."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

POSTGRES_BINARIES = ["/usr/local/bin", *sorted(str(p) for p in Path("/usr/lib/postgresql").glob("*/bin"))]


def wait_until(condition: Callable[[], object], timeout_s: float = 90.0, what: str = "the condition") -> None:
    """Return as soon as `condition()` is true; fail the test after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true within {timeout_s} s"
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def missing(service: str) -> None:
    """Skip on a developer's machine; in CI every service must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{service} is not installed")
    pytest.skip(f"{service} is not installed")


class RedisServer:
    """A redis-server of our own, with or without an append-only file."""

    def __init__(self, folder: Path, *, aof: bool = False, extra: tuple[str, ...] = ()) -> None:
        self.folder, self.aof, self.extra = folder, aof, extra
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> RedisServer:
        persistence = ("--appendonly", "yes", "--appendfsync", "everysec") if self.aof else ("--appendonly", "no")
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder),
             *persistence, *self.extra],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self.answers, what="redis-server")
        return self

    def answers(self) -> bool:
        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        """End it at once, as a crash would; `start` brings it back on the same port."""
        if self.process is not None:
            self.process.send_signal(sign)
            self.process.wait()
            self.process = None

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)


class Proxy:
    """Forwards TCP connections to a port that may change; what it holds back never arrives."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.sent = 0
        """Bytes on their way to the target, all connections together."""
        self._break_at: int | None = None
        self._counting = threading.Lock()
        self._holding = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(source, sink, source is near), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, towards: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self._holding:
                    sink.sendall(data)
                if towards:
                    self._count(len(data))
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()  # one that is only shut would keep who sends from noticing

    def _count(self, more: int) -> None:
        with self._counting:
            self.sent += more
            enough = self._break_at is not None and self.sent >= self._break_at
            self._break_at = None if enough else self._break_at
        if enough:
            self.lead_to(0)

    def break_after(self, count: int) -> None:
        """Break all connections, and refuse new ones until `lead_to`, once so many more bytes went to the target."""
        with self._counting:
            self._break_at = self.sent + count

    def hold(self) -> None:
        """Swallow everything from now on."""
        self._holding = True

    def lead_to(self, port: int) -> None:
        """Break all connections; new ones lead to another port."""
        self.target = port
        sockets, self._sockets = self._sockets, []
        for end in sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()
        self.lead_to(0)


class PostgresServer:
    """A PostgreSQL cluster in a temporary folder, listening on a unix socket only."""

    def __init__(self, folder: Path, binaries: str) -> None:
        self.data, self.binaries = folder / "data", Path(binaries)
        self.user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.sockets = folder
        self.url = f"postgresql://dubbing@/postgres?host={folder}"

    def _run(self, *command: str) -> None:
        prefix = ["runuser", "-u", self.user, "--"] if os.geteuid() == 0 else []
        subprocess.run([*prefix, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self) -> PostgresServer:
        if os.geteuid() == 0:
            shutil.chown(self.sockets, self.user)
        if not self.data.exists():
            self._run(str(self.binaries / "initdb"), "-D", str(self.data), "-U", "dubbing", "-A", "trust", "--no-sync")
        options = f"-c listen_addresses='' -c fsync=off -k {self.sockets}"
        self._run(
            str(self.binaries / "pg_ctl"),
            "-D",
            str(self.data),
            "-w",
            "-l",
            str(self.sockets / "log"),
            "-o",
            options,
            "start",
        )
        return self

    def stop(self) -> None:
        self._run(str(self.binaries / "pg_ctl"), "-D", str(self.data), "-m", "immediate", "-w", "stop")


def postgres_binaries() -> str | None:
    return next((folder for folder in POSTGRES_BINARIES if (Path(folder) / "initdb").exists()), None)
