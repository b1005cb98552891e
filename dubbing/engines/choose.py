"""Which engine does the work: a pure policy that always says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dubbing.engines.base import EngineSpec, Kind, Languages, Located
from dubbing.errors import EngineMissingError, LanguageError, LicenceError, UsageError
from dubbing.types import Quality

RANK = {"draft": 0, "good": 1, "best": 2}
_WORK = {
    "transcribe": "recognises {source}",
    "align": "times words of {source}",
    "translate": "translates {source} to {target}",
    "speak": "speaks {target}",
    "separate": "parts speech from background",
    "diarize": "tells speakers apart",
}


@dataclass(frozen=True)
class Candidate:
    """An engine and what is known about it on this machine."""

    spec: EngineSpec
    located: Located
    languages: Languages


@dataclass(frozen=True)
class Choice:
    """The engine that was chosen."""

    spec: EngineSpec
    reason: str
    """A sentence for the user."""


def choose(
    candidates: Sequence[Candidate],
    *,
    kind: Kind,
    source: str,
    target: str,
    quality: Quality = "auto",
    name: str | None = None,
    commercial_safe: bool = False,
) -> Choice:
    """Choose the engine for one kind of work; only translate looks at both languages (BCP-47 tags).

    `auto` takes the best that is here and can do it. An explicit quality never falls below the best *known* engine of
    at most that quality: if that one is missing, the error says what to install. Doubles are taken by `name` only.
    Raises UsageError, EngineMissingError, LicenceError or LanguageError.
    """
    if kind == "speak":
        source = target
    elif kind != "translate":
        target = source
    work = _WORK[kind].format(source=source, target=target)
    if name is not None:
        chosen = _named(candidates, kind, name)
        _require(chosen, work, source, target, commercial_safe)
        return Choice(chosen.spec, f"{name} {work}: it was asked for by name ({chosen.spec.quality} quality).")
    visible = [c for c in candidates if c.spec.kind == kind and not c.spec.hidden]
    if not visible:
        raise EngineMissingError(kind=kind, name="", detail="none is registered", install="Reinstall dubbing-pipeline.")
    visible.sort(key=lambda c: -RANK[c.spec.quality])
    if quality == "auto":
        return _best_here(visible, work, source, target, commercial_safe)
    return _of_quality(visible, work, source, target, commercial_safe, quality=quality)


def choose_optional(
    candidates: Sequence[Candidate],
    *,
    kind: Kind,
    source: str,
    quality: Quality,
    name: str | None = None,
    commercial_safe: bool = False,
) -> Choice | str:
    """The engine for work that a dub can do without, or the sentence why there is none, empty when nobody expects one.

    Draft quality expects none, `auto` takes what is here, good and best insist: raises what `choose` raises. Where licences
    forbid every engine there is, the work is left out and said to be.
    """
    visible = [c for c in candidates if c.spec.kind == kind and not c.spec.hidden]
    if name is None:
        if quality == "draft" or (quality == "auto" and not any(c.located.ok for c in visible)):
            return ""
        if visible and not any(_allowed(c, commercial_safe) for c in visible):
            refused = ", ".join(f"{c.spec.name} ({_weights_licence(c.spec)})" for c in visible)
            return f"Nothing here {_WORK[kind]}: DUBBING_COMMERCIAL_SAFE is on and forbids {refused}."
    return choose(
        candidates,
        kind=kind,
        source=source,
        target=source,
        quality=quality,
        name=name,
        commercial_safe=commercial_safe,
    )


def _weights_licence(spec: EngineSpec) -> str:
    return spec.weights.licence if spec.weights else spec.licence


def _named(candidates: Sequence[Candidate], kind: Kind, name: str) -> Candidate:
    for candidate in candidates:
        if candidate.spec.name == name:
            if candidate.spec.kind != kind:
                raise UsageError(detail=f"The engine {name} is a {candidate.spec.kind} engine, not a {kind} engine")
            return candidate
    known = ", ".join(c.spec.name for c in candidates if c.spec.kind == kind and not c.spec.hidden)
    raise UsageError(detail=f"There is no {kind} engine named {name}; there are: {known or 'none'}")


def _require(candidate: Candidate, work: str, source: str, target: str, commercial_safe: bool) -> None:
    """Raise the error of the first thing that forbids this engine."""
    if not _allowed(candidate, commercial_safe):
        raise LicenceError(kind=candidate.spec.kind, name=candidate.spec.name, licence=_forbidding(candidate.spec))
    if not candidate.located.ok:
        raise _missing(candidate)
    if not candidate.languages.can(source, target):
        raise LanguageError(
            detail=f"The engine {candidate.spec.name} is here, but none {work}{_offers([candidate], source)}"
        )


def _best_here(visible: Sequence[Candidate], work: str, source: str, target: str, commercial_safe: bool) -> Choice:
    allowed = [c for c in visible if _allowed(c, commercial_safe)]
    here = [c for c in allowed if c.located.ok]
    able = [c for c in here if c.languages.can(source, target)]
    if able:
        chosen = able[0]
        quality = chosen.spec.quality
        reason = f"{chosen.spec.name} {work}: the best that is installed here ({quality} quality)"
        ranked = sorted(visible, key=lambda c: RANK[c.spec.quality])
        better = [c for c in ranked if RANK[c.spec.quality] > RANK[quality] and c not in here]
        notes = [f"{c.spec.name} would be better, but {_why_not(c, commercial_safe)}" for c in better[:1]]
        notes += [f"so would {', '.join(c.spec.name for c in better[1:])} (see `dub engines`)"] if better[1:] else []
        return Choice(chosen.spec, "; ".join([reason, *notes]) + ".")
    if not allowed:
        refused = visible[0].spec
        raise LicenceError(kind=refused.kind, name=refused.name, licence=_forbidding(refused))
    if not here:
        raise _missing(min(allowed, key=lambda c: RANK[c.spec.quality]))
    absent = [f"{c.spec.name} might, but {_why_not(c, commercial_safe)}" for c in visible if c not in here]
    raise LanguageError(detail="; ".join([f"No engine here {work}{_offers(here, source)}", *absent]))


def _of_quality(
    visible: Sequence[Candidate], work: str, source: str, target: str, commercial_safe: bool, *, quality: Quality
) -> Choice:
    able = [c for c in visible if not c.located.ok or c.languages.can(source, target)]
    if not able:
        raise LanguageError(detail=f"No engine here {work}{_offers(visible, source)}")
    fitting = [c for c in able if RANK[c.spec.quality] <= RANK[quality]] or able[-1:]
    top = fitting[0].spec.quality
    level = [c for c in fitting if c.spec.quality == top]
    ready = [c for c in level if c.located.ok and _allowed(c, commercial_safe)]
    if not ready:
        allowed = [c for c in level if _allowed(c, commercial_safe)] or level
        nearest = min(allowed, key=lambda c: c.spec.weights is None)  # what a fetch can mend, before what it cannot
        _require(nearest, work, source, target, commercial_safe)
    chosen = ready[0]
    reason = f"{chosen.spec.name} {work}: {quality} quality was asked for"
    if top != quality:
        reason += f", and {top} is the nearest that any known engine offers for it"
    return Choice(chosen.spec, reason + ".")


def _allowed(candidate: Candidate, commercial_safe: bool) -> bool:
    return candidate.spec.commercial_use or not commercial_safe


def _forbidding(spec: EngineSpec) -> str:
    """The licence that forbids commercial use: mostly that of the weights, for programs rarely do."""
    return spec.weights.licence if spec.weights and not spec.weights.commercial_use else spec.licence


def _missing(candidate: Candidate) -> EngineMissingError:
    spec, located = candidate.spec, candidate.located
    return EngineMissingError(kind=spec.kind, name=spec.name, detail=located.reason, install=located.install)


def _why_not(candidate: Candidate, commercial_safe: bool) -> str:
    if not _allowed(candidate, commercial_safe):
        return f"its licence ({_forbidding(candidate.spec)}) forbids commercial use"
    return f"{candidate.located.reason} ({candidate.located.install})"


def _offers(candidates: Sequence[Candidate], source: str) -> str:
    """What could be asked for instead, as the end of a sentence."""
    primary = source.split("-", maxsplit=1)[0].lower()
    translations = sorted({target for c in candidates for target in c.languages.targets(primary)} - {primary})
    if translations:
        return f" (from {source} there is: {', '.join(translations)})"
    singles = sorted({a for c in candidates for a, b in c.languages.pairs if a == b})
    return f" (there is: {', '.join(singles)})" if singles else ""
