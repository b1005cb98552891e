"""A DubRequest as the JSON data that a job's row holds, and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dubbing.errors import UsageError
from dubbing.types import DubRequest


@cache
def _adapter() -> TypeAdapter[DubRequest]:
    return TypeAdapter(DubRequest)


def to_json(request: DubRequest) -> dict[str, Any]:
    """JSON data with every field; paths as text."""
    data: dict[str, Any] = _adapter().dump_python(request, mode="json")
    return data


def from_json(data: Mapping[str, Any]) -> DubRequest:
    """The request of a row. Raises UsageError when a field is missing or of the wrong kind."""
    try:
        return _adapter().validate_python(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UsageError(detail=f"The request of the job cannot be read: {field}: {first['msg']}") from error
