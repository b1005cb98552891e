"""Options of engines: typed, checked when the engine is loaded, refused in words that name the option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dubbing.errors import SettingsError


class Options(BaseModel):
    """Base of an engine's options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Options)


def read(model: type[Model], engine: str, options: Mapping[str, Any]) -> Model:
    """The options of a serve config as a `model`. Raises SettingsError."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        raise SettingsError(
            key=f"{engine}.{name}",
            value=first["input"],
            expected="there is no such option" if unknown else first["msg"],
            fix=f"{engine} takes: {', '.join(model.model_fields)}.",
        ) from error
