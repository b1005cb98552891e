"""`--quality auto` on a machine without model weights: better ones may be fetched, once the user has said yes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from dubbing.config import Settings
from dubbing.engines import registry, weights
from dubbing.engines.base import Kind
from dubbing.engines.choose import RANK, Candidate
from dubbing.model_commands import Model, all_weights, bring, place_of
from dubbing.types import DubRequest

DECLINED = "declined.json"
"""Names of the models that somebody at the terminal did not want, in the models folder: nobody is asked twice."""


def offer(request: DubRequest, settings: Settings, *, yes: bool, ask: Callable[[str], str] | None = None) -> list[str]:
    """Fetch the models that would make this dub better, if the user agrees; answers their names.

    `yes` agrees beforehand; else `ask` puts the question, which by default only a terminal does. Who declines is not
    asked again. Raises what fetching raises.
    """
    if request.quality != "auto" or settings.offline or settings.ray_address:
        return []
    wanted = list(better(request, settings))
    refused = settings.models_dir.expanduser() / DECLINED
    if not yes:
        ask = ask or (_ask if sys.stdin.isatty() and sys.stderr.isatty() else None)
        wanted = [model for model in wanted if model.weights.name not in _read(refused)]
        if not wanted or ask is None:
            return []
        if ask(_question(wanted)).strip().lower() not in {"y", "yes"}:
            _add(refused, wanted)
            return []
    for model in wanted:
        bring(model, settings)
    return [model.weights.name for model in wanted]


def better(request: DubRequest, settings: Settings) -> Iterable[Model]:
    """For each work of this request that no good engine here can do: the model that would let one, the smallest of them."""
    source = request.source_language if request.source_language != "auto" else "en"
    found: dict[str, Model] = {}
    for kind, target in _works(request, source):
        able = [
            c
            for c in registry.survey(kind)
            if RANK[c.spec.quality] >= RANK["good"]
            and not c.spec.hidden
            and (c.spec.commercial_use or not settings.commercial_safe)
            and c.languages.can(target if kind == "speak" else source, target)
        ]
        if any(c.located.ok for c in able) or kind in request.engines:
            continue
        for candidate in sorted(filter(_only_weights_lack, able), key=_cost)[:1]:
            for model in all_weights(candidate.spec):
                if weights.problem(model, place_of(model, settings)):
                    found[model.name] = Model(model, (candidate.spec,))
    return found.values()


def _works(request: DubRequest, source: str) -> Iterable[tuple[Kind, str]]:
    """What has to be done, with the language it is done into."""
    spoken = [tag for tag in request.targets if tag not in request.translations]
    if spoken and request.transcript is None:
        yield "transcribe", source
    if spoken:
        yield "diarize", source
    if request.keep_background:
        yield "separate", source
    for tag in request.targets:
        if tag in spoken:
            yield "translate", tag
        yield "speak", tag


def _only_weights_lack(candidate: Candidate) -> bool:
    """Whether nothing but fetching mends it; an engine whose program is missing says so first."""
    mends = candidate.located.install
    return any(f"dub models fetch {model.name}" in mends for model in all_weights(candidate.spec))


def _cost(candidate: Candidate) -> tuple[int, int]:
    """Good before best, for that is what auto takes; then the smaller."""
    return RANK[candidate.spec.quality], sum(model.size_mb for model in all_weights(candidate.spec))


def _question(wanted: list[Model]) -> str:
    lines = [
        f"  {model.weights.name}: {model.engines[0].kind}, {model.weights.size_mb} MB, licence {model.weights.licence}"
        f"{'' if model.weights.commercial_use else ' (no commercial use)'}\n"
        for model in wanted
    ]
    total = sum(model.weights.size_mb for model in wanted)
    return f"Better models can be fetched for this:\n{''.join(lines)}Fetch them now, {total} MB? [y/N] "


def _ask(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline()


def _read(path: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []


def _add(path: Path, models: list[Model]) -> None:
    names = sorted({*_read(path), *(model.weights.name for model in models)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(names) + "\n", encoding="utf-8")
    sys.stderr.write(f"You will not be asked again; later: dub models fetch {' '.join(names)}\n")
