"""A real `dubbing-web`, which may be killed and started again."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.web.conftest import environment


@contextmanager
def serving(output: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """`dubbing-web` over an output folder."""
    values = environment(DUBBING_OUTPUT_DIR=str(output), PORT=str(port), QUEUE_MODE="fallback")
    command = [sys.executable, "-m", "dubbing.web.server", "--pages-only"]
    with subprocess.Popen(command, env=values, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout and "is ready" in process.stdout.readline()
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
