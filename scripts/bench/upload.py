#!/usr/bin/env python3
"""Upload a large file to dubbing-web and to raw ASGI sinks in turn, by the same curl: ratio of the times, CPU, memory.

scripts/bench/upload.py [--gigabytes 2] [--rounds 3]

The sink reads the request and throws it away; the writing sink writes each message to a file as it comes, which is the
least that keeping it costs; dubbing-web keeps it, too. All run under uvicorn with the same protocol and loop. Who begins
changes from round to round. CPU is that of the server, user and system. Memory is the resident set of the web process,
sampled while it receives.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import uvicorn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dubbing import config  # noqa: E402 - the tree of this script comes first, installed or not
from dubbing.store import open_store  # noqa: E402
from dubbing.web.identity import COOKIE  # noqa: E402

MB = 1_000_000


def run_sink(port: int, kept: Path | None) -> None:
    """The least that an ASGI application can do with a body, or the least that keeps it."""

    async def sink(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        with kept.open("wb", buffering=0) if kept else contextlib.nullcontext() as file:
            more = True
            while more:
                message = await receive()
                more = message.get("more_body", False)
                if file:
                    file.write(message.get("body", b""))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    options = uvicorn.Config(
        sink, port=port, lifespan="off", http="httptools", loop="uvloop", log_level="warning", server_header=False
    )
    uvicorn.Server(options).run()


@contextmanager
def child(command: list[str], port: int, **settings: str) -> Iterator[psutil.Process]:
    process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def curl(*arguments: str | Path) -> tuple[float, str]:
    """Seconds it took, and what was answered."""
    started = time.monotonic()
    done = subprocess.run(["curl", "-sS", "-f", "-i", *arguments], capture_output=True, text=True, check=True)
    return time.monotonic() - started, done.stdout


class Memory:
    """The resident set of a process while the block runs; `growth` in bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._over = process, threading.Event()
        self.growth = 0

    def _sample(self, before: int) -> None:
        while not self._over.wait(0.02):
            self.growth = max(self.growth, self._process.memory_info().rss - before)

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._sample, args=(self._process.memory_info().rss,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def upload(film: Path, address: str, cookie: str) -> float:
    """Seconds that one PATCH of the whole file takes; the upload is removed again."""
    headers = [f"Cookie: {COOKIE}={cookie}", "Sec-Fetch-Site: same-origin", "Tus-Resumable: 1.0.0"]
    common = [part for header in headers for part in ("-H", header)]
    size = film.stat().st_size
    _, made = curl("-X", "POST", *common, "-H", f"Upload-Length: {size}", f"{address}/api/v1/uploads")
    place = next(line.split()[1] for line in made.splitlines() if line.lower().startswith("location:"))
    piece = ["-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream"]
    seconds, answer = curl("-X", "PATCH", "-T", film, *common, *piece, f"{address}{place}")
    assert f"upload-offset: {size}" in answer.lower(), answer
    curl("-X", "DELETE", *common, f"{address}{place}")
    return seconds


def disk(film: Path) -> float:
    """Seconds that plainly writing the same bytes to the same disk takes, flushed: no server can be faster for long."""
    copy = film.with_name("copy.bin")
    started = time.monotonic()
    command = ["dd", f"if={film}", f"of={copy}", "bs=1M", "conv=fdatasync", "status=none"]
    subprocess.run(command, check=True)
    seconds = time.monotonic() - started
    copy.unlink()
    return seconds


@contextmanager
def servers(folder: str) -> Iterator[dict[str, tuple[psutil.Process, Callable[[Path], float]]]]:
    """Each server, and how a film is sent to it: seconds of the sending."""
    settings = {"DUBBING_OUTPUT_DIR": f"{folder}/Output", "QUEUE_MODE": "fallback", "PYTHONPATH": str(ROOT)}
    store, cookie = open_store(config.load(settings, env_file=None, secrets_file=None)), secrets.token_urlsafe(32)
    store.open_session(store.add_user("bench").id, cookie)
    store.close()
    kept, ports = Path(folder) / "kept.bin", [free_port() for _ in range(3)]
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    plain = [sys.executable, __file__, "--sink", str(ports[0])]
    writing = [sys.executable, __file__, "--sink", str(ports[1]), "--kept", str(kept)]
    web = [sys.executable, "-m", "dubbing.web.server", "--pages-only"]

    def write(film: Path) -> float:
        seconds = curl("-T", film, addresses[1])[0]
        kept.unlink()
        return seconds

    with (
        child(plain, ports[0]) as sink,
        child(writing, ports[1]) as writer,
        child(web, ports[2], PORT=str(ports[2]), **settings) as server,
    ):
        yield {
            "sink": (sink, lambda film: curl("-T", film, addresses[0])[0]),
            "writing sink": (writer, write),
            "dubbing-web": (server, lambda film: upload(film, addresses[2], cookie)),
        }


def main() -> int:
    arguments = argparse.ArgumentParser(description="Speed, CPU and memory of uploads against raw ASGI sinks.")
    arguments.add_argument("--gigabytes", type=float, default=2.0)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--sink", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.sink:
        run_sink(options.sink, options.kept)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.bin"
        with film.open("wb") as file:
            for _ in range(round(options.gigabytes * 1000)):
                file.write(os.urandom(1000) * 1000)
        with servers(folder) as found:
            wall, cpu = compare(film, found, options.rounds)
            total = found["dubbing-web"][0].memory_info().rss / MB
    sys.stdout.write(f"median of rounds; resident set of dubbing-web afterwards {total:.0f} MB\n")
    for name in wall:
        ratio = median(sink / ours for sink, ours in zip(wall["sink"], wall[name], strict=True))
        sys.stdout.write(
            f"{name}: {median(wall[name]):.2f} s, CPU {median(cpu[name]):.2f} s, {ratio:.2f} of the sink's speed\n"
        )
    return 0


def compare(
    film: Path, found: dict[str, tuple[psutil.Process, Callable[[Path], float]]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wall and CPU seconds of every round by server; the first round warms up and is only printed."""
    wall, cpu, names = defaultdict(list), defaultdict(list), list(found)
    for number in range(rounds + 1):
        what = f"round {number}" if number else "warm-up"
        for name in names[number % 3 :] + names[: number % 3]:
            server, send = found[name]
            before = sum(server.cpu_times()[:2])
            with Memory(server) as memory:
                seconds = send(film)
            used = sum(server.cpu_times()[:2]) - before
            sys.stdout.write(f"{what}: {name} {seconds:.2f} s, CPU {used:.2f} s, memory +{memory.growth / MB:.0f} MB\n")
            if number:
                wall[name].append(seconds)
                cpu[name].append(used)
        sys.stdout.write(f"{what}: the disk alone {disk(film):.2f} s\n")
        sys.stdout.flush()
    return wall, cpu


if __name__ == "__main__":
    sys.exit(main())
