"""A form with a film in it (multipart/form-data), read as it comes: the film is handed on in pieces, never held in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dubbing.errors import UsageError

MOST_FIELDS = 40
LONGEST_FIELD = 4096


class _Parts:
    """Callbacks of the parser: fields are kept, pieces of the file wait to be fetched."""

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


class FilmForm:
    """The form of one request. First `find_film`, then, where there is one, `film` to its end."""

    def __init__(self, body: AsyncIterator[bytes], content_type: str, *, file_field: str) -> None:
        """Raises UsageError when the request has no form."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise UsageError(detail="The request must be a form (multipart/form-data)")
        self._body = body
        self._parts = _Parts(file_field)
        self._parser = MultipartParser(boundary, self._parts.callbacks())  # type: ignore[arg-type]

    @property
    def fields(self) -> dict[str, str]:
        """What was read so far; after `film`, or without one, everything."""
        return self._parts.fields

    @property
    def file_name(self) -> str:
        """As the sender wrote it."""
        return self._parts.file_name or ""

    @property
    def ended(self) -> bool:
        """Whether the form was read to its end; a connection that was lost leaves it open."""
        return self._parts.ended

    async def find_film(self) -> bool:
        """Read to where the file begins; False when the form has none. Raises UsageError."""
        async for chunk in self._body:
            self._parse(chunk)
            if self._parts.file_name is not None:
                return True
        self._end()
        return False

    async def film(self) -> AsyncIterator[bytes]:
        """The bytes of the file; what follows it in the form is read, too. Raises UsageError."""
        for piece in self._taken():
            yield piece
        async for chunk in self._body:
            self._parse(chunk)
            for piece in self._taken():
                yield piece
        self._end()

    def _taken(self) -> list[bytes]:
        pieces, self._parts.pieces = self._parts.pieces, []
        return pieces

    def _parse(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise UsageError(detail=f"The form cannot be read: {error}") from error

    def _end(self) -> None:
        if not self._parts.ended:
            raise UsageError(detail="The form ends in the middle")
