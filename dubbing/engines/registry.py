"""Which engines exist: the entry points of group `dubbing.engines`, loaded one by one and only when asked for."""

from __future__ import annotations

import difflib
import logging
from importlib.metadata import EntryPoint, entry_points

from dubbing.engines.base import EngineSpec, Kind
from dubbing.engines.choose import Candidate
from dubbing.errors import EngineMissingError, UsageError

GROUP = "dubbing.engines"
OWN_DISTRIBUTION = "dubbing-pipeline"

log = logging.getLogger(__name__)


def names() -> list[str]:
    """Names of all registered engines, without importing any of them."""
    return list(_found())


def spec(name: str) -> EngineSpec:
    """The engine of that name. Raises UsageError when there is none, EngineMissingError when its plug-in is broken."""
    found = _found()
    if name not in found:
        near = difflib.get_close_matches(name, sorted(found), 1)
        known = f"did you mean {near[0]}?" if near else f"there are: {', '.join(found)}"
        raise UsageError(detail=f"There is no engine named {name}; {known}")
    return _load(found[name])


def specs(kind: Kind | None = None) -> list[EngineSpec]:
    """All engines that load, of one kind or of every kind, by name. A broken plug-in is logged and left out."""
    loaded = []
    for entry in _found().values():
        try:
            loaded.append(_load(entry))
        except EngineMissingError as error:
            log.warning("%s. %s", error.message, error.advice)
    return [found for found in loaded if kind in (None, found.kind)]


def broken() -> list[EngineMissingError]:
    """What is wrong with the plug-ins that do not load, for `dub doctor`."""
    errors = []
    for entry in _found().values():
        try:
            _load(entry)
        except EngineMissingError as error:
            errors.append(error)
    return errors


def survey(kind: Kind) -> list[Candidate]:
    """The engines of a kind with the facts `choose.choose` decides on; starts no engine."""
    return [Candidate(found, found.locate(), found.languages()) for found in specs(kind)]


def _found() -> dict[str, EntryPoint]:
    """Entry points by name, sorted; where two share a name, the program's own is kept."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, _package(e) != OWN_DISTRIBUTION, e.value)):
        if entry.name not in found:
            found[entry.name] = entry
        elif entry.value != found[entry.name].value:
            log.warning("The package %s offers a second engine %s; it is ignored.", _package(entry), entry.name)
    return found


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "unknown"


def _load(entry: EntryPoint) -> EngineSpec:
    try:
        loaded = entry.load()
    except Exception as error:
        raise _broken(entry, f"{type(error).__name__}: {error}") from error
    if not isinstance(loaded, EngineSpec):
        raise _broken(entry, f"{entry.value} is a {type(loaded).__name__}, not an EngineSpec")
    if loaded.name != entry.name:
        raise _broken(entry, f"{entry.value} calls itself {loaded.name}")
    return loaded


def _broken(entry: EntryPoint, detail: str) -> EngineMissingError:
    return EngineMissingError(
        kind="plug-in",
        name=entry.name,
        detail=f"its entry point {entry.name} = {entry.value} does not load ({detail})",
        install=f"Update or uninstall the package {_package(entry)}.",
    )
