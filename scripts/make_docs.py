#!/usr/bin/env python3
"""Write the documents that are made from the code: settings, errors and commands, and the end of TROUBLESHOOTING.

scripts/make_docs.py           write them
scripts/make_docs.py --check   change nothing; exit 1 and name the stale ones
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import dubbing.access_errors  # noqa: E402
import dubbing.api_errors  # noqa: E402
import dubbing.line_errors  # noqa: E402
import dubbing.model_errors  # noqa: E402
import dubbing.queue_errors  # noqa: E402
import dubbing.remote_errors  # noqa: E402
import dubbing.upload_errors  # noqa: F401, E402 - all complete the tree of errors
from dubbing.config import Settings  # noqa: E402 - the tree of this script comes first, installed or not
from dubbing.errors import DubbingError  # noqa: E402

MADE = "<!-- Made by scripts/make_docs.py from the code; `make docs` writes it anew. -->\n\n"


def row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def table(heads: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    return row(*heads) + row(*("---" for _ in heads)) + "".join(row(*cells) for cells in rows)


def settings() -> str:
    def allowed(name: str, schema: dict[str, Any]) -> str:
        facts = schema["properties"][name]
        for option in facts.get("anyOf", [facts]):
            if "enum" in option:
                return ", ".join(f"`{value}`" for value in option["enum"])
            if "minimum" in option:
                return (
                    f"{option['minimum']} to {option['maximum']}"
                    if "maximum" in option
                    else f"{option['minimum']} or more"
                )
            if option.get("type") == "boolean":
                return "`1`, `0`"
            if option.get("format") == "path":
                return "a path"
        return "text"

    def rows() -> Iterator[tuple[object, ...]]:
        schema = Settings.model_json_schema(by_alias=False)
        for name, field in Settings.model_fields.items():
            default = (
                "unset"
                if field.default is None
                else f"`{int(field.default) if field.default is False else field.default}`"
            )
            yield f"`{field.validation_alias}`", default, allowed(name, schema), field.description

    text = (
        "Read once at start from the environment and from a file `.env` in the current folder; the environment wins.\n"
    )
    text += "A name that begins with `DUBBING_` and is not listed here is refused: no typing error goes unnoticed.\n\n"
    return f"# Settings\n\n{text}" + table(("Variable", "Default", "Values", "What it does"), rows())


def tree(kind: type[DubbingError]) -> Iterator[type[DubbingError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def message_of(kind: type[DubbingError]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def troubleshooting() -> str:
    """What people wrote down to the mark, and every code below it."""

    def advice(kind: type[DubbingError]) -> str:
        plain = re.fullmatch(r"\{\w+\}", kind.hint)
        text = "The message itself names what to type." if plain else kind.hint
        return text + (" Trying again helps." if kind.retryable else "")

    written = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
    head, mark, _ = written.partition("-->\n")
    kinds = sorted({kind.code: kind for kind in tree(DubbingError)}.items())
    rows = ((f"`{code}`", message_of(kind), advice(kind)) for code, kind in kinds)
    return head + mark + "\n" + table(("Code", "What it means", "What to do"), rows)


def errors() -> str:
    def rows() -> Iterator[tuple[object, ...]]:
        for kind in tree(DubbingError):
            message = message_of(kind)
            retry = "yes" if kind.retryable else "no"
            yield f"`{kind.code}`", message, kind.hint, kind.exit_code, kind.http_status, retry

    text = "Every failure a user can meet. `{names}` stand for facts of the case; the code is what `--json` prints.\n\n"
    heads = ("Code", "Message", "What to do", "Exit code", "HTTP status", "Trying again helps")
    return f"# Errors\n\n{text}" + table(heads, rows())


def commands() -> str:
    from dubbing.cli import parser  # noqa: PLC0415 - only where there is a command line

    def options(sub: argparse.ArgumentParser) -> Iterator[tuple[object, ...]]:
        for action in sub._actions:
            if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
                names = ", ".join(f"`{name}`" for name in action.option_strings)
                value = (
                    "" if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction) else value_of(action)
                )
                yield " ".join(filter(None, (names, value))), (action.help or "").replace("%(prog)s", "dub")

    def value_of(action: argparse.Action) -> str:
        if action.choices:
            return " or ".join(f"`{choice}`" for choice in action.choices)
        return f"`{action.metavar or action.dest.upper()}`"

    top = parser()
    text = (
        f"# The command line\n\n{top.description}\n\n```text\n{top.epilog}\n```\n"
        if top.epilog
        else f"# The command line\n\n{top.description}\n"
    )

    def below(parser: argparse.ArgumentParser, prefix: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, sub in action.choices.items():
                    yield f"{prefix} {name}", sub
                    yield from below(sub, f"{prefix} {name}")

    for name, sub in below(top, "dub"):
        text += f"\n## {name}\n\n{sub.description or ''}\n"
        if rows := list(options(sub)):
            text += "\n" + table(("Option", "What it does"), iter(rows))
    return text


DOCUMENTS: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "errors.md": errors,
    "TROUBLESHOOTING.md": troubleshooting,
}
BY_HAND = {"TROUBLESHOOTING.md"}
"""Documents of which only the end is made."""
if importlib.util.find_spec("dubbing.cli"):
    DOCUMENTS["cli.md"] = commands


def main() -> int:
    arguments = argparse.ArgumentParser(description="Write the documents that are made from the code.")
    arguments.add_argument("--check", action="store_true", help="change nothing; exit 1 when one is stale")
    arguments.add_argument("--folder", type=Path, default=ROOT / "docs", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    stale = []
    for name, make in DOCUMENTS.items():
        path = options.folder / name
        text = ("" if name in BY_HAND else MADE) + make()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    if options.check and stale:
        print(f"stale documents: {', '.join(stale)}; `make docs` writes them anew", file=sys.stderr)
        return 1
    print(f"documents: {'all up to date' if not stale else 'wrote ' + ', '.join(stale)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
