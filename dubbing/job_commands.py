"""`dub submit`, `status`, `watch`, `jobs`, `cancel`, `retry`, `fetch`: what users do to jobs, here or on a server."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from dubbing import prepare, run
from dubbing.api_errors import NotReadyError
from dubbing.artifacts import safe_name
from dubbing.config import Settings
from dubbing.desk import DONE, ENDED, Desk, Facts, Order, find, result_names, stages_of
from dubbing.progress import ProgressPrinter, TransferPrinter

JOB_FAILED = 6


@contextmanager
def desk(settings: Settings) -> Iterator[Desk]:
    """The jobs of the server of DUBBING_URL; of this machine where it is unset. Raises what opening them does."""
    if settings.url is not None:
        from dubbing.remote.desk import open_remote  # noqa: PLC0415 - only where there is a server

        with open_remote(settings, TransferPrinter("sent")) as remote:
            yield remote
        return
    from dubbing.local_desk import open_local  # noqa: PLC0415 - the database; not needed where a server has it

    with open_local(settings) as local:
        yield local


def submit(arguments: argparse.Namespace, settings: Settings) -> int:
    """Check the request and put it in line; prints the job's id."""
    request = run.request_of(arguments, settings)
    targets = prepare.check_targets(request)
    order = Order(request, targets, arguments.priority, arguments.user, arguments.at or 0)
    with desk(settings) as at:
        facts = at.submit(order)
        sys.stderr.write(f"{request.source.name} -> {', '.join(targets)} is in the queue ({at.reason})\n")
    if arguments.json:
        _print_json(facts)
    else:
        sys.stdout.write(f"{facts['id']}\n")
    return 0


def status(arguments: argparse.Namespace, settings: Settings) -> int:
    """One job: state, progress, result or error."""
    with desk(settings) as at:
        facts = find(at, arguments.id)
    if arguments.json:
        _print_json(facts)
        return 0
    sys.stdout.write(f"{facts['id']}  {facts['state']}  {facts['source']} -> {', '.join(facts['targets'])}\n")
    for progress in stages_of(facts["progress"]):
        sys.stdout.write(f"  {progress.stage.value} {progress.target or ''}  {progress.done}/{progress.total}\n")
    _print_end(facts)
    return 0


def jobs(arguments: argparse.Namespace, settings: Settings) -> int:
    """The newest jobs, one a line."""
    with desk(settings) as at:
        found = at.jobs(limit=arguments.limit)
    if arguments.json:
        _print_json(found)
        return 0
    for facts in found:
        submitted = dt.datetime.fromtimestamp(facts["created_ms"] / 1000).strftime("%Y-%m-%d %H:%M")
        to = ", ".join(facts["targets"])
        sys.stdout.write(
            f"{facts['id'][:8]}  {facts['state']:<18} {facts['priority']:>3}  {facts['user']:<12} {submitted}  "
            f"{facts['source']} -> {to}\n"
        )
    return 0


def cancel(arguments: argparse.Namespace, settings: Settings) -> int:
    """End a waiting job, ask a running one to stop."""
    with desk(settings) as at:
        return _say(at.cancel(find(at, arguments.id)["id"]), arguments)


def retry(arguments: argparse.Namespace, settings: Settings) -> int:
    """Put an ended job back in line."""
    with desk(settings) as at:
        return _say(at.retry(find(at, arguments.id)["id"]), arguments)


def watch(arguments: argparse.Namespace, settings: Settings) -> int:
    """Show a job's progress until it ends; exit code 0 when it is done, 6 when it failed or was cancelled."""
    printer = ProgressPrinter()
    with desk(settings) as at:
        facts, shown, said = find(at, arguments.id), None, ""
        while True:
            if facts["progress"] != shown:
                shown = facts["progress"]
                for progress in stages_of(shown):
                    printer(progress)
            if facts["state"] != said:
                said = facts["state"]
                printer.say(f"{facts['id'][:8]} {said}")
            if said in ENDED:
                break
            time.sleep(at.look_s)
            facts = at.job(facts["id"])
    if arguments.json:
        _print_json(facts)
    else:
        _print_end(facts)
    return 0 if said in DONE else JOB_FAILED


def fetch(arguments: argparse.Namespace, settings: Settings) -> int:
    """Put the results of a job into a folder of its own; prints their paths. Raises NotReadyError, NotFoundError."""
    with desk(settings) as at:
        facts = find(at, arguments.id)
        report = (facts["result"] or {}).get("report")
        if not report:
            raise NotReadyError(name=PurePath(facts["source"]).name or facts["id"])
        names = result_names(facts, arguments.to)
        name = f"{safe_name(PurePath(facts['source']).stem)}-{facts['id'][:8]}"
        folder: Path = (arguments.output_dir or settings.output_dir) / name
        wanted = dict.fromkeys([each for tag in names for each in names[tag]] + [PurePath(report).name])
        at.bring(facts, list(wanted), folder, TransferPrinter("fetched"))
    if arguments.json:
        files = {tag: [str(folder / each) for each in found] for tag, found in names.items()}
        _print_json({"id": facts["id"], "files": files, "report": str(folder / PurePath(report).name)})
    else:
        sys.stdout.writelines(f"{folder / each}\n" for each in wanted)
    return 0


def _say(facts: Facts, arguments: argparse.Namespace) -> int:
    if arguments.json:
        _print_json(facts)
    elif facts["asked"] is not None:
        sys.stdout.write(f"{facts['id']} was asked to stop\n")
    else:
        sys.stdout.write(f"{facts['id']} {facts['state']}\n")
    return 0


def _print_end(facts: Mapping[str, Any]) -> None:
    result, error = facts["result"], facts["error"]
    if result and facts["state"].startswith("done"):
        for warning in result["warnings"]:
            sys.stderr.write(f"  look: {warning}\n")
        for paths in result["files"].values():
            sys.stdout.write(f"{paths[0]}\n")
    elif error:
        sys.stderr.write(f"  {error['message']}\n  {error.get('hint', '')}\n")


def _print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
