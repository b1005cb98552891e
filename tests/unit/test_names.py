"""The check of names says PASS of this tree and finds what it is for in a bad one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "verify_no_anime_or_versions.py"
OLD = "an" + "ime"


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_this_tree_has_no_left_over_names() -> None:
    done = verify(ROOT)
    assert (done.stdout, done.returncode) == ("names: PASS\n", 0), done.stderr


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dubbing/mixer_v2.py", ""),
        ("dubbing/mixer_legacy.py", ""),
        ("dubbing/queue_old/mixer.py", ""),
        ("dubbing/mixer_new.py", ""),
        ("dubbing/mixer_impl.py", ""),
        (f"scripts/{OLD}_run.py", ""),
        ("README.md", f"the {OLD.upper()} dubber"),
        ("config.yaml", f"name: my_{OLD}_job"),
    ],
)
def test_a_left_over_name_is_found(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    done = verify(tmp_path)
    assert done.returncode == 1
    assert done.stdout == "names: FAIL, 1 findings\n"
    assert file in done.stderr


def test_ordinary_words_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "renewal.py").write_text("# an animated picture, agreed unan" + "imement, version 2\n")
    (tmp_path / "new_line.py").write_text("")
    assert verify(tmp_path).stdout == "names: PASS\n"
