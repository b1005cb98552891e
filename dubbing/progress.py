"""What a terminal shows: one line per stage that is redrawn in place; plain lines where nobody can redraw."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from dubbing.types import Progress, Stage

EVERY_S = 5.0
"""Seconds between plain lines of one stage."""
_BAR = 20


class ProgressPrinter:
    """Prints Progress events to a stream."""

    def __init__(self, stream: TextIO | None = None, redraw: bool | None = None) -> None:
        self._out = stream or sys.stderr
        self._redraw = self._out.isatty() if redraw is None else redraw
        self._rows: dict[tuple[Stage, str | None], str] = {}
        self._said: dict[tuple[Stage, str | None], float] = {}
        self._finished: set[tuple[Stage, str | None]] = set()

    def say(self, text: str) -> None:
        """A line of its own, above the stages' lines."""
        self._erase()
        self._out.write(text + "\n")
        self._rows.clear()
        self._out.flush()

    def __call__(self, progress: Progress) -> None:
        """Show one state of one stage."""
        key = (progress.stage, progress.target)
        complete = progress.total > 0 and progress.done >= progress.total
        if self._redraw:
            self._erase()
            self._rows[key] = render(progress, bar=True)
            self._out.write("".join(row + "\n" for row in self._rows.values()))
            self._out.flush()
            return
        now = time.monotonic()
        first = key not in self._said
        if (complete and key not in self._finished) or (not complete and (first or now - self._said[key] >= EVERY_S)):
            self._said[key] = now
            if complete:
                self._finished.add(key)
            if complete or not first or progress.done:
                self._out.write(render(progress, bar=False) + "\n")
                self._out.flush()

    def _erase(self) -> None:
        if self._redraw and self._rows:
            self._out.write(f"\x1b[{len(self._rows)}A\x1b[J")


def render(progress: Progress, *, bar: bool) -> str:
    """One state as one line."""
    name = f"{progress.stage.value} {progress.target}" if progress.target else progress.stage.value
    done, total = progress.done, progress.total
    percent = (progress.target is None and progress.stage is Stage.INGEST) or progress.stage in (
        Stage.DIARIZE,
        Stage.MIX,
        Stage.PACKAGE,
    )
    count = ("done" if done >= total else "...") if percent else f"{done}/{total}"
    parts = [f"{name:<14}"]
    if bar and total:
        filled = min(_BAR, _BAR * done // total)
        parts.append("#" * filled + "." * (_BAR - filled))
    parts.append(f"{count:>9}")
    if progress.eta_s and done < total:
        parts.append(f"  {_time(progress.eta_s)} to go")
    if progress.note:
        parts.append(f"  {progress.note}")
    return " ".join(parts).rstrip()


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class TransferPrinter:
    """Prints how far files on their way are: one line that is redrawn in place, or a line now and then and at the end."""

    def __init__(self, verb: str, stream: TextIO | None = None, redraw: bool | None = None) -> None:
        """`verb` is what is done to a file, such as `sent`."""
        self._verb = verb
        self._out = stream or sys.stderr
        self._redraw = self._out.isatty() if redraw is None else redraw
        self._said = time.monotonic()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show how many bytes of how many have arrived."""
        ended = done >= total
        text = f"{name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB {self._verb}"
        if self._redraw:
            self._out.write(f"\r\x1b[K{text}" + "\n" * ended)
        elif ended or time.monotonic() - self._said >= EVERY_S:
            self._said = time.monotonic()
            self._out.write(f"{text}\n")
        self._out.flush()
