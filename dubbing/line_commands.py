"""`dub lines list`, `edit`, `redo`: single lines of a finished dub, on the store and the job's folder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from dubbing import line_edits
from dubbing.config import Settings
from dubbing.errors import NotFoundError, UsageError
from dubbing.job_commands import ADMIN, desk
from dubbing.jobs import Job
from dubbing.line_edits import Change


def list_lines(arguments: argparse.Namespace, settings: Settings) -> int:
    """Every line of a dub, with what the next run will change."""
    with desk(settings) as at:
        folder, tag = _dub(at.find(arguments.id), arguments)
    lines = line_edits.read_lines(folder, tag)
    edits, version = line_edits.read_edits(folder, tag)
    applying = line_edits.applying(lines, edits)
    rows: list[dict[str, Any]] = []
    for row in lines.lines:
        edit = applying.get(row.line)
        changed = row.is_changed_by(edit)
        if (arguments.problems and not row.problems) or (arguments.changed and not changed):
            continue
        facts = row.model_dump(mode="json", exclude={"clip", "edit"})
        rows.append(
            facts | {"edit": edit.wanted if edit else {}, "locked": bool(edit and edit.locked), "changed": changed}
        )
    if arguments.json:
        voices = [voice.model_dump() for voice in lines.voices]
        _print_json({"target": tag, "version": version, "voices": voices, "lines": rows})
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
        job = at.find(arguments.id)
        folder, tag = _dub(job, arguments)
        line_edits.change(folder, tag, {arguments.line: change})
    _say(arguments, job, f"line {arguments.line} is saved; dub lines redo {job.id[:8]} --to {tag} makes it")
    return 0


def redo(arguments: argparse.Namespace, settings: Settings) -> int:
    """Put the job back in line; it makes only what changed, and another reading of the lines that are named."""
    with desk(settings) as at:
        job = at.find(arguments.id)
        folder, tag = _dub(job, arguments)
        if arguments.line:
            line_edits.change(folder, tag, {number: Change(redo=True) for number in arguments.line})
        job = at.intake.retry(ADMIN, job.id)
    _say(arguments, job, f"{job.id} {job.state.shown}")
    return 0


def _dub(job: Job, arguments: argparse.Namespace) -> tuple[Path, str]:
    """Folder and language of the dub that is meant."""
    targets = [str(tag) for tag in job.request.get("targets", ())]
    tag = arguments.to or (targets[0] if len(targets) == 1 else None)
    if tag is None:
        raise UsageError(detail=f"Say which dub is meant: --to {' or --to '.join(targets)}")
    report = (job.result or {}).get("report")
    if tag not in targets or report is None:
        raise NotFoundError(what=f"finished dub of job {job.id[:8]} into {tag}")
    return Path(str(report)).parent, tag


def _say(arguments: argparse.Namespace, job: Job, text: str) -> None:
    if arguments.json:
        _print_json({"id": job.id, "state": job.state.shown})
    else:
        sys.stdout.write(f"{text}\n")


def _print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
