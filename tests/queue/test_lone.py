"""The dispatcher inside a `dub run`: its own job, no lock, no queue of others; and a server beside it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from workshop import SHORT, FakeLauncher, Workshop, finished

from dubbing.dispatcher import Dispatcher
from dubbing.jobs import Job, State
from dubbing.lone import OneJobStore
from dubbing.queue.choose import Choice
from dubbing.queue.fallback_local_queue import LocalQueue


class Lone:
    def __init__(self, shop: Workshop, folder: Path, job: Job) -> None:
        self.name = f"lone-{uuid.uuid4().hex}"
        self.store = OneJobStore(shop.settings, job.id, self.name)
        queue = LocalQueue(folder / f"{self.name}.sqlite3")
        self.choice = Choice(queue, "fallback", "", local=queue)
        self.launcher = FakeLauncher()
        self.dispatcher = Dispatcher(self.store, self.choice, self.launcher, name=self.name, times=SHORT)
        self.dispatcher.start()

    def turn(self) -> None:
        self.dispatcher._tick_at = -1e9  # the next step looks at everything
        self.dispatcher.step()

    def close(self) -> None:
        self.choice.close()
        self.store.close()


def silence(shop: Workshop) -> None:
    """As if no dispatcher had been heard of for eleven seconds."""
    with shop.store.write() as connection:
        connection.exec_driver_sql("UPDATE dispatcher SET beat_ms = beat_ms - 11000")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path)
    yield made
    made.close()


def test_it_takes_its_own_job_and_leaves_the_others_and_the_queue_in_charge(shop: Workshop, tmp_path: Path) -> None:
    before, mine, other = shop.submit(priority=90), shop.submit(), shop.submit(priority=90)
    charge = shop.store.in_charge()
    lone = Lone(shop, tmp_path, mine)
    lone.turn()

    assert lone.launcher.started == [(mine.id, 1)]
    assert [shop.state(job) for job in (before, other)] == [State.PENDING] * 2
    assert shop.store.in_charge() == charge
    lone.dispatcher.report(finished(mine.id, 1))
    lone.turn()
    assert shop.state(mine) is State.DONE
    assert lone.launcher.started == [(mine.id, 1)]
    lone.close()


def test_two_of_them_run_beside_each_other(shop: Workshop, tmp_path: Path) -> None:
    jobs = [shop.submit(), shop.submit()]
    lones = [Lone(shop, tmp_path, job) for job in jobs]
    for lone in lones:
        lone.turn()
    for lone, job in zip(lones, jobs, strict=True):
        assert lone.launcher.started == [(job.id, 1)]
        lone.dispatcher.report(finished(job.id, 1))
        lone.turn()
        lone.close()
    assert [shop.state(job) for job in jobs] == [State.DONE] * 2


def test_its_user_may_not_have_more_jobs_at_once_than_his_cap(shop: Workshop, tmp_path: Path) -> None:
    jobs = [shop.submit() for _ in range(3)]
    lones = [Lone(shop, tmp_path, job) for job in jobs]
    for lone in lones:
        lone.turn()
    assert [lone.launcher.started for lone in lones] == [[(jobs[0].id, 1)], [(jobs[1].id, 1)], []]
    lones[0].dispatcher.report(finished(jobs[0].id, 1))
    lones[0].turn()
    lones[2].turn()
    assert lones[2].launcher.started == [(jobs[2].id, 1)]
    for lone in lones:
        lone.close()


def test_a_server_that_starts_leaves_the_job_of_one_that_lives(shop: Workshop, tmp_path: Path) -> None:
    mine, waiting = shop.submit(), shop.submit()
    lone = Lone(shop, tmp_path, mine)
    lone.turn()
    launcher = FakeLauncher()
    server = shop.dispatcher(launcher, "server")
    server.start()
    server.step()

    assert launcher.started == [(waiting.id, 1)]
    assert shop.store.job(shop.ana, mine.id).owner == lone.name
    lone.dispatcher.report(finished(mine.id, 1))
    lone.turn()
    assert shop.state(mine) is State.DONE
    assert shop.store.job(shop.ana, mine.id).crash_count == 0
    lone.close()


def test_a_server_takes_the_job_of_one_that_died(shop: Workshop, tmp_path: Path) -> None:
    earlier = shop.dispatcher(FakeLauncher(), "earlier")
    earlier.start()
    earlier.shut_down()
    shop.choices[-1].close()
    mine = shop.submit()
    lone = Lone(shop, tmp_path, mine)
    lone.turn()
    lone.close()
    silence(shop)
    launcher = FakeLauncher()
    server = shop.dispatcher(launcher, "server")
    server.start()
    server.step()
    assert launcher.started == [(mine.id, 2)]


def test_another_run_of_the_command_takes_the_job_over_at_once(shop: Workshop, tmp_path: Path) -> None:
    mine = shop.submit()
    dead = Lone(shop, tmp_path, mine)
    dead.turn()
    dead.close()
    silence(shop)
    heir = Lone(shop, tmp_path, mine)
    heir.turn()
    assert heir.launcher.started == [(mine.id, 2)]
    heir.dispatcher.shut_down()
    assert shop.state(mine) is State.DELAYED, "a stop puts the job back in line"
    heir.close()


def test_a_server_is_present_while_it_beats_and_a_lone_dispatcher_is_no_server(shop: Workshop, tmp_path: Path) -> None:
    mine = shop.submit()
    lone = Lone(shop, tmp_path, mine)
    server = shop.dispatcher(FakeLauncher(), "server")
    server.start()
    assert {one.name: one.serves for one in shop.store.present()} == {lone.name: False, "server": True}
    beat = next(one.beat_ms for one in shop.store.present() if one.serves)
    shop.clock.now += 2.1
    server.step()
    assert next(one.beat_ms for one in shop.store.present() if one.serves) >= beat
    server.shut_down()
    assert [one.name for one in shop.store.present()] == [lone.name]
    silence(shop)
    assert shop.store.present() == []
    lone.close()


def test_the_jobs_before_one_are_those_of_higher_bands_and_the_earlier_ones_of_its_own(shop: Workshop) -> None:
    high, low, first = shop.submit(priority=95), shop.submit(priority=10), shop.submit(priority=55)
    mine = shop.submit(priority=50)
    later = shop.submit(priority=59)
    assert [shop.store.ahead(job) for job in (high, first, mine, later, low)] == [0, 1, 2, 3, 4]


def test_a_request_is_found_again_until_its_job_has_ended(shop: Workshop) -> None:
    job = shop.submit()
    ben = shop.store.add_user("ben").actor
    assert shop.store.open_request(shop.ana, job.request) == job
    assert shop.store.open_request(shop.ana, {**job.request, "quality": "best"}) is None
    assert shop.store.open_request(ben, job.request) is None
    shop.intake.pause(shop.ana, job.id)
    found = shop.store.open_request(shop.ana, job.request)
    assert found is not None and found.state is State.PAUSED
    shop.intake.cancel(shop.ana, job.id)
    assert shop.store.open_request(shop.ana, job.request) is None
