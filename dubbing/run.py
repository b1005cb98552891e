"""`dub run`: one job, through the queue or, if asked for, in this process."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from dubbing import cli, offers, prepare
from dubbing.artifacts import JobFolder, write_atomically
from dubbing.config import Settings
from dubbing.engines.base import KINDS
from dubbing.errors import DubbingError, StoppedError, UsageError
from dubbing.progress import ProgressPrinter
from dubbing.roads import LocalRoad
from dubbing.types import DubRequest, Job, JobResult

T = TypeVar("T")


def command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Run the job the arguments describe; prints its files (or JSON) on stdout."""
    started = time.monotonic()
    request = request_of(arguments, settings)
    printer = ProgressPrinter()
    offers.offer(request, settings, yes=arguments.yes)
    if arguments.in_process:
        work = _in_process(request, settings, printer)
    else:
        from dubbing import queued_run  # noqa: PLC0415 - the database and the queue

        work = queued_run.dub(request, settings, arguments.user, printer)
    result, job, timings, row_id = asyncio.run(_interruptible(work, printer))
    total = time.monotonic() - started
    report = _add_run(result.report, total, timings)
    _print_result(result, job, row_id, report, arguments.json, printer)
    return 0


def request_of(arguments: argparse.Namespace, settings: Settings) -> DubRequest:
    """The request behind the command line."""
    targets = tuple(tag.strip() for tag in arguments.to.split(",") if tag.strip())
    kinds = cli.pairs(arguments.engine, "--engine")
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise UsageError(detail=f"--engine knows {', '.join(KINDS)}, not {sorted(unknown)[0]}")
    return DubRequest(
        source=arguments.file.resolve(),
        targets=tuple(dict.fromkeys(targets)),
        output_dir=(arguments.output_dir or settings.output_dir).resolve(),
        source_language=arguments.source_language,
        quality=arguments.quality or settings.quality,
        transcript=arguments.transcript.resolve() if arguments.transcript else None,
        translations={
            tag: path.resolve() for tag, path in prepare.parse_translations(arguments.translation, targets).items()
        },
        start_ms=arguments.start,
        end_ms=arguments.end,
        audio_track=arguments.audio_track,
        keep_background=arguments.keep_background,
        speakers=arguments.speakers,
        engines=kinds,
        voices=cli.pairs(arguments.voice, "--voice", default="*"),
        glossary=prepare.read_glossaries(arguments.glossary, targets),
    )


async def _interruptible(work: Coroutine[Any, Any, T], printer: ProgressPrinter) -> T:
    """Do the work; the first Ctrl-C (or SIGTERM) stops it cleanly."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)

    def stop() -> None:
        if not task.done():
            printer.say("stopping; what is finished is kept (Ctrl-C again: at once)")
            loop.remove_signal_handler(signal.SIGINT)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        raise StoppedError from None


async def _in_process(
    request: DubRequest, settings: Settings, printer: ProgressPrinter
) -> tuple[JobResult, Job, dict[str, float], str | None]:
    """Dub in this process, beside the queue."""
    start = time.monotonic()
    job = await prepare.prepare(request, settings)
    prepared = time.monotonic() - start
    for reason in dict.fromkeys((*(choice.reason for choice in job.choices), *job.notes)):
        printer.say(f"  {reason}")
    folder = JobFolder(job.folder)
    with folder.lock():
        try:
            async with LocalRoad() as road:
                result = await road.run_job(job, printer)
        except DubbingError as error:
            error.log = folder.path / "job.log"
            raise
    return result, job, {"prepare": prepared}, None


def _add_run(path: Path, total_s: float, timings: dict[str, float]) -> dict[str, Any]:
    """Add to the report what only the command knows: its own time, and what starting and stopping took."""
    report: dict[str, Any] = json.loads(path.read_text())
    stages = report["time"]["stages_s"] + timings.get("ingest", 0.0)
    report["time"]["command"] = {
        "total_s": round(total_s, 3),
        "outside_stages_s": round(total_s - stages, 3),
        "steps_s": {name: round(seconds, 3) for name, seconds in timings.items()},
    }
    write_atomically(path, json.dumps(report, ensure_ascii=False, indent=1))
    return report


def _print_result(
    result: JobResult, job: Job, row_id: str | None, report: dict[str, Any], as_json: bool, printer: ProgressPrinter
) -> None:
    for warning in result.warnings:
        printer.say(f"  look: {warning}")
    time_ = report["time"]
    printer.say(
        f"{result.state.replace('_', ' ')} in {time_['command']['total_s']:.1f} s "
        f"(stages {time_['stages_s']:.1f} s); report: {result.report}"
    )
    if as_json:
        answer = {
            "job": job.id,
            "id": row_id,
            "state": result.state,
            "files": {tag: [str(path) for path in paths] for tag, paths in result.files.items()},
            "report": str(result.report),
            "warnings": list(result.warnings),
        }
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    else:
        for paths in result.files.values():
            sys.stdout.write(f"{paths[0]}\n")
