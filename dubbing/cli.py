"""`dub`: results on stdout, progress and errors on stderr, exit codes that scripts can trust."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from dubbing import __version__, config
from dubbing.errors import DubbingError, StoppedError, UsageError
from dubbing.remote_errors import NotRemoteError

LOCAL_USER = "local"
"""Whose jobs those of the command line are when nobody is named."""
EXIT_CODES = """exit codes:
  0 done   1 internal error   2 usage   3 bad input   4 this machine is not ready   5 server
  6 the job failed   75 try again later   130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code."""
    arguments = parser().parse_args(argv)
    log_dir = Path("logs")
    try:
        settings = config.load()
        log_dir = settings.log_dir
        logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
        if settings.url is not None and getattr(arguments, "here", None):
            raise NotRemoteError(command=arguments.here)
        return int(arguments.command(arguments, settings))
    except DubbingError as error:
        return _fail(error, getattr(arguments, "json", False))
    except KeyboardInterrupt:
        return _fail(StoppedError(), getattr(arguments, "json", False))
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 - the command's border: a defect becomes a message with a trace to send in
        log_dir.mkdir(parents=True, exist_ok=True)
        trace = log_dir / "dub-error.log"
        trace.write_text(traceback.format_exc())
        defect = DubbingError(detail=f"{type(error).__name__}: {error}")
        defect.log = trace
        return _fail(defect, getattr(arguments, "json", False))


def _fail(error: DubbingError, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"error": error.as_dict()}, ensure_ascii=False) + "\n")
    lines = [f"dub: {error.message}."]
    if error.advice:
        lines.append(f"     {error.advice}")
    if error.log:
        lines.append(f"     Details: {error.log}")
    sys.stderr.write("\n".join(lines) + "\n")
    return error.exit_code


def parser() -> argparse.ArgumentParser:
    """The whole command line; docs/cli.md is made from it."""
    top = argparse.ArgumentParser(
        prog="dub",
        description="Dub videos into other languages, on your own machine.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"dub {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _run_options(commands.add_parser("run", help="dub a file here and now; the same command again resumes"))
    from dubbing import job_options, listings  # noqa: PLC0415 - keeps `dub --version` instant

    for name, command, text in (
        ("doctor", listings.doctor, "check this machine; each finding names the command that fixes it"),
        ("languages", listings.languages, "languages that the engines on this machine can do"),
        ("engines", listings.engines, "engines, their licences, and whether they can be used here"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(command=command)
        job_options.here(sub)
    voices = commands.add_parser("voices", help="voices for a language", description="Voices for a language.")
    voices.add_argument("language", help="BCP-47 tag, such as es or pt-BR")
    voices.add_argument("--json", action="store_true", help="print JSON")
    voices.set_defaults(command=listings.voices)
    job_options.here(voices)
    job_options.add(commands)
    return top


def _run_options(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Dub a video or audio file: at the running server (`dub serve`) if there is one, else on a Ray of its own. "
        "Ctrl-C stops after what is under way; the same command resumes. DUBBING_URL is for the other commands: this one "
        "dubs on this machine."
    )
    request_options(sub)
    sub.add_argument("--user", default=LOCAL_USER, metavar="NAME", help=f"whose job it is (default: {LOCAL_USER})")
    sub.add_argument("--in-process", action="store_true", help="without Ray and queue, in this process")
    sub.add_argument("--yes", action="store_true", help="fetch better models without asking, where licences allow it")
    sub.set_defaults(command=_run)


def request_options(sub: argparse.ArgumentParser) -> None:
    """What can be asked of one dub, now or later."""
    sub.add_argument("file", type=Path, metavar="FILE", help="video or audio file")
    sub.add_argument("--to", required=True, metavar="TAG[,TAG]", help="target languages, such as es or es,ca")
    sub.add_argument(
        "--from",
        dest="source_language",
        default="auto",
        metavar="TAG",
        help="language spoken in the file (default: the track's own label, else en, if that is what is heard)",
    )
    sub.add_argument("--transcript", type=Path, metavar="FILE", help="what is said, as SRT, VTT, ASS or plain text")
    sub.add_argument(
        "--translation",
        action="append",
        default=[],
        metavar="[TAG=]FILE",
        help="subtitles in the target language: nothing is recognised or translated for it",
    )
    sub.add_argument(
        "--glossary",
        action="append",
        default=[],
        metavar="[TAG=]FILE",
        help="CSV or TSV, `source,target` a line: how terms are translated; a term alone is kept as it is",
    )
    sub.add_argument("--start", type=timestamp, metavar="TIME", help="dub from here (seconds, or h:mm:ss)")
    sub.add_argument("--end", type=timestamp, metavar="TIME", help="dub up to here")
    sub.add_argument("--audio-track", type=int, default=1, metavar="N", help="which audio track to dub (default: 1)")
    sub.add_argument(
        "--keep-background",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the original sound, quieter, under the dub (default: yes)",
    )
    sub.add_argument(
        "--speakers", type=people, metavar="N", help="how many people speak at most; 1 gives all lines one voice"
    )
    sub.add_argument("--quality", choices=("auto", "draft", "good", "best"), help="the one dial (default: auto)")
    sub.add_argument("--engine", action="append", default=[], metavar="KIND=NAME", help="insist on an engine")
    sub.add_argument("--voice", action="append", default=[], metavar="[SPEAKER=]VOICE", help="insist on a voice")
    sub.add_argument("--output-dir", type=Path, metavar="DIR", help="where the job's folder goes (default: ./Output)")
    sub.add_argument("--json", action="store_true", help="print the result as JSON")


def timestamp(text: str) -> int:
    """Milliseconds from `90`, `1:30`, `1:30.5` or `0:01:30.5`."""
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or any(not 0 <= part < 1e9 for part in parts) or any(part >= 60 for part in parts[1:]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90, 1:30 or 0:01:30.5")
    return round(sum(part * 60.0**power for power, part in enumerate(reversed(parts))) * 1000)


def people(text: str) -> int:
    """A number of people, from 1 to 100."""
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of people, 1 to 100")
    return int(text)


def _run(arguments: argparse.Namespace, settings: config.Settings) -> int:
    sys.stderr.write(f"dub {__version__}: {arguments.file.name} -> {arguments.to}\n")
    sys.stderr.flush()
    from dubbing import run  # noqa: PLC0415 - numpy and friends load after the first line is on the screen

    return run.command(arguments, settings)


def pairs(values: Sequence[str], option: str, default: str | None = None) -> dict[str, str]:
    """`KEY=VALUE` options as a mapping; a bare value goes under `default`."""
    found: dict[str, str] = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if equals:
            found[key] = rest
        elif default is not None:
            found[default] = value
        else:
            raise UsageError(detail=f"{option} wants KEY=VALUE, not {value!r}")
    return found


if __name__ == "__main__":
    sys.exit(main())
