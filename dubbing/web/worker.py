"""`dub serve` as a child of the web server: started, watched, started again when it dies, and ended with the server.

It has Ray and the dispatcher, of which the web process knows nothing. A pipe to its standard input ends when this process
does, by whatever signal, so the child is never left behind.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

COMMAND = (sys.executable, "-m", "dubbing.cli", "serve", "--json", "--until-eof")
STOP_S = 30.0
"""How long the dispatcher gets to put running jobs back in line and to end its Ray."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STEADY_S = 120.0
"""A child that ran this long is not failing again and again."""


def pause_s(failures: int) -> float:
    """Seconds before the next start after so many ends in a row, one or more: 1, 2, 4, ... 60."""
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (min(failures, 30) - 1)))


class Worker:
    """Keeps one child running. Use as a context; leaving it takes no longer than STOP_S and a moment."""

    def __init__(
        self,
        say: Callable[[str], None],
        command: Sequence[str] = COMMAND,
        *,
        pause: Callable[[int], float] = pause_s,
        stop_s: float = STOP_S,
    ) -> None:
        """`say` is told, from another thread, what a person at the terminal should know."""
        self._say, self._command, self._pause, self._stop_s = say, list(command), pause, stop_s
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep, name="worker", daemon=True)

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._turn:
            self._stopping.set()
            child = self._child
        try:
            if child is not None:
                child.send_signal(signal.SIGTERM)
            self._thread.join(self._stop_s)
        finally:  # also when somebody presses Ctrl-C again
            if child is not None and child.poll() is None:
                child.kill()
            self._thread.join()

    def _keep(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            child = self._start()
            if child is None:
                return
            self._listen(child)
            code = child.wait()
            if self._stopping.is_set():
                return
            failures = 1 if time.monotonic() - began >= STEADY_S else failures + 1
            wait = self._pause(failures)
            self._say(f"the worker ended ({_how(code)}); jobs wait, and it is started again in {wait:.0f} s")
            if self._stopping.wait(wait):
                return

    def _start(self) -> subprocess.Popen[str] | None:
        with self._turn:
            if self._stopping.is_set():
                return None
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
            )
            return self._child

    def _listen(self, child: subprocess.Popen[str]) -> None:
        """Pass on what it prints, until it closes its output."""
        assert child.stdin and child.stdout
        with child.stdin, child.stdout:
            for line in child.stdout:
                self._say(_told(line))


def _told(line: str) -> str:
    """The readiness line as a sentence; anything else as it is."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        facts = json.loads(line)
        slots = sum(facts["slots"].values())
        return f"the worker is ready, {slots} jobs at once. {facts['api']}".rstrip()
    return line.rstrip()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
