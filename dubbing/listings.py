"""`dub doctor`, `dub languages`, `dub engines`, `dub voices`: what is here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dubbing.config import Settings


def doctor(arguments: argparse.Namespace, settings: Settings) -> int:
    """Exit code 0 when jobs can run, 4 when something they need is missing."""
    from dubbing.doctor import examine  # noqa: PLC0415 - the engines' modules load only for commands that look at them

    findings = examine(settings)
    if arguments.json:
        _json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.state:<8} {finding.name:<28} {finding.detail}\n")
            if finding.fix:
                sys.stdout.write(f"{'':<8} {'':<28} fix: {finding.fix}\n")
    return 4 if any(finding.state == "error" for finding in findings) else 0


def languages(arguments: argparse.Namespace, settings: Settings) -> int:
    """Language pairs that can be dubbed end to end here, and what each kind of engine offers."""
    from dubbing.engines import registry  # noqa: PLC0415

    def offered(kind: Any) -> set[tuple[str, str]]:
        here = [c for c in registry.survey(kind) if c.located.ok and not c.spec.hidden]
        found = [candidate.languages for candidate in here]
        return {(source, target) for each in found for source in each.sources for target in each.targets(source)}

    heard = sorted({a for a, _ in offered("transcribe")})
    spoken = {a for a, _ in offered("speak")}
    translated = sorted(pair for pair in offered("translate") if pair[1] in spoken)
    rows: list[dict[str, Any]] = [
        {"from": source, "to": [b for a, b in translated if a == source], "recognised": source in heard}
        for source in sorted({a for a, _ in translated})
    ]
    if arguments.json:
        _json({"pairs": rows, "recognised": heard, "spoken": sorted(spoken)})
        return 0
    for row in rows:
        note = "" if row["recognised"] else "   (give the words with --transcript)"
        sys.stdout.write(f"{row['from']} -> {', '.join(row['to'])}{note}\n")
    sys.stdout.write(f"with --translation, spoken: {', '.join(sorted(spoken))}\n")
    return 0


def engines(arguments: argparse.Namespace, settings: Settings) -> int:
    """All engines with kind, quality, licence and whether they can be used here."""
    from dubbing.engines import registry  # noqa: PLC0415
    from dubbing.engines.base import KINDS  # noqa: PLC0415

    rows: list[dict[str, Any]] = [
        {
            "kind": kind,
            "name": c.spec.name,
            "quality": c.spec.quality,
            "licence": c.spec.licence,
            "weights_licence": c.spec.weights.licence if c.spec.weights else None,
            "commercial_use": c.spec.commercial_use,
            "here": c.located.ok,
            "missing": c.located.reason,
            "install": c.located.install,
            "summary": c.spec.summary,
        }
        for kind in KINDS
        for c in registry.survey(kind)
        if not c.spec.hidden
    ]
    if arguments.json:
        _json(rows)
        return 0
    _table(
        ("KIND", "NAME", "QUALITY", "LICENCE", "COMMERCIAL", "HERE"),
        [
            (
                row["kind"],
                row["name"],
                row["quality"],
                row["licence"] + (f", weights {row['weights_licence']}" if row["weights_licence"] else ""),
                "yes" if row["commercial_use"] else "no",
                "yes" if row["here"] else f"no: {row['missing']}; {row['install']}",
            )
            for row in rows
        ],
    )
    return 0


def voices(arguments: argparse.Namespace, settings: Settings) -> int:
    """Voices of every usable engine for a language. Raises LanguageError when there is none."""
    from dubbing.engines import registry  # noqa: PLC0415
    from dubbing.errors import LanguageError  # noqa: PLC0415

    here = [c.spec for c in registry.survey("speak") if c.located.ok and not c.spec.hidden]
    found = [voice for spec in here for voice in spec.voices(arguments.language)]
    if not found:
        raise LanguageError(detail=f"No engine here has a voice for {arguments.language}")
    if arguments.json:
        _json([asdict(voice) for voice in found])
    else:
        _table(("VOICE", "ENGINE", "LANGUAGE", "NAME"), [(v.id, v.engine, v.language, v.name) for v in found])
    return 0


def _json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
