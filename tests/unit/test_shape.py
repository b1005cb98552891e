"""The shape of the house: sizes, borders and what an import costs, so that none of it slips unnoticed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("dubbing", "cluster", "scripts") for path in (ROOT / folder).rglob("*.py"))
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 80

BORDERS = {
    "dubbing/pipeline.py": "the stage border: whatever escapes a stage reaches the user as an error with a code",
    "dubbing/cli.py": "the command's border",
    "dubbing/engines/registry.py": "loading somebody else's engine may raise anything",
    "cluster/local.py": "ray.init raises bare exceptions, as of a node that starts slowly on a busy machine",
    "cluster/clients.py": "a replica may answer with any exception of any library",
}
"""Modules that may catch everything, once each. What only cleans up is a `finally` or an exit stack."""

ENVIRONMENT = {
    "dubbing/config.py": "the one reader",
    "cluster/local.py": "Ray reads its own settings from the environment when it is imported",
}
HEAVY = {"av", "ctranslate2", "faster_whisper", "numpy", "onnxruntime", "pocketsphinx", "ray", "torch", "transformers"}
MAX_CLI_MODULES = 450
"""Modules loaded by `import dubbing.cli`; 0.13 s for 305 of them. A count, for seconds depend on the machine."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def catches_everything(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}) for kind in kinds
    )


def looks_at_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
        return node.attr in {"environ", "getenv", "putenv", "unsetenv"}
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and any(a.name in {"environ", "getenv"} for a in node.names)
    )


def product() -> Iterator[Path]:
    yield from (path for path in SOURCES if not name(path).startswith("scripts/"))


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_no_module_is_longer_than_400_lines() -> None:
    long = {name(p): n for p in SOURCES if (n := len(p.read_text(encoding="utf-8").splitlines())) > MAX_MODULE_LINES}
    assert not long


def test_no_function_is_longer_than_80_lines() -> None:
    long = [
        f"{name(path)}:{node.name} {node.end_lineno - node.lineno + 1}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert not long


def test_everything_is_caught_only_at_the_borders() -> None:
    broad = [
        f"{name(path)}:{node.lineno}"
        for path in product()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    ]
    assert sorted(place.split(":")[0] for place in broad) == sorted(BORDERS), broad


def test_the_environment_is_read_in_one_place() -> None:
    readers = {name(path) for path in product() if any(map(looks_at_environment, ast.walk(tree(path))))}
    assert readers <= set(ENVIRONMENT)


@pytest.mark.parametrize("module", ["dubbing", "dubbing.cli"])
def test_importing_the_product_is_cheap(module: str) -> None:
    if not (ROOT / Path(*module.split("."))).is_dir() and not (ROOT / f"{module.replace('.', '/')}.py").is_file():
        pytest.skip(f"there is no {module}")
    loaded = imported_by(module)
    assert not HEAVY & {one.split(".")[0] for one in loaded}
    assert len(loaded) <= MAX_CLI_MODULES


def test_nothing_unfinished_and_no_private_path_is_left_in_the_tree() -> None:
    marks = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X"))
    unwanted = re.compile(rf"\b({marks})\b|(?<![\w.$}}])/(work|root|home/\w+)/")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for file in listed.stdout.splitlines():
        path = ROOT / file
        if not path.is_file() or path.suffix in {".png", ".mp4", ".wav", ".onnx"}:
            continue
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()
        found += [f"{file}:{n}: {line.strip()[:80]}" for n, line in enumerate(lines, 1) if unwanted.search(line)]
    assert not found


@pytest.mark.parametrize(
    ("handler", "caught"),
    [
        ("except:\n  pass", True),
        ("except Exception as e:\n  raise ValueError from e", True),
        ("except (OSError, BaseException):\n  pass", True),
        ("except BaseException:\n  clean()\n  raise", True),
        ("except OSError:\n  pass", False),
    ],
)
def test_the_check_of_handlers_sees_every_way_to_catch_everything(handler: str, caught: bool) -> None:
    (attempt,) = ast.parse(f"try:\n  work()\n{handler}").body
    assert isinstance(attempt, ast.Try)
    assert catches_everything(attempt.handlers[0]) is caught


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("os.environ['A']", True),
        ("os.getenv('A')", True),
        ("from os import environ", True),
        ("os.path.join('a')", False),
    ],
)
def test_the_check_of_the_environment_sees_every_way_to_read_it(code: str, found: bool) -> None:
    assert any(map(looks_at_environment, ast.walk(ast.parse(code)))) is found
