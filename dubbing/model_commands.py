"""`dub models list|fetch|verify|lock`: the weights that engines need, and how they get here."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dubbing.config import Settings
from dubbing.engines import fetch as fetching
from dubbing.engines import registry, weights
from dubbing.engines.base import EngineSpec
from dubbing.engines.hub import Hub
from dubbing.engines.weights import Weights
from dubbing.errors import LicenceError, UsageError, WeightsDamagedError
from dubbing.model_errors import (
    OfflineError,
)

SAY_EVERY_S = 2.0
"""Between two lines about one download."""


@dataclass(frozen=True, slots=True)
class Model:
    """Weights, and the engines that use them."""

    weights: Weights
    engines: tuple[EngineSpec, ...]


def models(home: Path | None = None) -> dict[str, Model]:
    """All models that registered engines need, by name; with those in the folder `home` that only some engine can name."""
    found: dict[str, Model] = {}
    for spec in registry.specs():
        for needed in all_weights(spec):
            known = found.get(needed.name, Model(needed, ()))
            found[needed.name] = Model(needed, (*known.engines, spec))
    here = [place.name for place in home.iterdir() if place.is_dir()] if home and home.is_dir() else []
    for name in set(here) - set(found):
        if (further := _one_of_many(name)) is not None:
            found[name] = further
    return dict(sorted(found.items()))


def _one_of_many(name: str) -> Model | None:
    for spec in registry.specs():
        if (needed := spec.weights_named(name)) is not None:
            return Model(needed, (spec,))
    return None


def all_weights(spec: EngineSpec) -> list[Weights]:
    """The models that an engine needs."""
    return [*([spec.weights] if spec.weights else []), *spec.more_weights]


def place_of(model: Weights, settings: Settings) -> Path:
    """The model's folder."""
    return settings.models_dir.expanduser() / model.name


def list_models(arguments: argparse.Namespace, settings: Settings) -> int:
    """Every model with its size, licence, engines, and whether it is here."""
    rows = []
    for name, model in models(settings.models_dir.expanduser()).items():
        place = place_of(model.weights, settings)
        problem = weights.examine(model.weights, place)
        state = "here" if problem is None else "damaged" if problem.damaged else "not here"
        rows.append(
            {
                "name": name,
                "engines": [spec.name for spec in model.engines],
                "state": state,
                "detail": problem.detail if problem and problem.damaged else "",
                "size_mb": model.weights.size_mb,
                "licence": model.weights.licence,
                "commercial_use": model.weights.commercial_use,
                "repo": model.weights.repo,
                "revision": weights.read_record(place).revision if problem is None else "",
                "folder": str(place),
            }
        )
    if arguments.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return 0
    table = [("NAME", "ENGINES", "SIZE", "LICENCE", "COMMERCIAL", "STATE")]
    for row in rows:
        commercial = "yes" if row["commercial_use"] else "no"
        state = f"{row['state']}: {row['detail']}" if row["detail"] else str(row["state"])
        engines = ", ".join(row["engines"])  # type: ignore[arg-type]
        table.append((str(row["name"]), engines, f"{row['size_mb']} MB", str(row["licence"]), commercial, state))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")
    return 0


def fetch(arguments: argparse.Namespace, settings: Settings) -> int:
    """Fetch models from the hub, or import one from a folder."""
    if arguments.source is not None and len(arguments.names) != 1:
        raise UsageError(detail="--from takes the files of one model: name exactly one")
    chosen = [model for name in arguments.names for model in _named(name)]
    if arguments.source is not None and len(chosen) != 1:
        raise UsageError(detail=f"{arguments.names[0]} needs {' and '.join(m.weights.name for m in chosen)}: name one")
    done = []
    for model in chosen:
        source = arguments.source.expanduser() if arguments.source else None
        record = bring(model, settings, source=source, revision=arguments.revision)
        done.append({"name": model.weights.name, **asdict(record), "folder": str(place_of(model.weights, settings))})
    if arguments.json:
        sys.stdout.write(json.dumps(done, indent=1) + "\n")
    else:
        sys.stdout.writelines(f"{row['folder']}\n" for row in done)
    return 0


def bring(model: Model, settings: Settings, *, source: Path | None = None, revision: str = "") -> weights.Record:
    """Have a model here, from the hub or from the folder `source`.

    Raises LicenceError, OfflineError, and what `dubbing.engines.fetch` raises.
    """
    wanted = model.weights
    if settings.commercial_safe and not wanted.commercial_use:
        raise LicenceError(kind=model.engines[0].kind, name=model.engines[0].name, licence=wanted.licence)
    place = place_of(wanted, settings)
    must = fetching.pin(wanted, place, fetching.read_catalogue(settings.models_dir.expanduser()), revision)
    if source is not None:
        return fetching.import_folder(wanted, place, source, must, _Teller(wanted.name))
    if settings.offline:
        raise OfflineError(name=wanted.name)
    sys.stderr.write(f"{wanted.name}: about {wanted.size_mb} MB, licence {wanted.licence}\n")
    return fetching.fetch(wanted, place, Hub(settings.hub_url, settings.hub_token), must, _Teller(wanted.name))


def verify(arguments: argparse.Namespace, settings: Settings) -> int:
    """Exit code 0 when every file is as it was fetched, 4 when one is not."""
    chosen = _chosen(arguments.names, settings)
    catalogue = fetching.read_catalogue(settings.models_dir.expanduser())
    found = {
        m.weights.name: fetching.verify(
            m.weights, place_of(m.weights, settings), catalogue.get(m.weights.name, fetching.NO_PIN)
        )
        for m in chosen
    }
    bad = any(finding.problem for findings in found.values() for finding in findings)
    if arguments.json:
        sys.stdout.write(
            json.dumps({n: [asdict(f) for f in findings] for n, findings in found.items()}, indent=1) + "\n"
        )
        return 4 if bad else 0
    for name, findings in found.items():
        for finding in findings:
            sys.stdout.write(f"{'damaged' if finding.problem else 'ok':<8} {name}/{finding.file}")
            sys.stdout.write(f": {finding.problem}\n" if finding.problem else "\n")
        if any(finding.problem for finding in findings):
            sys.stdout.write(f"{'':<8} fix: dub models fetch {name}\n")
    if not found:
        sys.stdout.write(f"There are no models in {settings.models_dir.expanduser()}.\n")
    return 4 if bad else 0


def lock(arguments: argparse.Namespace, settings: Settings) -> int:
    """Pin models to the revision and the hashes they have here, in a file that other machines can be given.

    Raises WeightsDamagedError for a model that is not as it was fetched.
    """
    pins = {}
    for model in _chosen(arguments.names, settings):
        wanted, place = model.weights, place_of(model.weights, settings)
        for finding in fetching.verify(wanted, place):
            if finding.problem:
                fix = f"Run: dub models fetch {wanted.name}"
                detail = f"{finding.file}: {finding.problem}"
                engine = model.engines[0]
                raise WeightsDamagedError(kind=engine.kind, name=engine.name, detail=detail, install=fix)
        record = weights.read_record(place)
        pins[wanted.name] = fetching.Pin(record.revision, {name: file.sha256 for name, file in record.files.items()})
    path = fetching.write_catalogue(settings.models_dir.expanduser(), pins) if pins else None
    if arguments.json:
        found = {"catalogue": str(path) if path else None, "models": {name: asdict(pin) for name, pin in pins.items()}}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        sys.stdout.write(f"{path}\n" if path else f"There are no models in {settings.models_dir.expanduser()}.\n")
    return 0


def _chosen(names: Sequence[str], settings: Settings) -> list[Model]:
    """The models of these names, all that are here when there are none. Raises UsageError."""
    if names:
        return [model for name in names for model in _named(name)]
    known = models(settings.models_dir.expanduser())
    return [model for model in known.values() if place_of(model.weights, settings).is_dir()]


class _Teller:
    """Says on stderr how far a file is."""

    def __init__(self, model: str) -> None:
        self._model, self._said = model, 0.0

    def __call__(self, file: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._said >= SAY_EVERY_S:
            self._said = now
            sys.stderr.write(f"  {self._model}/{file}: {done / 1e6:.1f} of {total / 1e6:.1f} MB\n")
            sys.stderr.flush()


def _named(name: str) -> list[Model]:
    """A model by its name, or those of an engine. Raises UsageError."""
    known = models()
    if name in known:
        return [known[name]]
    if of_engine := [model for model in known.values() if name in (spec.name for spec in model.engines)]:
        return of_engine
    if (model := _one_of_many(name)) is not None:
        return [model]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
    raise UsageError(detail=f"There is no model named {name}; {hint}")
