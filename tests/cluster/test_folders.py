"""Temporary folders of processes that were killed, and who still writes there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import folders

Writer = Callable[..., subprocess.Popen[str]]
WRITE = """
import sys
open("/proc/self/comm", "w").write(sys.argv[1])
log = open(sys.argv[2], "w")
print("ready", flush=True)
input()
"""


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The folder of a process that has ended."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    folder = tmp_path / f"dub-ray-{dead.pid}-abcdefgh"
    folder.mkdir()
    return folder


@pytest.fixture
def writer() -> Iterator[Writer]:
    """Starts a process with a name, an open file and more words on its command line."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, log: Path, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITE, name, str(log), *words]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_killed_process_left_is_swept_when_the_next_makes_its_own(left: Path) -> None:
    (left / "log").write_text("words")
    made = folders.make(folders.RAY, left.parent)
    again = folders.make(folders.RAY, left.parent)
    assert sorted(left.parent.iterdir()) == sorted([made, again])
    assert made.name.startswith(f"dub-ray-{os.getpid()}-")


def test_folders_of_other_kinds_and_names_are_left_alone(left: Path) -> None:
    others = [left.parent / name for name in (left.name.replace("ray", "pg"), "dub-ray-mine-x", "dub-ray-1")]
    for other in others:
        other.mkdir()
    folders.sweep(left.parent, folders.RAY)
    assert sorted(left.parent.iterdir()) == sorted(others)


def test_processes_of_ray_that_write_there_end_with_the_sweep_and_no_others(left: Path, writer: Writer) -> None:
    agent, reader = writer("ray::Agent", left / "agent.log"), writer("tail", left / "agent.log")
    beginner = writer("python", left.parent / "out", "/lib/ray/worker.py", f"--temp-dir={left}")
    elsewhere = writer("ray::Agent", left.parent / "agent.log", "/lib/ray/agent.py")
    folders.sweep(left.parent, folders.RAY)
    assert (agent.wait(60), beginner.wait(60)) == (-9, -9)
    assert (reader.poll(), elsewhere.poll()) == (None, None)
    assert not left.exists()


def test_a_folder_for_a_while_is_gone_afterwards_and_nobody_else_may_look_into_it() -> None:
    with folders.temporary(folders.API) as folder:
        (folder / "upload.mp3").write_text("sound")
        assert folder.stat().st_mode & 0o77 == 0
    assert not folder.exists()
