"""The documents name only what exists: commands, options, targets, files; generated ones are up to date."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise, takewhile
from pathlib import Path

import pytest

from dubbing import (
    access_errors,
    api_errors,
    config,
    errors,
    line_errors,
    model_errors,
    queue_errors,
    remote_errors,
    upload_errors,
)
from dubbing.web import admission
from dubbing.web import server as web

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKE_DOCS = ROOT / "scripts" / "make_docs.py"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
PATH_IN_TEXT = re.compile(r"`((?:dubbing|cluster|scripts|docs|tests|serve_configs|requirements)/[\w./-]*)`")


def commands() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for block in BLOCK.findall(document.read_text(encoding="utf-8")):
            joined = block.replace("\\\n", " ")
            yield from (
                (document.name, line.strip())
                for line in joined.splitlines()
                if line.strip() and not line.startswith("#")
            )


def check_make(arguments: list[str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {word for word in arguments if "=" not in word} <= targets


def check_dub(arguments: list[str]) -> None:
    cli = pytest.importorskip("dubbing.cli")
    try:
        cli.parser().parse_args(arguments)
    except SystemExit as stop:
        assert stop.code == 0, f"dub does not understand {arguments}"


def check_ray(arguments: list[str]) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    with scripts.cli.make_context("ray", list(arguments)) as context:
        name, command, rest = scripts.cli.resolve_command(context, arguments)
        command.make_context(name, list(rest))
    for word in rest:
        if word.endswith(".yaml"):
            check_file(word)


def check_docker(arguments: list[str]) -> None:
    """The files and folders that are named exist; the compose files themselves are read by test_docker.py."""
    assert arguments[0] == "compose"
    for option, value in pairwise(arguments):
        if option == "-f":
            check_file(value)


def check_settings(words: list[str]) -> None:
    values = dict(word.split("=", 1) for word in words)
    admission.policy(config.load(values, env_file=None, secrets_file=None))


def check_file(word: str) -> None:
    assert (ROOT / word).is_file()


def test_there_are_commands_to_check() -> None:
    assert len(list(commands())) >= 10


@pytest.mark.parametrize(("document", "command"), list(commands()))
def test_a_command_in_the_documents_exists(document: str, command: str) -> None:
    words = shlex.split(command)
    settings = list(takewhile(re.compile(r"[A-Z_]+=").match, words))
    check_settings(settings)
    program, *arguments = words[len(settings) :]
    if program == "make":
        check_make(arguments)
    elif program in {"dub", ".venv/bin/dub"}:
        check_dub(arguments)
    elif program == "dubbing-web":
        web.parser().parse_args(arguments)
    elif program == "ray":
        check_ray(arguments)
    elif program == "docker":
        check_docker(arguments)
    elif program == ".":
        assert arguments == [".venv/bin/activate"]
    else:
        check_file(program)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    missing = [
        link for link in LINK.findall(document.read_text(encoding="utf-8")) if not (document.parent / link).exists()
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_named_in_the_documents_exist(document: Path) -> None:
    missing = [
        path for path in PATH_IN_TEXT.findall(document.read_text(encoding="utf-8")) if not (ROOT / path).exists()
    ]
    assert not missing


def test_generated_documents_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(MAKE_DOCS), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_code_has_its_place_in_troubleshooting_and_no_other_code_is_named() -> None:
    by_hand, _, made = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8").partition("## Every code")
    codes = {
        kind.code
        for module in (
            errors,
            access_errors,
            api_errors,
            line_errors,
            model_errors,
            queue_errors,
            remote_errors,
            upload_errors,
        )
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, errors.DubbingError)
    }
    assert codes <= set(re.findall(r"^\| `(\w+)` \|", made, re.MULTILINE))
    named = set(re.findall(r"\(`(\w+)`\)", by_hand)) | {
        code
        for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", by_hand, re.MULTILINE)
        for code in re.findall(r"\w+", row)
    }
    assert len(named) > 15 and named <= codes, named - codes


def test_the_readme_leads_to_every_document() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    documents = {path.name for path in (ROOT / "docs").glob("*.md")} - {"BENCHMARKS.md", "RELIABILITY_TESTS.md"}
    assert {name for name in documents if f"(docs/{name})" not in readme} == set()


def test_a_stale_document_is_found_and_written_anew(tmp_path: Path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(MAKE_DOCS), "--folder", str(tmp_path), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert run().returncode == 0
    assert run("--check").returncode == 0
    with (tmp_path / "settings.md").open("a") as file:
        file.write("a note by hand\n")
    stale = run("--check")
    assert (stale.returncode, "settings.md" in stale.stderr) == (1, True)
    assert run().returncode == 0
    assert "a note by hand" not in (tmp_path / "settings.md").read_text()
