"""Batches across jobs and nodes that come with the load: the measurements of scripts/bench in short form, each bounded.

They run in processes of their own, with a Ray of their own. Engines of fixed cost make the figures ratios that hardly depend
on the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 900
END_S = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(LONGEST_S + 2 * END_S),
    pytest.mark.skipif(
        os.environ.get("DUBBING_TEST_CHAOS") != "1", reason="measures for minutes; `make chaos` runs it"
    ),
]


def measured(name: str, folder: Path) -> dict[str, Any]:
    """What a benchmark says in its short form; nothing of it may be left afterwards."""
    answer = folder / "answer.json"
    command = [sys.executable, str(ROOT / "scripts" / "bench" / f"{name}.py"), "--short", "--json", str(answer)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        try:
            said, _ = child.communicate(timeout=LONGEST_S)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait(END_S)
    assert child.returncode == 0, said.decode(errors="replace")[-4000:]
    assert left_by(child.pid) == []
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def left_by(pid: int) -> list[str]:
    """Folders of the Ray a benchmark started, and command lines that name them."""
    mark = f"dub-fake-{pid}-"
    commands = (_command(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
    return [*map(str, Path("/tmp").glob(f"{mark}*")), *(command for command in commands if mark in command)]


def _command(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture(scope="module")
def batching(tmp_path_factory: pytest.TempPathFactory, require_program: Any) -> Iterator[dict[str, Any]]:
    require_program("ffmpeg")
    yield measured("batching", tmp_path_factory.mktemp("batching"))


@pytest.fixture(scope="module")
def scaling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    yield measured("autoscaling", tmp_path_factory.mktemp("scaling"))


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory, require_program: Any) -> Iterator[dict[str, Any]]:
    require_program("ffmpeg")
    yield measured("backlog", tmp_path_factory.mktemp("backlog"))


def test_serve_and_the_pipeline_cost_eight_jobs_at_most_a_tenth_more_than_the_bare_batcher(
    batching: dict[str, Any],
) -> None:
    assert batching["overhead"] <= 0.10


def test_four_jobs_at_once_nearly_fill_the_batches(batching: dict[str, Any]) -> None:
    assert batching["fill"] >= 0.8


def test_eight_whole_jobs_at_once_take_at_most_three_fifths_of_their_time_one_by_one(batching: dict[str, Any]) -> None:
    one_by_one, at_once = batching["speak_batches"]
    assert at_once < one_by_one
    assert batching["together"] <= 0.6


def test_a_short_job_behind_a_film_takes_at_most_twice_its_time_alone(batching: dict[str, Any]) -> None:
    assert batching["behind"] <= 2.0


def test_load_brings_nodes_and_replicas_and_idleness_takes_them(scaling: dict[str, Any]) -> None:
    looks = scaling["looks"]
    seen = [(look["nodes"], look["replicas"]) for look in looks]
    assert (seen[0], max(seen), seen[-1]) == ((0, 0), (2, 4), (0, 0))
    assert max(nodes for nodes, _ in seen) == 2
    first_wait = next(i for i, look in enumerate(looks) if look["in_flight"])
    assert first_wait <= next(i for i, look in enumerate(looks) if look["nodes"]), "no node should come before the load"
    assert any(1 <= nodes < 2 and replicas == 2 for nodes, replicas in seen), "two halves of a GPU should share a node"


def test_two_nodes_do_nearly_twice_the_work_of_one(scaling: dict[str, Any]) -> None:
    assert scaling["ratio"] >= 1.8


def test_jobs_that_wait_bring_nodes_with_slots_and_ended_ones_let_them_go(backlog: dict[str, Any]) -> None:
    looks = backlog["looks"]
    assert backlog["counts"] == {"done": 4}
    assert [looks[0]["nodes"], backlog["most_nodes"], looks[-1]["nodes"]] == [0, 2, 0]
    first = next(i for i, look in enumerate(looks) if look["nodes"])
    assert looks[first - 1]["waiting"] == 4, "nodes should come because jobs wait"
    assert not any(look["running"] for look in looks[:first])
