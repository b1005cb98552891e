"""Bring a model's files to their folder, whole and checked, or not at all.

Every file is hashed while it is written. All files wait beside their places until the last has arrived; then they move
in and the record is written, so that a folder never holds a mixture of two revisions.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dubbing.engines.hub import BLOCK, Hub, HubFile
from dubbing.engines.weights import RECORD, FileRecord, Record, Weights, read_record
from dubbing.errors import BadInputError, JobBusyError, MachineError, UsageError
from dubbing.model_errors import (
    CatalogueError,
    DownloadCutError,
    HubMissingError,
    ModelsDiskError,
    WeightsHashError,
    WeightsSizeError,
)

CATALOGUE = "catalogue.json"
"""{model: {"revision": commit, "files": {name: SHA-256}}} in the models folder, written by its owner; both optional."""
NEWEST = "main"
_LOCK = ".lock"
_SPARE_MB = 64
"""Left free on the disk."""

Report = Callable[[str, int, int], None]
"""Hears (file, bytes so far, bytes in all)."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What a model must be."""

    revision: str = ""
    """Commit, branch or tag; empty: the newest."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Hashes by file name, as far as they are known."""


NO_PIN = Pin()


def read_catalogue(models: Path) -> dict[str, Pin]:
    """The pins that the owner of the models folder wrote down. Raises CatalogueError."""
    path = models / CATALOGUE
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): Pin(str(pin.get("revision", "")), {str(f): str(s) for f, s in pin.get("files", {}).items()})
            for name, pin in told.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise CatalogueError(path=str(path), detail=" ".join(str(error).split())[:200]) from error


def write_catalogue(models: Path, pins: Mapping[str, Pin]) -> Path:
    """Add these pins to the catalogue of the models folder, in place of those of the same models; answers its path.

    Raises CatalogueError, MachineError.
    """
    path = models / CATALOGUE
    told = {
        name: {"revision": pin.revision, "files": dict(sorted(pin.sha256.items()))}
        for name, pin in sorted({**read_catalogue(models), **pins}.items())
    }
    part = path.with_name(f".{CATALOGUE}.part")
    try:
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise MachineError(detail=f"{path} cannot be written ({error.strerror or error})") from error
    return path


def pin(weights: Weights, place: Path, catalogue: Mapping[str, Pin], revision: str = "") -> Pin:
    """What `weights` must be: by the catalogue, the engine, or else as they were when they were first fetched here.

    `revision` is what the user asks for. Raises UsageError when the catalogue says another.
    """
    listed = catalogue.get(weights.name, Pin())
    if revision and listed.revision and revision != listed.revision:
        raise UsageError(detail=f"The catalogue of models pins {weights.name} to the revision {listed.revision}")
    try:
        known = read_record(place)
    except ValueError:
        known = Record()
    wanted = revision or listed.revision or weights.revision or known.revision
    first = {name: file.sha256 for name, file in known.files.items()} if wanted == known.revision else {}
    return Pin(wanted, {**first, **listed.sha256})


def fetch(weights: Weights, place: Path, hub: Hub, must: Pin, report: Report) -> Record:
    """Download what is not there or not right. Raises the hub's errors and those named `Weights...` and `Download...`.

    What has arrived of a download that breaks off is kept, and the next call goes on from there.
    """
    with _folder(weights, place):
        listing = hub.listing(weights.repo, must.revision or NEWEST)
        absent = [name for name in weights.files if name not in listing.files]
        if absent:
            raise HubMissingError(hub=hub.address, what=f"{absent[0]} in {weights.repo} at {listing.commit}")
        fetched: dict[str, FileRecord] = {}
        parts: dict[str, Path] = {}
        for name in weights.files:
            told = listing.files[name]
            expected = must.sha256.get(name, told.sha256)
            if told.sha256 and told.sha256 != expected:
                raise WeightsHashError(name=weights.name, file=name, found=told.sha256, expected=expected)
            here = place / name
            if here.is_file() and here.stat().st_size == told.size and expected and sha256_of(here) == expected:
                fetched[name] = FileRecord(told.size, expected)
                continue
            key = (expected or told.blob or listing.commit)[:12]
            parts[name] = here.with_name(f".{here.name}.{key}.part")
        _require_room(weights, place, {part: listing.files[name].size for name, part in parts.items()})
        for name, part in parts.items():
            source = _Source(hub, weights, listing.commit, name, listing.files[name])
            fetched[name] = source.fetch(part, must.sha256.get(name, ""), report)
        return _move_in(place, parts, Record(weights.repo, listing.commit, {n: fetched[n] for n in weights.files}))


def import_folder(weights: Weights, place: Path, source: Path, must: Pin, report: Report) -> Record:
    """Take the files from a folder of this machine, by hard link where that can be done.

    Raises BadInputError for a folder that lacks one, WeightsHashError when a pinned file is another.
    """
    for name in weights.files:
        if not (source / name).is_file():
            raise BadInputError(name=str(source), detail=f"it has no {name}, which {weights.name} needs")
    with _folder(weights, place):
        fetched, parts = {}, {}
        for name in weights.files:
            path = (source / name).resolve()
            size, found = path.stat().st_size, sha256_of(path)
            expected = must.sha256.get(name, found)
            if found != expected:
                raise WeightsHashError(name=weights.name, file=name, found=found, expected=expected)
            parts[name] = (place / name).with_name(f".{Path(name).name}.{found[:12]}.part")
            fetched[name] = FileRecord(size, found)
            _link_or_copy(path, parts[name])
            report(name, size, size)
        return _move_in(place, parts, Record(str(source.resolve()), must.revision, fetched))


@dataclass(frozen=True, slots=True)
class Finding:
    """One file of a model, looked at closely."""

    file: str
    problem: str = ""
    """As the end of a sentence; empty when the file is as it was fetched."""


def verify(weights: Weights, place: Path, listed: Pin = NO_PIN) -> list[Finding]:
    """Hash every file and compare it with the record, and the record with what the catalogue `listed`.

    Files that nobody asked for are findings too.
    """
    try:
        record = read_record(place)
    except ValueError:
        return [Finding(RECORD, "it cannot be read")]
    if not record.files:
        return [Finding(RECORD, "there is none, so nothing is known of these files")]
    found = [
        Finding(name, _difference(place / name, record.files.get(name), listed.sha256.get(name, "")))
        for name in weights.files
    ]
    if listed.revision and record.revision != listed.revision:
        problem = f"it was fetched at the revision {record.revision or 'that nobody noted'}"
        found.append(Finding(RECORD, f"{problem}, and the catalogue says {listed.revision}"))
    known = {RECORD, *weights.files}
    others = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    # What begins with a dot is ours: the lock, and downloads on their way.
    return found + [
        Finding(o, "it is extra: the model does not consist of it")
        for o in others
        if o not in known and not Path(o).name.startswith(".")
    ]


def sha256_of(path: Path) -> str:
    """Hash of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Source:
    """One file of a repository at a commit."""

    hub: Hub
    weights: Weights
    commit: str
    name: str
    told: HubFile

    def fetch(self, part: Path, pinned: str, report: Report) -> FileRecord:
        """Have the whole file in `part`, and know that it is the right one."""
        part.parent.mkdir(parents=True, exist_ok=True)
        digests = self._write(part, report)
        found = digests.sha256.hexdigest()
        expected = pinned or self.told.sha256
        if (expected and found != expected) or (self.told.blob and digests.blob.hexdigest() != self.told.blob):
            part.unlink()
            expected = expected or f"that of the git object {self.told.blob}"
            raise WeightsHashError(name=self.weights.name, file=self.name, found=found, expected=expected)
        return FileRecord(self.told.size, found)

    def _write(self, part: Path, report: Report) -> _Digests:
        size, have = self.told.size, 0
        digests = _Digests(size)
        with part.open("a+b") as file:
            here = os.fstat(file.fileno()).st_size
            if here > size:
                file.truncate(here := 0)
            file.seek(0)
            while have < here:
                block = file.read(min(BLOCK, here - have))
                digests.update(block)
                have += len(block)
            if have == size:
                return digests
            with self.hub.download(self.weights.repo, self.commit, self.name, have) as download:
                if download.start != have:
                    file.truncate(0)
                    digests, have = _Digests(size), 0
                for block in download.blocks():
                    have += len(block)
                    if have > size:
                        file.truncate(0)
                        raise WeightsSizeError(name=self.weights.name, file=self.name, size=size)
                    file.write(block)
                    digests.update(block)
                    report(self.name, have, size)
            file.flush()
            os.fsync(file.fileno())
        if have < size:
            raise DownloadCutError(name=self.weights.name, file=self.name, got=have, size=size)
        return digests


class _Digests:
    """SHA-256, and git's own hash of the same bytes."""

    def __init__(self, size: int) -> None:
        self.sha256 = hashlib.sha256()
        self.blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, block: bytes) -> None:
        self.sha256.update(block)
        self.blob.update(block)


def _difference(path: Path, known: FileRecord | None, listed: str) -> str:
    if not path.is_file():
        return "it is missing"
    if known is None:
        return "it is not in the record"
    size = path.stat().st_size
    if size != known.size:
        return f"it has {size} bytes, not {known.size}"
    found = sha256_of(path)
    if found != known.sha256:
        return f"its SHA-256 is {found}, not {known.sha256}"
    return f"its SHA-256 is {found}, and the catalogue says {listed}" if listed and found != listed else ""


def _require_room(weights: Weights, place: Path, sizes: Mapping[Path, int]) -> None:
    have = sum(part.stat().st_size for part in sizes if part.is_file())
    need_mb, free_mb = (sum(sizes.values()) - have) >> 20, _free_mb(place)
    if need_mb + _SPARE_MB > free_mb:
        raise ModelsDiskError(folder=str(place), free_mb=free_mb, name=weights.name, need_mb=need_mb)


def _free_mb(place: Path) -> int:
    return shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free >> 20


def _link_or_copy(path: Path, part: Path) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(path)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, part)


def _move_in(place: Path, parts: Mapping[str, Path], record: Record) -> Record:
    """Old files go before new ones come: whoever is killed here leaves a gap that is noticed, never a mixture."""
    (place / RECORD).unlink(missing_ok=True)
    for name in parts:
        (place / name).unlink(missing_ok=True)
    for name, part in parts.items():
        part.replace(place / name)
    text = json.dumps(
        {"repo": record.repo, "revision": record.revision, "files": {n: asdict(f) for n, f in record.files.items()}},
        indent=1,
    )
    temporary = place / f".{RECORD}.part"
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(place / RECORD)
    for left in place.rglob(".*.part"):  # of revisions that are no longer wanted
        left.unlink()
    return record


@contextmanager
def _folder(weights: Weights, place: Path) -> Iterator[None]:
    """The model's folder, there and ours alone. Raises JobBusyError, ModelsDiskError or MachineError."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        with (place / _LOCK).open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise JobBusyError(folder=str(place), pid=lock.read(20).strip() or "unknown") from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            facts = {"folder": str(place), "free_mb": _free_mb(place), "name": weights.name}
            raise ModelsDiskError(**facts, need_mb=weights.size_mb) from error
        raise MachineError(detail=f"{error.filename or place} cannot be written ({error.strerror or error})") from error
