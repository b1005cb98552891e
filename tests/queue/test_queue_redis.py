"""The choice between Redis and SQLite, at start and while running, and what Redis must be like."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot
from workshop import SHORT, FakeLauncher, Workshop, finished

from dubbing.dispatcher import Dispatcher
from dubbing.errors import SettingsError
from dubbing.jobs import State
from dubbing.queue.base import Extended, Ticket
from dubbing.queue.choose import choose_queue, decide
from dubbing.queue.fallback_local_queue import LocalQueue
from dubbing.queue.redis_queue import RedisQueue
from dubbing.queue_errors import DispatcherHeldError, QueueDownError, QueueSetupError
from dubbing.store import Fence
from tests.services import RedisServer, free_port, wait_until

NewRedis = Callable[..., RedisServer]
NOWHERE = "redis://127.0.0.1:1/0"


def turn(shop: Workshop, dispatcher: Dispatcher, seconds: float = 0.2) -> None:
    shop.clock.now += seconds
    dispatcher.step()


def turns(shop: Workshop, dispatcher: Dispatcher, seconds: float) -> None:
    for _ in range(round(seconds / 0.2)):
        for job in shop.store.running():
            dispatcher.heartbeat(job.id, job.epoch)
        turn(shop, dispatcher)


# --- the choice at start ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "named", "trouble", "backend", "says"),
    [
        ("fallback", True, None, "local", "QUEUE_MODE is fallback"),
        ("auto", False, None, "local", "REDIS_URL is not set"),
        ("auto", True, None, "redis", "it answers"),
        ("auto", True, QueueDownError(address="r:1", detail="refused"), "local", "r:1 does not answer: refused"),
        ("redis", True, None, "redis", "QUEUE_MODE is redis"),
        ("redis", True, QueueDownError(address="r:1", detail="refused"), "redis", "no job starts until it answers"),
    ],
)
def test_the_queue_is_chosen_for_a_reason_a_user_can_read(
    mode: str, named: bool, trouble: QueueDownError | None, backend: str, says: str
) -> None:
    chosen, reason = decide(mode, named, trouble)  # type: ignore[arg-type]
    assert chosen == backend
    assert says in reason
    assert reason.endswith(".")


def test_mode_redis_without_an_address_is_refused() -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        decide("redis", False, None)


def test_a_redis_that_would_throw_jobs_away_is_refused_in_mode_redis_and_passed_over_in_auto(
    tmp_path: Path, new_redis: NewRedis
) -> None:
    server = new_redis(extra=("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"))
    shop = Workshop(tmp_path, server.url)
    assert shop.choices[0].queue.name == "local"
    assert shop.choices[0].redis is None
    assert "allkeys-lru" in shop.choices[0].reason
    with pytest.raises(QueueSetupError, match="allkeys-lru") as caught:
        choose_queue(shop.settings.model_copy(update={"queue_mode": "redis"}), now_ms=0)
    assert "noeviction" in caught.value.advice
    shop.close()


def test_a_redis_without_a_log_or_with_another_clock_is_warned_about(own_redis: RedisServer) -> None:
    queue = RedisQueue(own_redis.url)
    here = queue.now_ms()
    assert [w.split()[1] for w in queue.check_server(here)] == ["keeps"]
    assert any("differ by 30 s" in w for w in queue.check_server(here - 30_000))
    queue.close()


def test_the_address_in_errors_has_no_password() -> None:
    with pytest.raises(QueueDownError) as caught:
        RedisQueue("redis://:hunter2@127.0.0.1:1/0").ping()
    assert "hunter2" not in caught.value.message


def test_the_lock_names_its_holder_and_is_free_after_it(tmp_path: Path) -> None:
    first, second = LocalQueue(tmp_path / "q.sqlite3"), LocalQueue(tmp_path / "q.sqlite3")
    first.lock.acquire("alpha")
    first.lock.acquire("alpha")
    with pytest.raises(DispatcherHeldError, match=r"alpha \(pid \d+\)"):
        second.lock.acquire("beta")
    first.close()
    second.lock.acquire("beta")
    second.close()


def test_where_there_are_no_named_pipes_the_queue_looks_five_times_a_second(tmp_path: Path) -> None:
    (tmp_path / "q.sqlite3.wake").mkdir()
    queue = LocalQueue(tmp_path / "q.sqlite3")
    queue.wake()
    started = time.monotonic()
    assert queue.wait(30) is False
    assert time.monotonic() - started < 5
    queue.close()


def test_all_keys_of_an_installation_are_in_one_slot_of_a_cluster() -> None:
    queue = RedisQueue(NOWHERE, namespace="x")
    assert len({key_slot(key) for key in queue._keys}) == 1
    assert len(set(queue._keys)) == len(queue._keys)
    queue.close()


# --- Redis misbehaves -------------------------------------------------------------------------------------------------


def test_scripts_survive_a_redis_that_forgot_them(own_redis: RedisServer) -> None:
    queue = RedisQueue(own_redis.url)
    queue.begin_rebuild()
    queue.end_rebuild(0)
    with own_redis.client() as client:
        client.script_flush()
    queue.enqueue([Ticket("j1", "ana", "cpu", 1, 1)])
    assert [c.job_id for c in queue.claim("cpu", 1, owner="d", ttl_ms=1_000).claims] == ["j1"]
    queue.close()


def test_the_scripts_keep_to_the_rules_of_a_cluster(tmp_path: Path, new_redis: NewRedis) -> None:
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    server = new_redis(extra=cluster)
    with server.client() as client:
        client.execute_command("CLUSTER ADDSLOTS", *range(16_384))
        wait_until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", what="the cluster")
    shop = Workshop(tmp_path, server.url, mode="redis")
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    jobs = [shop.submit() for _ in range(3)]
    turn(shop, dispatcher)
    shop.intake.cancel(shop.ana, jobs[2].id)
    for job in jobs[:2]:
        dispatcher.report(finished(job.id, 1))
    turns(shop, dispatcher, 1)
    assert [shop.state(job) for job in jobs] == [State.DONE, State.DONE, State.CANCELLED]
    assert shop.choices[0].queue.fsck() == []
    shop.close()


def test_a_restarted_or_emptied_redis_counts_as_lost_until_it_is_rebuilt(tmp_path: Path, new_redis: NewRedis) -> None:
    server = new_redis(aof=True)
    queue = RedisQueue(server.url)
    queue.begin_rebuild()
    assert not queue.is_ready()
    queue.end_rebuild(0)
    assert queue.is_ready()
    server.kill()
    with pytest.raises(QueueDownError):
        queue.is_ready()
    server.start()
    assert not queue.is_ready()
    queue.end_rebuild(0)
    assert queue.is_ready()
    with server.client() as client:
        client.flushall()
    assert not queue.is_ready()
    assert queue.claim("cpu", 1, owner="d", ttl_ms=1_000).state == "rebuilding"
    queue.close()


def test_a_full_redis_costs_no_job(tmp_path: Path, own_redis: RedisServer) -> None:
    shop = Workshop(tmp_path, own_redis.url, mode="redis")
    launcher = FakeLauncher(slots=1)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    turn(shop, dispatcher)
    with own_redis.client() as client:
        client.config_set("maxmemory", 1)
        jobs = [shop.submit() for _ in range(3)]
        turn(shop, dispatcher)
        assert launcher.started == []
        client.config_set("maxmemory", 0)
    turn(shop, dispatcher)
    assert launcher.started == [(jobs[0].id, 1)]
    assert shop.store.outbox(9) == []
    shop.close()


class Skewed:
    """Redis' clock, `off_ms` wrong, and moved by the test's hand."""

    def __init__(self, shop: Workshop, queue: RedisQueue) -> None:
        self.off_ms, self._start, self._shop = 0, queue.now_ms(), shop
        queue._clock = self

    def __call__(self) -> int:
        return self._start + self.off_ms + round((self._shop.clock.now - 1_000) * 1_000)


def test_a_jump_of_redis_clock_takes_no_job_from_its_runner(tmp_path: Path, own_redis: RedisServer) -> None:
    shop = Workshop(tmp_path, own_redis.url)
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    queue = shop.choices[-1].redis
    assert queue is not None
    clock = Skewed(shop, queue)
    dispatcher.start()
    job = shop.submit()
    turn(shop, dispatcher)
    assert launcher.started == [(job.id, 1)]
    clock.off_ms = 3_600_000
    turns(shop, dispatcher, 3 * SHORT.lease)
    clock.off_ms = 0
    turns(shop, dispatcher, SHORT.lease)
    assert launcher.started == [(job.id, 1)]
    assert shop.state(job) is State.RUNNING
    assert queue.extend([(job.id, 1)], 1_000) == [Extended.OK]
    shop.close()


@pytest.mark.parametrize("off_ms", [-30_000, 30_000])
def test_clocks_that_differ_by_half_a_minute_start_no_job_twice_and_take_back_what_died(
    tmp_path: Path, own_redis: RedisServer, off_ms: int
) -> None:
    shop = Workshop(tmp_path, own_redis.url)
    launcher = FakeLauncher()
    dispatcher = shop.dispatcher(launcher)
    queue = shop.choices[-1].redis
    assert queue is not None
    Skewed(shop, queue).off_ms = off_ms
    dispatcher.start()
    job = shop.submit()
    turns(shop, dispatcher, 3 * SHORT.lease)
    assert launcher.started == [(job.id, 1)]
    launcher.gone.append((job.id, 1, "signal 9"))
    turns(shop, dispatcher, 0.4)
    assert launcher.started == [(job.id, 1), (job.id, 2)]
    assert not shop.store.finish(Fence(job.id, 1, shop.store.in_charge().backend_epoch), {})
    dispatcher.report(finished(job.id, 2))
    turns(shop, dispatcher, 0.4)
    assert shop.state(job) is State.DONE
    shop.close()


# --- Redis goes and comes back ----------------------------------------------------------------------------------------


def test_mode_redis_starts_nothing_while_redis_is_down_but_running_jobs_end_and_new_ones_are_accepted(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    shop = Workshop(tmp_path, own_redis.url, mode="redis")
    launcher = FakeLauncher(slots=1)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    running = shop.submit()
    turn(shop, dispatcher)
    own_redis.kill()
    waiting = shop.submit()
    turns(shop, dispatcher, 3 * SHORT.lease)
    assert shop.state(running) is State.RUNNING
    dispatcher.report(finished(running.id, 1))
    turns(shop, dispatcher, 2 * SHORT.switch)
    assert shop.state(running) is State.DONE
    assert launcher.started == [(running.id, 1)]
    assert dispatcher.queue_name == "redis"
    own_redis.start()
    wait_until(lambda: turn(shop, dispatcher) or len(launcher.started) == 2, what="the next start")
    assert launcher.started[1] == (waiting.id, 1)
    shop.close()


def test_a_dispatcher_that_alone_lost_redis_starts_nothing_and_the_other_goes_on(
    tmp_path: Path, new_redis: NewRedis
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="dub-redis-", dir="/tmp"))  # the path of a socket must be short
    door = folder / "door"
    server = new_redis(extra=("--unixsocket", str(door)))
    shop = Workshop(tmp_path, server.url, mode="redis")
    shop.store.set_setting("user:*:cap", 9)
    cut_off = shop.settings.model_copy(update={"redis_url": f"unix://{door}"})
    shop.choices.append(choose_queue(cut_off, now_ms=shop.store.clock_ms()))
    launchers = [FakeLauncher(slots=4), FakeLauncher(slots=4)]
    lonely = Dispatcher(shop.store, shop.choices[-1], launchers[0], name="lonely", times=SHORT, monotonic=shop.clock)
    lonely.start()
    mine = shop.submit()
    turn(shop, lonely)
    healthy = shop.dispatcher(launchers[1], "healthy")
    healthy.start()
    door.rename(folder / "shut")
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    for _ in range(5):
        shop.submit()
        turn(shop, lonely)
        turn(shop, healthy)
        lonely.heartbeat(mine.id, 1)
        for job_id, epoch in launchers[1].started:
            healthy.report(finished(job_id, epoch))
    assert launchers[0].started == [(mine.id, 1)]
    assert len(launchers[1].started) == 5
    lonely.report(finished(mine.id, 1))
    turn(shop, lonely)
    assert shop.state(mine) is State.DONE

    (folder / "shut").rename(door)
    wait_until(lambda: turn(shop, lonely) or shop.choices[0].queue.stats().leased == 0, 20, "the last release")
    shop.close()
    shutil.rmtree(folder)


def test_auto_mode_hands_the_jobs_to_sqlite_and_back(tmp_path: Path, own_redis: RedisServer) -> None:
    shop = Workshop(tmp_path, own_redis.url)
    launcher = FakeLauncher(slots=1)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    running = shop.submit()
    turn(shop, dispatcher)
    own_redis.kill()
    waiting = shop.submit()
    turns(shop, dispatcher, SHORT.switch / 2)
    assert dispatcher.queue_name == "redis"
    turns(shop, dispatcher, SHORT.switch + 0.4)
    assert dispatcher.queue_name == "local"
    charge = shop.store.in_charge()
    assert (charge.backend, charge.backend_epoch, charge.holder) == ("local", 1, "d1")
    assert launcher.started == [(running.id, 1)]
    dispatcher.report(finished(running.id, 1))
    turns(shop, dispatcher, 0.4)
    assert [shop.state(running), shop.state(waiting)] == [State.DONE, State.RUNNING]
    late = shop.submit()

    own_redis.start()
    turns(shop, dispatcher, SHORT.switch / 2)
    assert dispatcher.queue_name == "local"
    turns(shop, dispatcher, SHORT.switch + 0.4)
    assert dispatcher.queue_name == "redis"
    assert shop.store.in_charge().backend_epoch == 2
    dispatcher.report(finished(waiting.id, 1))
    turns(shop, dispatcher, 0.4)
    assert shop.state(late) is State.RUNNING
    shop.choices[-1].local.lock.acquire("free again")  # type: ignore[union-attr]
    shop.close()


def test_only_one_of_two_dispatchers_takes_over_and_the_other_starts_nothing(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    shop = Workshop(tmp_path, own_redis.url)
    shop.store.set_setting("user:*:cap", 50)
    launchers = [FakeLauncher(slots=9), FakeLauncher(slots=9)]
    dispatchers = [shop.dispatcher(launcher, f"d{n}") for n, launcher in enumerate(launchers)]
    for dispatcher in dispatchers:
        dispatcher.start()
        turn(shop, dispatcher)
    mine = shop.submit()
    turn(shop, dispatchers[1])
    own_redis.kill()
    for _ in range(10):
        for dispatcher in dispatchers:
            dispatcher.heartbeat(mine.id, 1)
            turn(shop, dispatcher)
    assert [d.queue_name for d in dispatchers] == ["local", "redis"]
    jobs = [shop.submit() for _ in range(4)]
    stale = Fence(jobs[0].id, 1, 0)
    assert shop.store.take(stale, owner="d1", ttl_ms=1_000) is None
    for dispatcher in dispatchers:
        turn(shop, dispatcher)
        turn(shop, dispatcher)
    assert [len(launcher.started) for launcher in launchers] == [4, 1]
    dispatchers[1].report(finished(mine.id, 1))
    turn(shop, dispatchers[1])
    assert shop.state(mine) is State.DONE

    own_redis.start()
    for _ in range(10):
        for dispatcher in dispatchers:
            turn(shop, dispatcher)
    assert [d.queue_name for d in dispatchers] == ["redis", "redis"]
    shop.close()


def test_a_flapping_redis_never_leaves_two_queues_in_charge(tmp_path: Path, own_redis: RedisServer) -> None:
    shop = Workshop(tmp_path, own_redis.url)
    launcher = FakeLauncher(slots=2)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    jobs = [shop.submit() for _ in range(12)]
    seen = {shop.store.in_charge().backend_epoch: "redis"}
    for n in range(8):
        own_redis.kill() if n % 2 == 0 else own_redis.start()
        turns(shop, dispatcher, SHORT.switch + 0.8)
        charge = shop.store.in_charge()
        assert seen.setdefault(charge.backend_epoch, charge.backend) == charge.backend
        assert len(shop.store.running()) <= 2
        for job in shop.store.running():
            dispatcher.report(finished(job.id, job.epoch))
    turns(shop, dispatcher, 1)
    for job in shop.store.running():
        dispatcher.report(finished(job.id, job.epoch))
    turns(shop, dispatcher, 1)
    assert len(seen) == 9
    ended = sum(shop.state(job) is State.DONE for job in jobs)
    assert ended >= 8
    assert len({job_id for job_id, _ in launcher.started}) == len(launcher.started)
    shop.close()


def test_redis_holds_a_job_in_540_bytes(own_redis: RedisServer) -> None:
    queue = RedisQueue(own_redis.url)
    with own_redis.client() as client:
        before = _memory(client)
        tickets = [Ticket(f"{n:032x}", f"{n % 1000:032x}", "gpu", n % 10, n) for n in range(20_000)]
        for start in range(0, len(tickets), 1_000):
            queue.enqueue(tickets[start : start + 1_000])
        each = (_memory(client) - before) / len(tickets)
    print(f"\n{each:.0f} bytes a job")
    assert each <= 540
    queue.close()


def _memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])  # type: ignore[index]
