"""Machines that die under running jobs, on a Ray of three nodes with `dub serve` on it. Long with DUBBING_TEST_CHAOS=1."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_support import eventually, python_path
from served import ROOT_USER, begin
from town import Town

from cluster.demand import BUNDLE
from dubbing.jobs import Actor, Job, State

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
CHAOS = os.environ.get("DUBBING_TEST_CHAOS") == "1"
SLOTS = 10 if CHAOS else 4
"""Of each of the two nodes."""
ROUNDS = 5 if CHAOS else 1
LINES = 4
"""Of a job."""
LOST_S = 55.0
"""Within it `dub serve` says that its Ray is gone; after 60 s Ray itself would end the process, without a word of ours."""


class Site:
    """A town with a server on it; both can be replaced by new ones over the same state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = 0
        self.open()

    def open(self) -> None:
        self.town = Town(nodes=2, slots=SLOTS)
        try:
            self.served, told = begin(self.folder, {"RAY_ADDRESS": self.town.address})
        except BaseException:
            self.town.close()
            raise
        assert f"ready, {2 * SLOTS} jobs at once" in told

    def close(self) -> None:
        self.served.close()
        self.town.close()

    def talks(self, count: int) -> dict[str, Job]:
        """That many jobs of one user, by name."""
        actor = self.user(cap=count)
        names = [f"talk{self.jobs + n}" for n in range(count)]
        self.jobs += count
        return {name: self.served.talk(actor, name, LINES) for name in names}

    def user(self, cap: int) -> Actor:
        actor = self.served.user(f"of{self.jobs}-{cap}-{len(self.served.store.settings())}")
        self.served.intake.configure(ROOT_USER, "user", actor.user_id, "cap", cap)
        return actor

    def kept(self, jobs: dict[str, Job]) -> dict[str, int]:
        """How many lines of each job are finished for good."""
        return {name: len(self.served.done_lines(name)) for name in jobs}

    def verify(self, jobs: dict[str, Job]) -> dict[str, int]:
        """All done, each once, no line committed twice; how many lines of each were spoken again."""
        served = self.served
        assert set(served.ended(*jobs.values(), within_s=300)) == {State.DONE}
        assert served.ends(*jobs.values()) == {job.id: 1 for job in jobs.values()}
        for name in jobs:
            done = served.done_lines(name)
            assert len(done) == len(set(done)) == LINES
        return {name: sum(count - 1 for count in served.spoken(name).values()) for name in jobs}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, plugin: Path, require_program: Any) -> Iterator[Site]:
    require_program("ffmpeg")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = python_path(plugin)
    opened = Site(tmp_path_factory.mktemp("site"))
    yield opened
    opened.close()
    os.environ["PYTHONPATH"] = before


def test_the_autoscaler_is_asked_for_what_runs_and_what_could_start_and_for_nothing_afterwards(site: Site) -> None:
    served, town = site.served, site.town
    eventually(lambda: town.wanted() == [])
    three, one, paused = site.user(cap=3), site.user(cap=1), site.user(cap=5)
    served.intake.configure(ROOT_USER, "user", paused.user_id, "paused", 1)
    users = {three: (5, 3), one: (4, 1), paused: (6, 0)}
    jobs = [
        served.talk(actor, f"want{actor.user_id[:6]}{n}", 200)
        for actor, (count, _) in users.items()
        for n in range(count)
    ]
    wanted = sum(most for _, most in users.values())

    eventually(lambda: town.wanted() == [BUNDLE] * wanted)
    eventually(lambda: len(served.store.running()) == wanted)
    served.dub("pause")
    running = len(served.store.running())
    for job in jobs:
        served.intake.cancel(ROOT_USER, job.id)
    assert running == wanted
    assert set(served.ended(*jobs)) == {State.CANCELLED}
    served.dub("resume")
    eventually(lambda: town.wanted() == [])


def test_a_dispatcher_that_dies_under_many_running_jobs_costs_each_at_most_one_line(site: Site) -> None:
    served, count = site.served, 2 * SLOTS
    jobs = site.talks(count)
    eventually(lambda: len(served.store.running()) == count, 60)
    eventually(lambda: sum(site.kept(jobs).values()) >= count, 120)

    os.kill(served.dispatcher_pid(), signal.SIGKILL)
    again = site.verify(jobs)

    print("lines spoken again after the dispatcher's death:", again)
    assert max(again.values()) <= 1
    rows = [served.store.job(ROOT_USER, job.id) for job in jobs.values()]
    assert {(row.attempt, row.crash_count) for row in rows} == {(0, 0)}
    assert any(row.orphan_count == 1 for row in rows)


def test_a_node_that_dies_under_its_runners_has_all_of_them_run_again_elsewhere(site: Site) -> None:
    served, town = site.served, site.town
    for _ in range(ROUNDS):
        jobs = site.talks(2 * SLOTS)
        eventually(lambda: len(served.store.running()) == 2 * SLOTS, 60)
        lost = town.nodes[0]
        eventually(lambda: len(town.runners(lost)) == SLOTS, 60)  # noqa: B023
        there = {"".join(p.cmdline()).removeprefix("ray::job:")[:32] for p in town.runners(lost)}
        theirs = {name: job for name, job in jobs.items() if job.id in there}
        eventually(lambda: all(site.kept(theirs).values()), 120)  # noqa: B023

        town.lose(lost)
        kept = site.kept(theirs)
        again = site.verify(jobs)

        print("lines kept at the node's death:", kept, "lines spoken again:", again)
        assert all(again[name] <= (LINES - kept[name] if name in theirs else 0) for name in jobs)
        for job in jobs.values():
            row = served.store.job(ROOT_USER, job.id)
            assert (row.crash_count, row.epoch) == ((1, 2) if job.id in there else (0, 1))
        town.add_node()


def test_after_the_head_died_a_second_start_of_everything_resumes_all_jobs(site: Site) -> None:
    for _ in range(ROUNDS):
        jobs = site.talks(SLOTS)
        eventually(lambda: all(site.kept(jobs).values()), 120)  # noqa: B023

        site.town.lose_head()
        assert site.served.process.wait(LOST_S) == 4
        assert "is gone" in (site.folder / "serve.log").read_text()
        site.close()
        kept = site.kept(jobs)
        site.open()
        again = site.verify(jobs)

        print("lines kept at the head's death:", kept, "lines spoken again:", again)
        assert all(again[name] <= LINES - kept[name] for name in jobs)
        rows = [site.served.store.job(ROOT_USER, job.id) for job in jobs.values()]
        assert {(row.attempt, row.crash_count, row.epoch) for row in rows} == {(0, 0, 2)}
