"""A form with a film in it (multipart/form-data), streamed to the disk as it comes: it is never held in memory."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dubbing.artifacts import safe_name
from dubbing.errors import DiskFullError, UsageError

MOST_FIELDS = 40
LONGEST_FIELD = 4096
LONGEST_NAME = 255
SPARE = 1_000_000_000
"""Bytes of the disk that uploads leave free."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


@dataclass
class FilmForm:
    """What came."""

    fields: dict[str, str] = field(default_factory=dict)
    film: Path | None = None
    """None when the form had no file."""
    name: str = ""
    """What its owner calls the file."""
    size: int = 0
    """Bytes."""


class _Parts:
    """Callbacks of the parser: fields are kept, pieces of the file wait to be written."""

    def __init__(self, file_field: str) -> None:
        self.fields: dict[str, str] = {}
        self.file_name: str | None = None
        self.pieces: list[bytes] = []
        self.ended = False
        self._file_field = file_field
        self._header = self._value = self._disposition = b""
        self._field: str | None = None
        self._data = b""

    def callbacks(self) -> dict[str, object]:
        """As the parser wants them."""
        names = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
        )
        return {f"on_{name}": getattr(self, name) for name in (*names, "end")}

    def part_begin(self) -> None:
        self._header = self._value = self._disposition = self._data = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        if b"filename" not in options:
            self._field = name
            if len(self.fields) >= MOST_FIELDS:
                raise UsageError(detail=f"The form has more than {MOST_FIELDS} fields")
            return
        if name != self._file_field or self.file_name is not None:
            raise UsageError(detail=f"The form may have one file, named {self._file_field}, and not {name[:40]!r}")
        self._field = None
        self.file_name = options[b"filename"].decode(errors="replace")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self.pieces.append(data[start:end])
            return
        self._data += data[start:end]
        if len(self._data) > LONGEST_FIELD:
            raise UsageError(detail=f"The field {self._field[:40]!r} is longer than {LONGEST_FIELD} bytes")

    def part_end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._data.decode(errors="replace")

    def end(self) -> None:
        self.ended = True


async def receive(
    body: AsyncIterator[bytes], content_type: str, folder: Path, *, file_field: str, announced: int
) -> FilmForm:
    """Take a form in; its file lies in `folder` afterwards, which is made for it and removed again when that fails.

    `announced` is the Content-Length, 0 when unknown. Raises UsageError, DiskFullError.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise UsageError(detail="The request must be a form (multipart/form-data)")
    parts = _Parts(file_field)
    folder.mkdir(parents=True)
    with ExitStack() as unless_taken:
        unless_taken.callback(shutil.rmtree, folder, ignore_errors=True)
        free = shutil.disk_usage(folder).free - SPARE
        _check_room(folder, free, announced)
        try:
            form = await _write(body, MultipartParser(boundary, parts.callbacks()), parts, folder, free)  # type: ignore[arg-type]
        except FormParserError as error:
            raise UsageError(detail=f"The form cannot be read: {error}") from error
        unless_taken.pop_all()
    if form.film is None:
        folder.rmdir()
    return form


async def _write(
    body: AsyncIterator[bytes], parser: MultipartParser, parts: _Parts, folder: Path, free: int
) -> FilmForm:
    form = FilmForm(fields=parts.fields)
    file: BinaryIO | None = None
    try:
        async for chunk in body:
            parser.write(chunk)
            if file is None and parts.file_name is not None:
                form.name = _CONTROL.sub("", PurePath(parts.file_name.replace("\\", "/")).name)[:LONGEST_NAME]
                form.film = folder / film_name(form.name)
                file = form.film.open("xb")
            if file is not None and parts.pieces:
                form.size += sum(map(len, parts.pieces))
                _check_room(folder, free, form.size)
                await asyncio.to_thread(file.writelines, parts.pieces)
                parts.pieces.clear()
        parser.finalize()
    finally:
        if file is not None:
            file.close()
    if not parts.ended:
        raise UsageError(detail="The form ends in the middle")
    return form


def film_name(name: str) -> str:
    """The name of an upload as the name of a file."""
    suffix = PurePath(name).suffix
    if not re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix):
        return safe_name(name)
    return safe_name(name.removesuffix(suffix)) + suffix.lower()


def _check_room(folder: Path, free: int, size: int) -> None:
    if size > free:
        need_mb = -(-size // 1_000_000)
        raise DiskFullError(folder=str(folder.parent), free_mb=max(0, free) // 1_000_000, need_mb=need_mb)
