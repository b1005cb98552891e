"""`dub submit`, `status`, `watch`, `jobs`, `cancel`, `retry`: what users do to jobs, straight on the store and the queue."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from dubbing import orders, prepare, run
from dubbing.config import Settings
from dubbing.errors import NotFoundError, UsageError
from dubbing.intake import Intake
from dubbing.jobs import TERMINAL, Actor, Job, State, cost_of
from dubbing.progress import ProgressPrinter
from dubbing.queue.choose import Choice, choose_queue
from dubbing.store import Store, User, open_store
from dubbing.types import Progress, Stage

ADMIN = Actor("command-line", "admin")
"""Whoever can write the database may do everything with it."""
LOOK_S = 0.25
"""Between two looks at the events of a job that is watched."""
FOUND_AMONG = 10_000
JOB_FAILED = 6


@dataclass(frozen=True, slots=True)
class Desk:
    """Store and queue as a command uses them."""

    store: Store
    choice: Choice
    intake: Intake

    def find(self, text: str) -> Job:
        """The job of an id or of its first digits. Raises NotFoundError, UsageError when several begin so."""
        if not re.fullmatch(r"[0-9a-f]{4,31}", text):
            return self.store.job(ADMIN, text)
        found = [job for job in self.store.jobs(ADMIN, limit=FOUND_AMONG) if job.id.startswith(text)]
        if len(found) > 1:
            raise UsageError(detail=f"{len(found)} jobs begin with {text}; give more digits")
        if not found:
            raise NotFoundError(what=f"job {text}")
        return found[0]

    def user(self, name: str, *, make: bool = False) -> User:
        """The user of that name. Raises NotFoundError unless `make`, UsageError for a bad name."""
        try:
            return self.store.user_by_name(name)
        except NotFoundError:
            if not make:
                raise
            return self.store.add_user(name)


@contextmanager
def desk(settings: Settings) -> Iterator[Desk]:
    """Open what the commands need. Raises StoreError, QueueDownError, SettingsError."""
    store = open_store(settings)
    try:
        choice = choose_queue(settings, now_ms=store.clock_ms())
        try:
            yield Desk(store, choice, Intake(store, choice.queue))
        finally:
            choice.close()
    finally:
        store.close()


def submit(arguments: argparse.Namespace, settings: Settings) -> int:
    """Check the request and put it in line; prints the job's id."""
    request = run.request_of(arguments, settings)
    targets = prepare.check_targets(request)
    length = asyncio.run(prepare.length_ms(request, settings))
    with desk(settings) as at:
        job, _ = at.intake.submit(
            at.user(arguments.user, make=True).actor,
            orders.to_json(request),
            targets=targets,
            priority=arguments.priority,
            cost=cost_of(length, len(targets)),
            run_at_ms=arguments.at or 0,
        )
        sys.stderr.write(f"{request.source.name} -> {', '.join(targets)} is in the queue ({at.choice.reason})\n")
        if arguments.json:
            _print_json(_facts(at, job))
        else:
            sys.stdout.write(f"{job.id}\n")
    return 0


def status(arguments: argparse.Namespace, settings: Settings) -> int:
    """One job: state, progress, result or error."""
    with desk(settings) as at:
        facts = _facts(at, at.find(arguments.id))
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
        found = [_facts(at, job) for job in at.store.jobs(ADMIN, limit=arguments.limit)]
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
        return _say(at, at.intake.cancel(ADMIN, at.find(arguments.id).id), arguments)


def retry(arguments: argparse.Namespace, settings: Settings) -> int:
    """Put an ended job back in line."""
    with desk(settings) as at:
        return _say(at, at.intake.retry(ADMIN, at.find(arguments.id).id), arguments)


def watch(arguments: argparse.Namespace, settings: Settings) -> int:
    """Show a job's progress until it ends; exit code 0 when it is done, 6 when it failed or was cancelled."""
    printer = ProgressPrinter()
    with desk(settings) as at:
        job, seen, said = at.find(arguments.id), 0, ""
        while True:
            job = at.store.job(ADMIN, job.id)
            for event in at.store.events(ADMIN, after=seen, job_id=job.id):
                seen = event.id
                for progress in stages_of(event.data if event.kind == "progress" else None):
                    printer(progress)
            if job.state.shown != said:
                said = job.state.shown
                printer.say(f"{job.id[:8]} {said}")
            if job.state in TERMINAL:
                break
            time.sleep(LOOK_S)
        facts = _facts(at, job)
    if arguments.json:
        _print_json(facts)
    else:
        _print_end(facts)
    return 0 if job.state in (State.DONE, State.WARNED) else JOB_FAILED


def _say(at: Desk, job: Job, arguments: argparse.Namespace) -> int:
    if arguments.json:
        _print_json(_facts(at, job))
    elif job.asked is not None:
        sys.stdout.write(f"{job.id} was asked to stop\n")
    else:
        sys.stdout.write(f"{job.id} {job.state.shown}\n")
    return 0


def _facts(at: Desk, job: Job) -> dict[str, Any]:
    """A job as JSON data for scripts."""
    facts = asdict(job)
    request = facts.pop("request")
    owner = at.store.user(facts.pop("user_id")).name
    return {
        **{
            key: facts[key]
            for key in ("id", "priority", "attempt", "crash_count", "asked", "progress", "result", "error")
        },
        **{key: facts[key] for key in ("created_ms", "started_ms", "finished_ms", "run_at_ms")},
        "state": job.state.shown,
        "user": owner,
        "source": str(request.get("source", "")),
        "targets": list(request.get("targets", ())),
    }


def stages_of(progress: Mapping[str, Any] | None) -> list[Progress]:
    """The stages in the progress of a row or an event."""
    stages = (progress or {}).get("stages", ())
    return [Progress(**{**stage, "stage": Stage(stage["stage"])}) for stage in stages]


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
