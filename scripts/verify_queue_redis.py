"""Prove that the queue works over Redis: REDIS_URL if set, else Docker's redis:7-alpine, else redis-server.

Prints one line; exit code 0 when it works or when there is no Redis to try (the line says so), else 1. Uses key names
of its own and removes them, so that a Redis in use is not disturbed.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from queue_check import JOBS, USER_CAP, check

from dubbing import config
from dubbing.errors import DubbingError, SettingsError
from dubbing.queue.choose import Choice
from dubbing.queue.redis_queue import RedisQueue
from dubbing.queue_errors import QueueDownError

IMAGE = "redis:7-alpine"


def main() -> int:
    try:
        named = config.load().redis_url
    except SettingsError as error:
        print(f"FAIL: {error.message}")
        return 1
    with a_redis(named) as (url, name):
        if url is None:
            print(f"SKIP: {name}.")
            return 0
        queue = RedisQueue(url, namespace=f"verify-{uuid.uuid4().hex[:12]}")
        try:
            warnings = queue.check_server(time.time_ns() // 1_000_000)
            with tempfile.TemporaryDirectory(prefix="dub-verify-") as folder:
                settings = config.load({"DUBBING_STATE_DIR": folder}, None)
                wrong = check(settings, Choice(queue, "redis", name, tuple(warnings), queue, None))
            queue.forget_everything()
        except DubbingError as error:
            wrong = error.message
        finally:
            queue.close()
    if wrong:
        print(f"FAIL: the queue does not work over {name}: {wrong}")
        return 1
    print(f"OK: the queue over {name} ran {JOBS} jobs of two users, at most {USER_CAP} each at once, by priority.")
    return 0


@contextmanager
def a_redis(named: str | None) -> Iterator[tuple[str | None, str]]:
    """A Redis to try and what to call it; (None, why not) when there is none."""
    if named is not None:
        yield named, "the Redis of REDIS_URL"
        return
    port = free_port()
    container = docker_redis(port)
    try:
        if container is not None and answers(port):
            yield f"redis://127.0.0.1:{port}/0", f"Docker's {IMAGE}"
            return
    finally:
        if container is not None:
            subprocess.run(["docker", "rm", "--force", container], check=False, capture_output=True)
    if shutil.which("redis-server") is None:
        yield None, "REDIS_URL is not set, Docker does not run, and redis-server is not installed"
        return
    with tempfile.TemporaryDirectory(prefix="dub-redis-") as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield (
                (f"redis://127.0.0.1:{port}/0", "redis-server")
                if answers(port)
                else (None, "redis-server did not start")
            )
        finally:
            server.terminate()
            server.wait()


def docker_redis(port: int) -> str | None:
    """Id of a container that serves Redis on the port, or None without a working Docker."""
    if shutil.which("docker") is None:
        return None
    command = ["docker", "run", "--detach", "--rm", "--publish", f"127.0.0.1:{port}:6379", IMAGE]
    started = subprocess.run(command, check=False, capture_output=True, text=True)
    return started.stdout.strip() if started.returncode == 0 else None


def answers(port: int) -> bool:
    queue = RedisQueue(f"redis://127.0.0.1:{port}/0")
    end = time.monotonic() + 20
    try:
        while time.monotonic() < end:
            try:
                queue.ping()
            except QueueDownError:
                time.sleep(0.05)
            else:
                return True
        return False
    finally:
        queue.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
