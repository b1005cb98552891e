"""Programs that engines drive: run once with a limit, or kept running and asked again and again.

GPL programs (apertium, espeak-ng) are run, never linked.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence

from dubbing.errors import EngineError


def run_once(name: str, arguments: Sequence[str], text: str, timeout_s: float) -> bytes:
    """Run a program on a text and give back what it wrote. Raises EngineError with its own words when it fails."""
    try:
        done = subprocess.run(arguments, input=text.encode(), capture_output=True, timeout=timeout_s, check=False)
    except FileNotFoundError as error:
        raise EngineError(name=name, detail=f"the program {arguments[0]} has gone") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(name=name, detail=f"{arguments[0]} did not answer within {timeout_s:g} s") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise EngineError(name=name, detail=words[-1] if words else f"{arguments[0]} ended with {done.returncode}")
    return done.stdout


class Pipeline:
    """Programs joined by pipes that stay running: bytes go in at the first, answers come out of the last."""

    def __init__(self, name: str, commands: Sequence[Sequence[str]]) -> None:
        """Start the programs. Raises EngineError when one cannot be started."""
        self._name = name
        self._processes: list[subprocess.Popen[bytes]] = []
        self._overdue = False
        source: int | None = subprocess.PIPE
        try:
            for command in commands:
                process = subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                if self._processes and self._processes[-1].stdout:
                    self._processes[-1].stdout.close()  # only the next program holds it, so that ends are noticed
                self._processes.append(process)
                source = process.stdout.fileno() if process.stdout else None
        except OSError as error:
            self.close()
            raise EngineError(name=name, detail=f"{error.filename} could not be started: {error.strerror}") from error

    def ask(self, request: bytes, end: bytes, timeout_s: float) -> bytes:
        """Send a request and read up to and without the byte `end`. Raises EngineError when it dies or hangs."""
        into, out = self._processes[0].stdin, self._processes[-1].stdout
        if into is None or out is None:
            raise EngineError(name=self._name, detail="it has been closed")
        timer = threading.Timer(timeout_s, self._kill)
        timer.start()
        answer = bytearray()
        try:
            into.write(request)
            into.flush()
            while not answer.endswith(end):
                byte = out.read(1)
                if not byte:
                    raise EngineError(name=self._name, detail=self._obituary(timeout_s))
                answer += byte
        except (BrokenPipeError, ValueError) as error:
            raise EngineError(name=self._name, detail=self._obituary(timeout_s)) from error
        finally:
            timer.cancel()
        if any(process.poll() is not None for process in self._processes):
            raise EngineError(name=self._name, detail=self._obituary(timeout_s))  # its end may look like an answer
        return bytes(answer[: -len(end)])

    def close(self) -> None:
        """End the programs; calling twice is fine."""
        for process in self._processes:
            if process.stdin and not process.stdin.closed:
                try:
                    process.stdin.close()
                except BrokenPipeError:
                    continue
        self._kill_late()
        for process in self._processes:
            if process.stdout:
                process.stdout.close()

    def _kill_late(self) -> None:
        for process in self._processes:
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _kill(self) -> None:
        self._overdue = True
        for process in self._processes:
            process.kill()

    def _obituary(self, timeout_s: float) -> str:
        if self._overdue:
            return f"it did not answer within {timeout_s:g} s"
        codes = [process.poll() for process in self._processes]
        return f"it ended by itself (exit codes {codes})"
