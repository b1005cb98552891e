"""Machines that die under running jobs, on a Ray of three nodes with `dub serve` on it. Long with DUBBING_TEST_CHAOS=1."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_support import BUSY_S, eventually, python_path
from served import ROOT_USER, begin
from town import Town

from cluster.demand import BUNDLE
from dubbing import config
from dubbing.intake import Intake
from dubbing.jobs import Actor, Job, State
from dubbing.queue.choose import choose_queue
from dubbing.store import Event, open_store
from tests.services import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
CHAOS = os.environ.get("DUBBING_TEST_CHAOS") == "1"
SLOTS = 10 if CHAOS else 4
"""Of each of the two nodes."""
ROUNDS = 5 if CHAOS else 1
NODES = 2
LINES = 6
"""Of a job."""
LOST_S = 55.0
"""Within it `dub serve` says that its Ray is gone; after 60 s Ray itself would end the process, without a word of ours."""


class Site:
    """A town with a server on it; both can be replaced by new ones over the same state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = 0
        self.open(nodes=NODES)

    def open(self, nodes: int) -> None:
        self.town = Town(nodes=nodes, slots=SLOTS)
        with contextlib.ExitStack() as unless_open:
            unless_open.callback(self.town.close)
            self.served, told = begin(self.folder, {"RAY_ADDRESS": self.town.address})
            unless_open.pop_all()
        assert f"ready, {nodes * SLOTS} jobs at once" in told

    def close(self) -> None:
        try:
            self.served.close()
        finally:
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

    def kept(self, jobs: Iterable[str]) -> dict[str, set[str]]:
        """The words of the lines of each job that are finished for good."""
        return {name: self.served.kept(name) for name in jobs}

    def verify(self, jobs: dict[str, Job], kept: dict[str, set[str]]) -> None:
        """All done, each once, no line committed twice; what is not in `kept` was spoken again once at most, all else never."""
        served = self.served
        assert set(served.ended(*jobs.values(), within_s=300)) == {State.DONE}
        assert served.ends(*jobs.values()) == {job.id: 1 for job in jobs.values()}
        again = {name: served.spoken(name) - Counter(served.kept(name)) for name in jobs}
        print("lines kept:", {name: len(words) for name, words in kept.items()}, "lines spoken again:", again)
        for name in jobs:
            done = served.done_lines(name)
            assert len(done) == len(set(done)) == len(served.kept(name)) == LINES
            assert not again[name].keys() & kept.get(name, served.kept(name)), "a line that was kept was spoken again"
            assert set(again[name].values()) <= {1}


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


class Office:
    """Three dispatchers over one Redis and one database, each a driver of its own on the site's Ray; tiny jobs."""

    def __init__(self, site: Site, folder: Path, redis_url: str) -> None:
        given = {"DUBBING_STATE_DIR": str(folder), "REDIS_URL": redis_url, "QUEUE_MODE": "redis"}
        self.folder, self.slots = folder, 2 * SLOTS
        (folder / "open").mkdir()
        settings = config.load(given, None, None)
        self.store = open_store(settings)
        self.choice = choose_queue(settings, now_ms=self.store.clock_ms())
        self.intake = Intake(self.store, self.choice.queue)
        self.users = [self.store.add_user(f"u{n}").actor for n in range(8)]
        self.store.set_setting("user:*:cap", self.slots)
        with (folder / "dispatchers.log").open("w") as log:
            self.drivers = [
                subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("tiny.py")), site.town.address, json.dumps(given), name],
                    stdin=subprocess.PIPE, stdout=log, stderr=log,
                )
                for name in ("d1", "d2", "d3")
            ]  # fmt: skip
        eventually(lambda: len(self.store.present()) == len(self.drivers))

    def submit(self, count: int, *, priority: int, gate: bool = False) -> list[Job]:
        requests = [{"n": n, "gate": gate} for n in range(count)]
        owner = (self.users[n % len(self.users)] for n in range(count))
        return [self.intake.submit(next(owner), request, priority=priority)[0] for request in requests]

    def open_gate(self, job: Job) -> None:
        (self.folder / "open" / job.id).touch()

    def running(self) -> list[Job]:
        return self.store.running()

    def effects(self) -> list[tuple[str, str]]:
        """(start or end, job id) by time, as the runners wrote them."""
        written = self.folder / "effects"
        lines = [line.split() for line in written.read_text().splitlines()] if written.exists() else []
        return [(what, job_id) for _, what, job_id, _ in sorted(lines, key=lambda line: int(line[0]))]

    def events(self, after: int = 0) -> list[Event]:
        return self.store.events(ROOT_USER, after=after, limit=1_000_000)

    def drained(self) -> bool:
        return set(self.store.counts()) == {"done"}

    def close(self) -> None:
        for driver in self.drivers:
            assert driver.stdin is not None
            driver.stdin.close()
        for driver in self.drivers:
            driver.wait(BUSY_S)
        self.choice.close()
        self.store.close()


@pytest.fixture(scope="class")
def office(site: Site, tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Office]:
    with redis_server.client() as client:
        client.flushall()
    opened = Office(site, tmp_path_factory.mktemp("office"), redis_server.url)
    yield opened
    opened.close()
    assert [driver.returncode for driver in opened.drivers] == [0, 0, 0], (
        opened.folder / "dispatchers.log"
    ).read_text()


def most(changes: Iterable[int]) -> int:
    return max(itertools.accumulate(changes))


class TestSeveralDispatchers:
    """A class, so that they are gone before the tests that end their Ray."""

    def test_several_dispatchers_never_start_more_jobs_than_there_are_slots(self, office: Office) -> None:
        jobs = office.submit(500 if CHAOS else 24, priority=50)
        owners: set[str] = set()
        eventually(lambda: owners.update(job.owner for job in office.running()) or office.drained(), 600)

        kinds = {"running": 1, "done": -1}
        events = [event for event in office.events() if event.kind in kinds]
        assert most(kinds[event.kind] for event in events) <= office.slots
        assert most(1 if what == "start" else -1 for what, _ in office.effects()) <= office.slots
        assert Counter(office.effects()) == {(what, job.id): 1 for what in ("start", "end") for job in jobs}
        rows = [office.store.job(ROOT_USER, job.id) for job in jobs]
        assert {(row.epoch, row.attempt, row.crash_count, row.orphan_count) for row in rows} == {(1, 0, 0, 0)}
        assert office.choice.queue.fsck() == []
        assert len(owners) > 1, "one dispatcher did it all"

    def test_a_higher_priority_is_always_the_next_start_while_all_slots_are_busy(self, office: Office) -> None:
        trials = 50 if CHAOS else 3
        low = office.submit(office.slots + trials + 5, priority=5, gate=True)
        for n in range(trials):
            eventually(lambda: len(office.running()) == office.slots)
            seen = office.events()[-1].id
            (urgent,) = office.submit(1, priority=95)
            office.open_gate(low[n])
            eventually(lambda: office.store.job(ROOT_USER, urgent.id).state is State.DONE)  # noqa: B023
            assert next(event.job_id for event in office.events(seen) if event.kind == "running") == urgent.id
        for job in low:
            office.open_gate(job)
        eventually(office.drained)


def test_a_dispatcher_that_dies_under_many_running_jobs_costs_each_only_lines_in_hand(site: Site) -> None:
    served, count = site.served, 2 * SLOTS
    with served.speechless():
        jobs = site.talks(count)
        eventually(lambda: len(served.store.running()) == count)
    eventually(lambda: sum(map(len, site.kept(jobs).values())) >= count, 120)

    kept = site.kept(jobs)
    os.kill(served.dispatcher_pid(), signal.SIGKILL)
    site.verify(jobs, kept)

    rows = [served.store.job(ROOT_USER, job.id) for job in jobs.values()]
    assert {(row.attempt, row.crash_count) for row in rows} == {(0, 0)}
    assert any(row.orphan_count == 1 for row in rows)


def test_a_node_that_dies_under_its_runners_has_all_of_them_run_again_elsewhere(site: Site) -> None:
    served, town = site.served, site.town
    for _ in range(ROUNDS):
        lost = town.nodes[0]
        with served.speechless():
            jobs = site.talks(2 * SLOTS)
            eventually(lambda: len(town.runners(lost)) == SLOTS and len(served.store.running()) == 2 * SLOTS)  # noqa: B023
            theirs = {name: job for name, job in jobs.items() if job.id in town.runners(lost)}
        eventually(lambda: any(site.kept(theirs).values()))  # noqa: B023
        town.lose(lost)
        kept = site.kept(theirs)
        site.verify(jobs, kept)

        for job in jobs.values():
            row = served.store.job(ROOT_USER, job.id)
            assert (row.crash_count, row.epoch) == ((1, 2) if job in theirs.values() else (0, 1))
        town.add_node()


def test_after_the_head_died_a_second_start_of_everything_resumes_all_jobs_once_nodes_come(site: Site) -> None:
    for _ in range(ROUNDS):
        with site.served.speechless():
            jobs = site.talks(SLOTS)
            eventually(lambda: len(site.served.store.running()) == SLOTS)
        eventually(lambda: any(site.kept(jobs).values()))  # noqa: B023

        site.town.lose_head()
        assert site.served.process.wait(LOST_S) == 4
        assert "is gone" in (site.folder / "serve.log").read_text()
        left = {job.id for job in site.served.store.running()}
        assert len(left) > 1
        site.close()
        kept = site.kept(jobs)
        site.open(nodes=0)
        nothing_yet = "offers the resource job_slot yet: jobs wait until one does"
        assert nothing_yet in (site.folder / "serve.log").read_text()
        doctor = json.loads(site.served.dub("doctor", "--json").stdout)
        [cluster] = [finding for finding in doctor if finding["name"] == "cluster"]
        assert (cluster["state"], nothing_yet in cluster["detail"]) == ("warning", True)
        eventually(lambda: site.town.wanted() == [BUNDLE] * SLOTS, 60)
        for _ in range(NODES):
            site.town.add_node()
        site.verify(jobs, kept)

        for job in jobs.values():
            row = site.served.store.job(ROOT_USER, job.id)
            assert (row.attempt, row.crash_count, row.epoch) == (0, 0, 2 if job.id in left else 1)


@pytest.mark.parametrize("program", ["gcs_server", "raylet"] if CHAOS else ["gcs_server"])
def test_a_server_whose_own_ray_dies_says_so_leaves_nothing_behind_and_can_be_started_again(
    program: str, tmp_path: Path, plugin: Path, require_program: Any
) -> None:
    require_program("ffmpeg")
    first, _ = begin(tmp_path, {})
    processes = psutil.Process(first.process.pid).children(recursive=True)
    job = first.talk(first.user("left"), "left", LINES)
    eventually(lambda: first.done_lines("left"))

    next(process for process in processes if Path(process.exe()).name == program).kill()
    assert first.process.wait(LOST_S) == 4
    assert "is gone" in (tmp_path / "serve.log").read_text()
    _, alive = psutil.wait_procs(processes, timeout=BUSY_S)
    assert alive == []
    kept = first.kept("left")
    first.close()
    if CHAOS:
        second, _ = begin(tmp_path, {})
        assert second.ended(job) == [State.DONE]
        assert second.ends(job) == {job.id: 1}
        assert not (second.spoken("left") - Counter(second.kept("left"))).keys() & kept
        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(BUSY_S) == 0
        second.close()
