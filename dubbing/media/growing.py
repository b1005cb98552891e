"""A WAV that is written from start to end over any number of runs: its length says how far it got."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from dubbing.media.wav import header
from dubbing.types import Int16Audio


class GrowingWav:
    """A 16-bit WAV of known length. It has its own name from `finish` on; until then what is there of it can be kept."""

    def __init__(self, path: Path, frames: int, channels: int, rate: int) -> None:
        """Open or go on with the file of `frames` samples per channel at `rate` Hz that will be `path`."""
        self.path, self.frames, self._frame = path, frames, 2 * channels
        self._growing = path.with_suffix(".growing")
        self._head = header(frames * self._frame, channels, rate)
        self._file = self._growing.open("a+b", buffering=0)
        if os.fstat(self._file.fileno()).st_size < len(self._head):
            self._file.truncate(0)
            self._file.write(self._head)

    @property
    def done(self) -> int:
        """Whole frames written so far."""
        return (os.fstat(self._file.fileno()).st_size - len(self._head)) // self._frame

    def cut(self, frames: int) -> None:
        """Forget everything behind the first `frames`."""
        self._file.truncate(len(self._head) + frames * self._frame)

    def append(self, audio: Int16Audio) -> None:
        """Write audio of shape (frames, channels) behind what is there."""
        data = audio.astype("<i2", order="C", copy=False).tobytes()
        while data:
            data = data[self._file.write(data) :]

    def finish(self) -> None:
        """Give the whole file its name."""
        self._file.close()
        self._growing.replace(self.path)

    def __enter__(self) -> GrowingWav:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
