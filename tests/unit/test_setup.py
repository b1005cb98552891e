"""The set-up script on machines of every kind: each is a folder of stand-in programs that is all of its PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "chmod", "cp", "cut", "dirname", "grep", "mkdir", "sha256sum", "sleep", "tail", "touch")
PROGRAMS = ("make", "ffmpeg", "ffprobe", "espeak-ng", "flite", "redis-server", "chromium")
PACKAGES = "make ffmpeg espeak-ng flite apertium apertium-eng-spa apertium-eng-cat"

PYTHON = """#!/usr/bin/env bash
echo "python $*" >>"$CALLS"
case "$*" in
  *"-m venv"*) d=${!#}/bin; mkdir -p "$d"; cp "$0" "$d/python"; touch "$d/dub"; chmod +x "$d/dub" ;;
  *sys.prefix*) cd "$(dirname "$0")/.." && pwd -P ;;
  --version) echo "Python 3.12.4" ;;
esac
"""
APT = """#!/usr/bin/env bash
echo "apt-get $*" >>"$CALLS"
case $1 in
  update) touch "$LISTS" ;;
  install) [ -e "$LISTS" ] || { echo "E: Unable to locate package ffmpeg"; exit 100; }
    cp -n "$WAREHOUSE"/* "$HERE" ;;
esac
"""


class Machine:
    """A copy of the script in a project of its own, and the programs it can see."""

    def __init__(self, folder: Path) -> None:
        self.project, self.bin, self.warehouse = folder / "my project", folder / "bin", folder / "warehouse"
        for path in (self.project / "scripts", self.project / "requirements", self.bin, self.warehouse):
            path.mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup.sh", self.project / "scripts")
        self.lock = self.project / "requirements" / "base.txt"
        for file in (self.lock, self.project / "requirements" / "dev.txt", self.project / "pyproject.toml"):
            file.write_text("one==1 --hash=sha256:00\n")
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        (self.bin / "env").symlink_to("/usr/bin/env")
        self.stub(self.warehouse, "apertium", "echo '  eng-cat'; echo '  eng-spa'")
        for program in PROGRAMS:
            self.stub(self.warehouse, program, "")
        self.stub(self.bin, "id", "echo 1000")
        self.calls_file = folder / "calls"
        self.folder = folder

    def stub(self, folder: Path, name: str, body: str) -> None:
        path = folder / name
        path.write_text(body if body.startswith("#!") else f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)

    def with_programs(self) -> Machine:
        shutil.copytree(self.warehouse, self.bin, dirs_exist_ok=True)
        return self

    def with_python(self) -> Machine:
        self.stub(self.bin, "python3", PYTHON)
        return self

    def with_apt(self) -> Machine:
        self.stub(self.bin, "apt-get", APT)
        return self

    def as_root(self) -> Machine:
        self.stub(self.bin, "id", "echo 0")
        return self

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        self.calls_file.write_text("")
        env = {
            "PATH": str(self.bin),
            "CALLS": str(self.calls_file),
            "LISTS": str(self.folder / "lists"),
            "WAREHOUSE": str(self.warehouse),
            "HERE": str(self.bin),
        } | more
        script = str(self.project / "scripts" / "setup.sh")
        command = [shutil.which("bash") or "bash", script, *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    def calls(self, words: str) -> int:
        return sum(words in line for line in self.calls_file.read_text().splitlines())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_unknown_group_is_a_usage_error(machine: Machine) -> None:
    done = machine.run("everything")
    assert (done.returncode, done.stderr) == (2, "usage: scripts/setup.sh [run|studio|test]\n")


def test_without_a_suitable_python_it_says_which_ones_are(machine: Machine) -> None:
    done = machine.with_programs().run()
    assert done.returncode == 4
    assert "Python 3.10, 3.11, 3.12 or 3.13 is needed; found none." in done.stderr


def test_without_apt_get_it_names_exactly_what_is_missing(machine: Machine) -> None:
    done = machine.with_python().run()
    assert done.returncode == 4
    assert f"there is no apt-get here: {PACKAGES}\n" in done.stderr


def test_without_an_administrator_it_prints_the_one_command_to_type(machine: Machine) -> None:
    done = machine.with_python().with_apt().run()
    assert done.returncode == 4
    typed = f"  sudo apt-get update && sudo apt-get install -y --no-install-recommends {PACKAGES}\n"
    assert typed in done.stderr
    assert not machine.calls("apt-get")


def test_a_fresh_machine_gets_everything_and_package_lists_only_when_needed(machine: Machine) -> None:
    done = machine.with_python().with_apt().as_root().run("test")
    assert done.returncode == 0, done.stderr
    assert machine.calls("apt-get install") == 2
    assert machine.calls("apt-get update") == 1
    assert machine.calls("--require-hashes") == 1
    assert machine.calls("requirements/dev.txt") == 1


def test_a_second_run_installs_nothing(machine: Machine) -> None:
    machine.with_python().with_apt().with_programs().as_root().run("test")
    for group in ("test", "run"):
        assert machine.run(group).returncode == 0
        assert not machine.calls("pip")
        assert not machine.calls("apt-get")


def test_a_changed_lock_installs_python_packages_anew(machine: Machine) -> None:
    machine.with_python().with_programs().run()
    machine.lock.write_text("one==2 --hash=sha256:01\n")
    assert machine.run().returncode == 0
    assert machine.calls("--require-hashes") == 1


def test_what_pip_says_of_a_lost_network_reaches_the_user(machine: Machine) -> None:
    broken = PYTHON + 'case "$*" in *--require-hashes*) echo "No route to host"; exit 1 ;; esac\n'
    machine.with_programs().stub(machine.bin, "python3", broken)
    done = machine.run()
    assert done.returncode == 4
    assert "No route to host" in done.stderr
    assert "pip could not install requirements/base.txt" in done.stderr


def test_what_apt_get_says_when_it_fails_reaches_the_user(machine: Machine) -> None:
    machine.with_python().as_root().stub(machine.bin, "apt-get", "echo 'E: no network'; exit 100")
    done = machine.run()
    assert done.returncode == 4
    assert "E: no network" in done.stderr


def test_torch_without_cuda_is_installed_for_tests_alone(machine: Machine) -> None:
    machine.with_python().with_programs()
    assert machine.run("run").returncode == 0
    assert not machine.calls("torch-cpu.txt")
    assert machine.run("test").returncode == 0
    assert machine.calls("--no-deps --progress-bar off -r") == 1
    assert machine.calls("torch-cpu.txt") == 1
    assert machine.calls("repair_torchaudio.py") == 1


NO_TORCH = PYTHON + 'case "$*" in *torch-cpu.txt*) echo "No matching distribution"; exit 1 ;; esac\n'


def test_where_the_usual_index_has_no_torch_without_cuda_pytorchs_own_is_asked(machine: Machine) -> None:
    only_there = 'case "$*" in *download.pytorch.org*) exit 0 ;; *torch-cpu.txt*) exit 1 ;; esac\n'
    machine.with_programs().stub(machine.bin, "python3", PYTHON + only_there)
    assert machine.run("test").returncode == 0
    assert machine.calls("torch-cpu.txt") == 2
    assert machine.calls("repair_torchaudio.py") == 1


def test_without_any_torch_the_set_up_goes_on_here_and_fails_in_ci(machine: Machine) -> None:
    machine.with_programs().stub(machine.bin, "python3", NO_TORCH)
    done = machine.run("test")
    assert done.returncode == 0
    assert "tests of the studio engines will be skipped" in done.stdout
    (machine.project / ".venv" / ".ready-test").unlink()
    machine.stub(machine.bin, "initdb", "")
    done = machine.run("test", CI="true")
    assert done.returncode == 4
    assert "No matching distribution" in done.stderr


def test_the_studio_engines_are_installed_by_their_known_versions_and_serve_for_a_run(machine: Machine) -> None:
    machine.with_python().with_programs()
    assert machine.run("studio").returncode == 0
    assert machine.calls("constraints.txt") == 1
    assert machine.calls("my project[studio]") == 1
    assert machine.run("run").returncode == 0
    assert not machine.calls("pip")
    assert machine.run("studio").returncode == 0
    assert not machine.calls("pip")
