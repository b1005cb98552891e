"""What is installed from a wheel: the two packages with their data, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import ROOT


def test_the_wheel_holds_the_packages_and_their_data_alone(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("dubbing", "cluster", "serve_configs", "tests", "scripts"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]

    done = subprocess.run([*command, str(tmp_path), str(tree)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"dubbing", "cluster", "dubbing_pipeline"}
    assert "cluster/serve_configs/laptop.yaml" in names
    assert {"dubbing/web/templates/job.html", "dubbing/web/locale/es.po"} <= set(names)
    ours = {str(path.relative_to(ROOT)) for room in ("dubbing", "cluster") for path in (ROOT / room).rglob("*.py")}
    assert ours <= set(names), "a package is missing from pyproject.toml"
