"""`dub serve`, `pause`, `resume`, `queue`, `backup`, `restore`: what the one who runs the queue does."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from dubbing import roads
from dubbing.config import Settings
from dubbing.desk import find
from dubbing.errors import StoppedError, UsageError
from dubbing.job_commands import desk
from dubbing.queue_errors import RayLostError
from dubbing.store import backup as copies
from dubbing.store import database_file

LOOK_S = 0.2
"""Between two looks at the process that has Ray."""


def serve(arguments: argparse.Namespace, settings: Settings) -> int:
    """Start or join Ray with the engines of the serve config, and run the queue's jobs until Ctrl-C or SIGTERM.

    In a process of its own: Ray ends the process that uses it without a word when it goes away.
    """
    if multiprocessing.parent_process() is None:
        return _supervise(["serve", *(["--json"] if arguments.json else [])], until_eof=arguments.until_eof)
    logging.getLogger("dubbing").setLevel(logging.INFO)
    asyncio.run(_serve(arguments, settings))
    return 0


def _supervise(arguments: list[str], *, until_eof: bool) -> int:
    """Run the command in a child, which gets our signals, and ends when we do. Raises RayLostError.

    `until_eof`: end, too, when whoever holds the other end of our standard input lets go of it, however that comes about.
    """
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    listens = context.Event()
    child = context.Process(target=_child, args=(arguments, tell, listens))
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    child.start()
    tell.close()
    if until_eof:
        threading.Thread(target=_end_with_input, daemon=True).start()
    # Not one long wait: it would sleep through a signal that came just before it, or to another thread.
    while child.is_alive():
        if asked and child.pid is not None:
            # At SIGTERM Ray, once it is there, prints a stack trace, and aborts the process three seconds later.
            os.kill(child.pid, signal.SIGINT if listens.is_set() else signal.SIGTERM)
        child.join(LOOK_S)
    try:
        return int(told.recv())
    except EOFError:
        raise (StoppedError() if asked else RayLostError(status=child.exitcode)) from None


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def _child(arguments: list[str], tell: Connection, listens: Event) -> None:
    from dubbing import cli  # noqa: PLC0415 - it imports this module

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # until `_serve` knows what to do; it is asked again and again
    listens.set()
    tell.send(cli.main(arguments))


async def _serve(arguments: argparse.Namespace, settings: Settings) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if (parent := multiprocessing.parent_process()) is not None:
        loop.add_reader(parent.sentinel, stop.set)
    road = roads.ray_road(settings, settings.log_dir, {})
    try:
        facts = await _unless(stop, road.host_queue())
        if facts is None:
            return
        for warning in facts["warnings"]:
            sys.stderr.write(f"dub serve: {warning}\n")
        if arguments.json:
            sys.stdout.write(json.dumps(dict(facts)) + "\n")
        else:
            slots = sum(facts["slots"].values())
            sys.stdout.write(f"dub serve: ready, {slots} jobs at once. The queue is {facts['reason']}\n")
            if facts["api"]:
                sys.stdout.write(f"dub serve: {facts['api']}\n")
        sys.stdout.flush()
        await _unless(stop, road.keep_queue())
        sys.stderr.write("dub serve: stopping; running jobs go back in line\n")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # a second one must not kill what is ending in order
        await road.aclose()


async def _unless(stop: asyncio.Event, work: Any) -> Any:
    """What `work` answers; None when `stop` came first."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        return working.result()
    working.cancel()
    return None


def pause(arguments: argparse.Namespace, settings: Settings) -> int:
    """Stop one job until it is resumed, or start no new ones."""
    with desk(settings) as at:
        if arguments.id:
            job = at.pause(find(at, arguments.id)["id"])
            return _say(arguments, f"{job['id']} {'was asked to stop' if job['asked'] else job['state']}")
        at.switch(arguments.user, paused=True)
    return _say(arguments, f"{_whose(arguments)}: nothing new starts; running jobs go on")


def resume(arguments: argparse.Namespace, settings: Settings) -> int:
    """End a pause."""
    with desk(settings) as at:
        if arguments.id:
            job = at.resume(find(at, arguments.id)["id"])
            return _say(arguments, f"{job['id']} {job['state']}")
        at.switch(arguments.user, paused=False)
    return _say(arguments, f"{_whose(arguments)}: jobs start again")


def _whose(arguments: argparse.Namespace) -> str:
    return f"the jobs of {arguments.user}" if arguments.user else "all jobs"


def queue(arguments: argparse.Namespace, settings: Settings) -> int:
    """Which queue is used and why, how many jobs are in which state, caps and pauses."""
    with desk(settings) as at:
        facts = at.queue()
    if arguments.json:
        sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")
        return 0
    charge = facts["in_charge"]
    sys.stdout.write(f"{facts['reason']}\n")
    sys.stdout.write(f"in charge: {charge['queue']} ({charge['dispatcher'] or 'no dispatcher has run yet'})\n")
    sys.stdout.write(f"alive: {', '.join(facts['alive']) or 'no dispatcher; `dub serve` starts one'}\n")
    sys.stdout.writelines(f"{state:<20} {count}\n" for state, count in sorted(facts["jobs"].items()))
    sys.stdout.writelines(f"{key} = {value}\n" for key, value in facts["settings"].items())
    return 0


def backup(arguments: argparse.Namespace, settings: Settings) -> int:
    """Copy the database, also while it is in use."""
    _require_sqlite(settings, "pg_dump")
    return _say_copy(arguments, copies.backup(database_file(settings), arguments.file))


def restore(arguments: argparse.Namespace, settings: Settings) -> int:
    """Put a copy in the database's place, or only check it."""
    if arguments.check:
        return _say_copy(arguments, copies.check(arguments.file))
    _require_sqlite(settings, "pg_restore")
    return _say_copy(arguments, copies.restore(arguments.file, database_file(settings)))


def _require_sqlite(settings: Settings, other: str) -> None:
    if settings.database_url is not None:
        raise UsageError(detail=f"DUBBING_DATABASE_URL is set; for PostgreSQL use {other}, for SQLite copy that file")


def _say_copy(arguments: argparse.Namespace, report: copies.BackupReport) -> int:
    if arguments.json:
        facts = {"path": str(report.path), "schema": report.schema, "rows": dict(report.rows)}
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        rows = ", ".join(f"{count} {table}" for table, count in report.rows.items())
        sys.stdout.write(f"{report.path}: schema {report.schema}, {rows}\n")
    return 0


def _say(arguments: argparse.Namespace, text: str) -> int:
    sys.stdout.write((json.dumps({"done": text}) if arguments.json else text) + "\n")
    return 0
