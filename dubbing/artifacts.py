"""A job's folder: names, atomic writes, fingerprints, and what is already done.

    <output>/<name>/            what the user asked for: videos, subtitles, report.json, timeline.json, job.log
    <output>/<name>/.work/      what a resume needs: job.json, lock, memos, manifests, spoken lines

Everything is keyed by a fingerprint of all that made it, so resume, edit-one-line and a second target language are one mechanism.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dubbing.errors import EmptyFileError, FileMissingError, JobBusyError

_SAMPLE = 1 << 20


def fingerprint(**parts: Any) -> str:
    """32 hex digits over all parts (JSON values), independent of their order."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_identity(path: Path) -> str:
    """Fingerprint of a file's size and of ten samples of 1 MiB; reads 10 MiB at most, whatever the size."""
    if not path.is_file():
        raise FileMissingError(name=path.name or str(path))
    size = path.stat().st_size
    if size == 0:
        raise EmptyFileError(name=path.name)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for step in range(10):
            file.seek(max(0, size - _SAMPLE) * step // 9)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:32]


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: a reader never sees half of it."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


class Manifest:
    """Finished lines by fingerprint: an append-only JSONL file that survives kill -9 at any byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, Any] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        for row in text.splitlines():
            try:
                key, value = json.loads(row)
            except ValueError:
                continue  # the torn last row of a killed process
            self._entries[key] = value
        if text and not text.endswith("\n"):
            with self.path.open("a") as file:
                file.write("\n")

    def get(self, key: str) -> Any | None:
        """The value put under this fingerprint, or None."""
        return self._entries.get(key)

    def put(self, key: str, value: Any) -> None:
        """Record a finished thing; call it after its file is in place."""
        self._entries[key] = value
        row = json.dumps([key, value], ensure_ascii=False, separators=(",", ":")) + "\n"
        with self.path.open("ab", buffering=0) as file:
            file.write(row.encode())

    def __len__(self) -> int:
        return len(self._entries)


class JobFolder:
    """The folder of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / ".work"

    @classmethod
    def open(cls, output_dir: Path, stem: str, job_id: str) -> JobFolder:
        """The folder of this job: named after the source, with a part of the id when another job has that name."""
        name = safe_name(stem)
        for candidate in (name, f"{name}-{job_id[:6]}"):
            folder = cls(output_dir.resolve() / candidate)
            marker = folder.work / "job.json"
            with contextlib.suppress(FileNotFoundError):
                if json.loads(marker.read_text())["id"] != job_id:
                    continue
            if not marker.exists():
                folder.work.mkdir(parents=True, exist_ok=True)
                write_atomically(marker, json.dumps({"id": job_id}))
            return folder
        return cls(output_dir.resolve() / f"{name}-{job_id}")

    def target(self, tag: str) -> Path:
        """Work folder of one target language."""
        folder = self.work / tag
        (folder / "speech").mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the job for this process; raises JobBusyError when another one has it. The kernel frees it on kill -9."""
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise JobBusyError(folder=str(self.path), pid=file.read().strip() or "unknown") from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            self._clear()
            yield

    def memo(self, name: str, key: str) -> Any | None:
        """The JSON a stage left under `name`, if it was made from the same things (`key`); else None."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            memo = json.loads((self.work / f"{name}.json").read_text())
            if memo["key"] == key:
                return memo["value"]
        return None

    def remember(self, name: str, key: str, value: Any) -> None:
        """Leave a stage's JSON result for the next run."""
        write_atomically(
            self.work / f"{name}.json", json.dumps({"key": key, "value": value}, ensure_ascii=False, indent=1)
        )

    @contextlib.contextmanager
    def journal(self, log: logging.Logger) -> Iterator[None]:
        """Append what `log` says to job.log while the body runs."""
        handler = logging.FileHandler(self.path / "job.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
        try:
            yield
        finally:
            log.removeHandler(handler)
            handler.close()

    def sweep(self) -> None:
        """Remove what a finished job does not need for an edit: decoded audio and left-over temporaries."""
        self._clear()
        for path in self.work.glob("*.wav"):
            path.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove half-written files of a killed process."""
        for pattern in (".*.tmp", ".*.part*"):
            for path in [*self.path.glob(pattern), *self.work.rglob(pattern)]:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


class Names:
    """Where a job's results go: `talk/talk.es.mp4`, `talk/talk.mkv`, `talk/talk.es.srt`, ..."""

    def __init__(self, folder: Path) -> None:
        self._stem = folder / folder.name

    def _with(self, suffix: str) -> Path:
        return self._stem.with_name(self._stem.name + suffix)

    def video(self, tag: str, audio_only: bool) -> Path:
        """The file for phones: MP4, or M4A when there are no pictures."""
        return self._with(f".{tag}.m4a" if audio_only else f".{tag}.mp4")

    def collection(self, audio_only: bool) -> Path:
        """All languages in one Matroska file."""
        return self._with(".mka" if audio_only else ".mkv")

    def preview(self, tag: str, audio_only: bool) -> Path:
        """The first minutes of a dub, while the rest of it is made."""
        return self._with(f".preview.{tag}.m4a" if audio_only else f".preview.{tag}.mp4")

    def original_head(self, tag: str) -> Path:
        """What a browser gets for the beginning of the MP4 when it is to play the original's sound (media/heads.py)."""
        return self._stem.parent / ".work" / tag / "original.head"

    def subtitle(self, tag: str) -> Path:
        """SubRip; the WebVTT lies beside it."""
        return self._with(f".{tag}.srt")

    def lines(self, tag: str) -> Path:
        """Every line of one target with its text, voice, place and problems, as JSON."""
        return self._stem.parent / f"lines.{tag}.json"

    def edits(self, tag: str) -> Path:
        """Lines of one target that were changed by hand (line_edits.py)."""
        return self._stem.parent / f"edits.{tag}.json"

    @property
    def peaks(self) -> Path:
        """How loud the source is over time, for pictures of it."""
        return self._stem.parent / "peaks.json"

    @property
    def loudness(self) -> Path:
        """How loud the source and the dubs are over time."""
        return self._stem.parent / "loudness.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self._stem.parent / "report.json"

    @property
    def timeline(self) -> Path:
        """The Chrome trace."""
        return self._stem.parent / "timeline.json"


def safe_name(stem: str) -> str:
    """A folder name from a file's name: no separators, control characters or leading dots, at most 100 bytes."""
    cleaned = re.sub(r"[\x00-\x1f\x7f/\\]", "_", stem).strip().lstrip(".")
    return cleaned.encode()[:100].decode(errors="ignore").strip() or "video"
