"""Whether what an engine needs is on this machine, found without loading any of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from dubbing.engines import weights
from dubbing.engines.base import Kind, Located
from dubbing.errors import EngineMissingError


def missing(packages: Mapping[str, str]) -> str | None:
    """The first package that is not installed. `packages`: module to import -> the package that brings it."""
    return next((package for module, package in packages.items() if find_spec(module) is None), None)


def require(packages: Mapping[str, str], install: str, *, kind: Kind, engine: str) -> None:
    """Raises EngineMissingError, which names the first package that is not installed."""
    if (package := missing(packages)) is not None:
        detail = f"the package {package} is not installed"
        raise EngineMissingError(kind=kind, name=engine, detail=detail, install=install)


def locate(packages: Mapping[str, str], install: str, *needed: weights.Weights) -> Located:
    """Whether the packages and all weights are here; `install`, with `{package}` filled in, is how packages come."""
    if (package := missing(packages)) is not None:
        return Located(False, f"the package {package} is not installed", install.format(package=package))
    for one in needed:
        place = weights.folder(one, {})
        if detail := weights.problem(one, place) if place.is_dir() else "its weights are not on this machine":
            return Located(False, detail, f"dub models fetch {one.name}")
    return Located(True)
