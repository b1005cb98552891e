"""The options of the commands that work on the queue; the code behind them loads when one is used."""

from __future__ import annotations

import argparse
import datetime as dt
import pkgutil
from pathlib import Path
from typing import Any, get_args

from dubbing.config import Settings
from dubbing.jobs import Role


class _Later:
    """A command that is imported when it is called."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __call__(self, arguments: argparse.Namespace, settings: Settings) -> int:
        return int(pkgutil.resolve_name(self._place)(arguments, settings))


def add(commands: Any) -> None:
    """Add the commands to `dub`'s own."""
    _submit(commands)
    for name, text in (
        ("status", "how a job stands"),
        ("watch", "follow a job to its end"),
        ("cancel", "end a waiting job, stop a running one"),
        ("retry", "run an ended job again; finished lines are kept"),
    ):
        sub = _command(commands, name, text, f"dubbing.job_commands:{name}")
        sub.add_argument("id", metavar="ID", help="the job's id, or its first digits")
    _command(commands, "jobs", "the newest jobs", "dubbing.job_commands:jobs").add_argument(
        "--limit", type=_positive, default=20, metavar="N", help="how many (default: 20)"
    )
    fetched = _command(commands, "fetch", "put the results of a job into a folder", "dubbing.job_commands:fetch")
    fetched.add_argument("id", metavar="ID", help="the job's id, or its first digits")
    fetched.add_argument("--to", metavar="TAG", help="one dub only")
    fetched.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="where the folder of the job's results goes (default: ./Output)"
    )
    for name, text in (
        ("pause", "start nothing new: of all jobs, of one user, or stop one job"),
        ("resume", "end a pause"),
    ):
        sub = _command(commands, name, text, f"dubbing.queue_commands:{name}")
        scope = sub.add_mutually_exclusive_group()
        scope.add_argument("id", metavar="ID", nargs="?", help="one job only")
        scope.add_argument("--user", metavar="NAME", help="one user's jobs only")
    _command(commands, "queue", "which queue is used, how long it is, caps and pauses", "dubbing.queue_commands:queue")
    backup = _command(
        commands, "backup", "copy the SQLite database while it is in use", "dubbing.queue_commands:backup"
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="the copy; must not exist yet")
    restore = _command(commands, "restore", "put a copy back; nothing may run", "dubbing.queue_commands:restore")
    restore.add_argument("file", type=Path, metavar="FILE", help="a copy made by dub backup")
    restore.add_argument("--check", action="store_true", help="only say whether the copy is whole, and what it holds")
    serve = _command(commands, "serve", "run submitted jobs on Ray until Ctrl-C", "dubbing.queue_commands:serve")
    serve.add_argument(
        "--until-eof",
        action="store_true",
        help="stop, too, when standard input (a pipe) ends with the program behind it",
    )
    for sub in (backup, restore, serve, *_models(commands), *_users(commands)):
        here(sub)
    _lines(commands)


def here(sub: argparse.ArgumentParser) -> None:
    """Mark a command that works on this machine alone, whatever DUBBING_URL says."""
    sub.set_defaults(here=sub.prog)


def _lines(commands: Any) -> None:
    from dubbing import cli  # noqa: PLC0415 - it imports this module

    actions = _group(
        commands, "lines", "single lines of a finished dub: look at them, change them, have them spoken again"
    )
    shown = _line_command(actions, "list", "every line with its time, speaker, voice and problems", "list_lines")
    shown.add_argument("--problems", action="store_true", help="only lines with problems")
    shown.add_argument("--changed", action="store_true", help="only lines that the next run makes anew")
    edit = _line_command(actions, "edit", "change one line; dub lines redo makes it", "edit")
    edit.add_argument("--line", type=_positive, required=True, metavar="N", help="number of the line")
    edit.add_argument("--text", metavar="TEXT", help="what is said, in the target language")
    edit.add_argument("--voice", metavar="VOICE", help="the voice of this line alone")
    edit.add_argument("--speaker", metavar="LABEL", help="who says it; the line gets that speaker's voice")
    edit.add_argument("--start", dest="start_ms", type=cli.timestamp, metavar="TIME", help="when it starts")
    edit.add_argument("--end", dest="end_ms", type=cli.timestamp, metavar="TIME", help="when it ends")
    edit.add_argument(
        "--lock",
        dest="locked",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep its words and its clip, whatever engines change",
    )
    edit.add_argument(
        "--reset",
        action="append",
        choices=("text", "voice", "speaker", "start", "end"),
        help="take a change back (may be given several times)",
    )
    redo = _line_command(actions, "redo", "run the job again; only what changed is made", "redo")
    redo.add_argument(
        "--line",
        type=_positive,
        action="append",
        metavar="N",
        help="have this line read anew (may be given several times)",
    )


def _line_command(actions: Any, name: str, text: str, function: str) -> argparse.ArgumentParser:
    sub = _command(actions, name, text, f"dubbing.line_commands:{function}")
    sub.add_argument("id", metavar="JOB", help="the job's id, or its first digits")
    sub.add_argument("--to", metavar="TAG", help="which dub (default: the job's only one)")
    return sub


def _models(commands: Any) -> list[argparse.ArgumentParser]:
    text = "model weights: what engines need, whether it is here, and how it gets here"
    actions = _group(commands, "models", text)
    text = "every model, its licence, and whether it is here"
    listed = _command(actions, "list", text, "dubbing.model_commands:list_models")
    fetch = _command(
        actions, "fetch", "fetch models from the hub, or import one from a folder", "dubbing.model_commands:fetch"
    )
    fetch.add_argument("names", metavar="NAME", nargs="+", help="a model, or an engine that needs it")
    fetch.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="take the files from this folder")
    fetch.add_argument("--revision", default="", metavar="REV", help="commit, branch or tag (default: the pinned one)")
    verify = _command(actions, "verify", "hash every file and compare", "dubbing.model_commands:verify")
    lock = _command(
        actions, "lock", "pin models to what is here, in a file for other machines", "dubbing.model_commands:lock"
    )
    for sub in (verify, lock):
        sub.add_argument("names", metavar="NAME", nargs="*", help="only these (default: all that are here)")
    return [listed, fetch, verify, lock]


def _users(commands: Any) -> list[argparse.ArgumentParser]:
    actions = _group(commands, "user", "the users of this server")
    added = _command(actions, "add", "make a user; the password is asked for, or piped in", "dubbing.user_commands:add")
    added.add_argument("name", metavar="NAME", help="what the user logs in with")
    _role(added)
    made = [added, _command(actions, "list", "everybody, with role and state", "dubbing.user_commands:list_users")]
    for name, text in (
        ("disable", "lock a user out, at once; his jobs stay"),
        ("enable", "let a disabled user in again"),
        ("password", "give a user another password, asked for or piped in; ends his sessions"),
    ):
        sub = _command(actions, name, text, f"dubbing.user_commands:{name}")
        sub.add_argument("name", metavar="NAME", help="a user")
        made.append(sub)
    text = "say by what login `tailscale serve` lets a user in (docs/remote_access.md); without LOGIN: by none"
    named = _command(actions, "tailscale", text, "dubbing.user_commands:tailscale")
    named.add_argument("name", metavar="NAME", help="a user")
    named.add_argument("login", metavar="LOGIN", nargs="?", help="as the tailnet names him, such as ana@example.com")
    text = "make a link that makes one user, within a week"
    made += [named, _command(actions, "invite", text, "dubbing.user_commands:invite")]
    _role(made[-1])
    return made


def _role(sub: argparse.ArgumentParser) -> None:
    role = sub.add_mutually_exclusive_group()
    role.add_argument("--role", choices=get_args(Role), default="user", help="what the user may do (default: user)")
    role.add_argument("--admin", dest="role", action="store_const", const="admin", help="the same as --role admin")


def _group(commands: Any, name: str, text: str) -> Any:
    sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return sub.add_subparsers(metavar="ACTION", required=True)


def _submit(commands: Any) -> None:
    from dubbing import cli  # noqa: PLC0415 - it imports this module

    sub = _command(
        commands, "submit", "put a dub in the queue; prints the job's id", "dubbing.job_commands:submit", json=False
    )
    cli.request_options(sub)
    sub.add_argument("--priority", type=int, default=50, metavar="N", help="0 to 100, higher runs first (default: 50)")
    sub.add_argument(
        "--user", default=cli.LOCAL_USER, metavar="NAME", help=f"whose job it is (default: {cli.LOCAL_USER})"
    )
    sub.add_argument(
        "--at", type=moment, metavar="TIME", help="start not before HH:MM, or YYYY-MM-DDTHH:MM, local time"
    )


def _command(commands: Any, name: str, text: str, place: str, *, json: bool = True) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    if json:
        sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(command=_Later(place))
    return sub


def moment(text: str, now: dt.datetime | None = None) -> int:
    """Milliseconds since 1970 of the next `HH:MM`, or of `YYYY-MM-DDTHH:MM[:SS][+HH:MM]`; local time if no zone."""
    now = now or dt.datetime.now().astimezone()
    try:
        if "T" in text or "-" in text or " " in text:
            return round(dt.datetime.fromisoformat(text).astimezone().timestamp() * 1000)
        clock = dt.time.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 22:30 or 2030-01-31T22:30") from None
    today = now.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
    return round((today if today > now else today + dt.timedelta(days=1)).timestamp() * 1000)


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)
