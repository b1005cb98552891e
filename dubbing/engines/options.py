"""Options of engines: typed, checked when the engine is loaded, refused in words that name the option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dubbing.errors import UsageError


class Options(BaseModel):
    """Base of an engine's options, the `args` of a serve config."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Options)


def read(model: type[Model], engine: str, options: Mapping[str, Any]) -> Model:
    """The options of an engine, checked. Raises UsageError that names the option and what the engine knows."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(model.model_fields))
            detail = f"The engine {engine} has no option {name}; it knows: {known}"
        else:
            detail = f"The option {name} of the engine {engine} is {first['input']!r}: {first['msg']}"
        raise UsageError(detail=detail) from error
