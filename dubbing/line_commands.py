"""`dub lines list`, `edit`, `redo`: single lines of a finished dub, here or on a server."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from dubbing import line_edits
from dubbing.config import Settings
from dubbing.desk import Facts, dub_of, find
from dubbing.errors import UsageError
from dubbing.job_commands import desk
from dubbing.line_edits import Change


def list_lines(arguments: argparse.Namespace, settings: Settings) -> int:
    """Every line of a dub, with what the next run will change."""
    with desk(settings) as at:
        job = find(at, arguments.id)
        found = at.lines(job, dub_of(job, arguments.to))
    rows = [
        facts
        for facts in found["lines"]
        if (facts["problems"] or not arguments.problems) and (facts["changed"] or not arguments.changed)
    ]
    if arguments.json:
        _print_json({**found, "lines": rows})
        return 0
    for facts in rows:
        text = facts["edit"].get("text", facts["text"])
        marks = [*facts["problems"], *["locked"] * facts["locked"], *["changed"] * facts["changed"]]
        notes = f"  [{', '.join(marks)}]" if marks else ""
        when = f"{line_edits.clock(facts['start_ms'])}-{line_edits.clock(facts['end_ms'])}"
        sys.stdout.write(f"{facts['line']:>4}  {when}  {facts['speaker']} ({facts['voice']})  {text}{notes}\n")
    return 0


def edit(arguments: argparse.Namespace, settings: Settings) -> int:
    """Save changes of one line; the next run makes them."""
    fields = {name: getattr(arguments, name) for name in ("text", "voice", "speaker", "start_ms", "end_ms", "locked")}
    wanted: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    for name in arguments.reset or ():
        wanted[f"{name}_ms" if name in ("start", "end") else name] = None
    if not wanted:
        raise UsageError(detail="Say what to change: --text, --voice, --speaker, --start, --end, --lock or --reset")
    change = line_edits.change_of(arguments.line, wanted)
    with desk(settings) as at:
        job = find(at, arguments.id)
        tag = dub_of(job, arguments.to)
        at.change_lines(job, tag, {arguments.line: change})
    _say(arguments, job, f"line {arguments.line} is saved; dub lines redo {job['id'][:8]} --to {tag} makes it")
    return 0


def redo(arguments: argparse.Namespace, settings: Settings) -> int:
    """Put the job back in line; it makes only what changed, and another reading of the lines that are named."""
    with desk(settings) as at:
        job = find(at, arguments.id)
        tag = dub_of(job, arguments.to)
        if arguments.line:
            at.change_lines(job, tag, {number: Change(redo=True) for number in arguments.line})
        job = at.retry(job["id"])
    _say(arguments, job, f"{job['id']} {job['state']}")
    return 0


def _say(arguments: argparse.Namespace, job: Facts, text: str) -> None:
    if arguments.json:
        _print_json({"id": job["id"], "state": job["state"]})
    else:
        sys.stdout.write(f"{text}\n")


def _print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
