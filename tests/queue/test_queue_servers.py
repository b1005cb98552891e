"""Redis as several servers, and a Redis that throws single keys away: no job is lost, none runs twice."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from test_queue_crashes import CHAOS, Yard
from workshop import FakeLauncher, Workshop, finished

from dubbing.jobs import State
from dubbing.queue.base import Cancelled, Extended, Ticket
from dubbing.queue.redis_queue import KEYS, LUA, RedisQueue
from dubbing.queue_errors import QueueDownError
from tests.services import Proxy, RedisServer, free_port, wait_until

pytestmark = pytest.mark.timeout(3_600 if CHAOS else 300)
NewRedis = Callable[..., RedisServer]
SLOT = key_slot(b"dq:{dubbing}:meta")


# --- failover ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(10 if CHAOS else 1))
def test_a_replica_that_lagged_behind_takes_over_and_nothing_is_lost_or_doubled(
    tmp_path: Path, new_redis: NewRedis, round_: int
) -> None:
    master, replica = new_redis(), new_redis()
    door, link = Proxy(master.port), Proxy(master.port)
    with replica.client() as client:
        client.replicaof("127.0.0.1", link.port)
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", what="the replica")  # type: ignore[index]
    yard = Yard(tmp_path, f"redis://127.0.0.1:{door.port}/0", mode="redis")
    try:
        for _ in range(2):
            yard.spawn()
        yard.add(30)
        wait_until(lambda: _done(yard) >= 5, 60, "some ends")
        with replica.client() as client:
            wait_until(lambda: client.exists("dq:{dubbing}:job"), what="the replica's copy")
        assert replica.process is not None
        replica.process.send_signal(signal.SIGSTOP)
        link.hold()
        before = _done(yard)
        yard.add(60)
        wait_until(lambda: _done(yard) >= before + 20, 60, "ends the replica never hears of")
        door.lead_to(replica.port)
        master.kill()
        replica.process.send_signal(signal.SIGCONT)
        with replica.client() as client:
            client.replicaof("NO", "ONE")
            stale = client.hkeys("dq:{dubbing}:job")
        ended = {job.id for job in yard.store.jobs(yard.admin, states=[State.DONE], limit=1_000)}
        assert {name.decode() for name in stale} & ended, "the replica did not lag"
        yard.add(10)
        yard.finish(120)
    finally:
        yard.close()
        door.close()
        link.close()


def _done(yard: Yard) -> int:
    return yard.store.counts().get("done", 0)


# --- keys that vanish -------------------------------------------------------------------------------------------------


def test_keys_that_vanish_one_by_one_under_load_cost_no_job(tmp_path: Path, own_redis: RedisServer) -> None:
    rng = random.Random(20)
    yard = Yard(tmp_path, own_redis.url)
    keys = [f"dq:{{dubbing}}:{name}" for name in (*KEYS, "ready:cpu") if name != "delayed"]
    rng.shuffle(keys)
    try:
        for _ in range(2):
            yard.spawn()
        with own_redis.client() as client:
            for key in keys * (10 if CHAOS else 1):
                yard.keep_busy()
                wait_until(lambda: client.delete(key), 30, f"{key} to be there")  # noqa: B023
        yard.finish(60)
    finally:
        yard.close()


def test_a_redis_that_evicts_under_load_costs_no_job(tmp_path: Path, own_redis: RedisServer) -> None:
    yard = Yard(tmp_path, own_redis.url, mode="redis")
    try:
        yard.spawn()
        yard.keep_busy()
        wait_until(yard.store.running, 30, "a running job")
        with own_redis.client() as client:
            client.config_set("maxmemory-policy", "allkeys-random")
            for _ in range(20 if CHAOS else 2):
                yard.keep_busy()
                before = client.info("stats")["evicted_keys"]  # type: ignore[index]
                client.config_set("maxmemory", 1)
                wait_until(lambda: client.info("stats")["evicted_keys"] > before, 30, "an eviction")  # type: ignore[index]  # noqa: B023
                client.config_set("maxmemory", 0)
        yard.finish(60)
    finally:
        yard.close()


@pytest.mark.parametrize("lost", ["config", "job", "pend", "delayed", "lease", "holder", "run", "age", "ready:cpu"])
def test_a_single_lost_key_is_noticed_and_mended_within_ticks(
    tmp_path: Path, own_redis: RedisServer, lost: str
) -> None:
    shop = Workshop(tmp_path, own_redis.url)
    shop.store.set_setting("user:*:cap", 9)
    launcher = FakeLauncher(slots=2)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    jobs = [shop.submit(priority=10) for _ in range(6)]
    later = shop.submit(run_at_ms=10**14)
    dispatcher.step()
    queue = shop.choices[-1].queue
    whole = queue.stats()
    with own_redis.client() as client:
        assert client.delete("dq:{dubbing}:" + lost) == 1
        assert queue.fsck() != [] or lost == "config"
    for _ in range(3):
        shop.clock.now += 0.2
        dispatcher.step()
    assert queue.fsck() == []
    assert queue.stats() == whole
    with own_redis.client() as client:
        assert client.hget("dq:{dubbing}:config", "user:*:cap") == b"9"
    while len(launcher.started) < len(jobs):
        for job in shop.store.running():
            dispatcher.report(finished(job.id, job.epoch))
        shop.clock.now += 0.2
        dispatcher.step()
    assert [job_id for job_id, _ in launcher.started] == [job.id for job in jobs]
    assert shop.state(later) is State.DELAYED
    shop.close()


# --- a cluster of three masters ---------------------------------------------------------------------------------------


@pytest.fixture
def cluster(new_redis: NewRedis) -> Iterator[list[RedisServer]]:
    """Three masters with a third of the slots each; ours is on the last."""
    servers = []
    for _ in range(3):
        bus = str(free_port())
        servers.append(new_redis(extra=("--cluster-enabled", "yes", "--cluster-port", bus)))
        with servers[0].client() as client:
            client.execute_command("CLUSTER MEET", "127.0.0.1", servers[-1].port, bus)
    thirds = [slot % 3 if slot != SLOT else 2 for slot in range(16_384)]
    for n, server in enumerate(servers):
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTS", *[slot for slot, third in enumerate(thirds) if third == n])
    for server in servers:
        with server.client() as client:
            wait_until(lambda: _knows_all(client), 60, "the cluster")
    yield servers


def _knows_all(client: redis.Redis) -> bool:
    facts: dict[str, str] = client.execute_command("CLUSTER INFO")
    return facts["cluster_state"] == "ok" and facts["cluster_known_nodes"] == "3"


class Watched(RedisQueue):
    """Notes which scripts ran."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.ran: set[str] = set()

    def _run(self, name: str, /, **arguments: Any) -> Any:
        self.ran.add(name)
        return super()._run(name, **arguments)


def test_every_operation_works_from_any_node_of_a_cluster(cluster: list[RedisServer]) -> None:
    for n, server in enumerate(cluster):
        queue = Watched(server.url)
        queue.begin_rebuild()
        queue.configure("user", "*", "cap", 9)
        queue.end_rebuild(0)
        assert queue.is_ready()
        tickets = [Ticket(f"j{k}", "ana", "cpu", 4, k) for k in range(4)]
        queue.enqueue(tickets)
        a, b, c = queue.claim("cpu", 3, owner="d", ttl_ms=60_000).claims
        assert queue.extend([(a.job_id, a.token)], 60_000) == [Extended.OK]
        assert queue.release([(a.job_id, a.token)]) == [True]
        assert queue.requeue(b.job_id, b.token, epoch=1, run_at_ms=0)
        assert queue.cancel(c.job_id) is Cancelled.SIGNALLED
        assert queue.adopt([(Ticket("k", "ben", "gpu", 1, 9), 3, "d")], 60_000) == [True]
        assert (queue.expired(9, 1_000), queue.age(9), queue.tick().promoted) == ([], 0, 0)
        queue.hold_expiry(1_000)
        assert queue.fsck() == []
        assert (queue.stats().pending, queue.stats().leased) == (2, 2)
        assert queue.check_server(queue.now_ms()) != []
        queue.wait(0.01)
        queue.wake()
        assert queue.wait(20)
        assert queue.ran == {path.stem for path in LUA.glob("*.lua")} - {"lib"}, n
        queue.forget_everything()
        assert not queue.is_ready()
        queue.close()


def test_a_slot_that_moves_to_another_master_takes_the_queue_with_it(
    tmp_path: Path, cluster: list[RedisServer]
) -> None:
    shop = Workshop(tmp_path, cluster[0].url, mode="redis")
    launcher = FakeLauncher(slots=1)
    dispatcher = shop.dispatcher(launcher)
    dispatcher.start()
    jobs = [shop.submit() for _ in range(3)]
    dispatcher.step()
    with cluster[2].client() as old, cluster[1].client() as new:
        names = {client: client.execute_command("CLUSTER MYID").decode() for client in (old, new)}
        new.execute_command("CLUSTER SETSLOT", SLOT, "IMPORTING", names[old])
        old.execute_command("CLUSTER SETSLOT", SLOT, "MIGRATING", names[new])
        keys = old.execute_command("CLUSTER GETKEYSINSLOT", SLOT, 100)
        old.execute_command("MIGRATE", "127.0.0.1", cluster[1].port, "", 0, 5_000, "KEYS", *keys)
        shop.clock.now += 0.2
        dispatcher.step()  # neither node answers for the slot now; the queue counts as down
        assert len(launcher.started) == 1
        for client in (new, old):
            client.execute_command("CLUSTER SETSLOT", SLOT, "NODE", names[new])
    for _ in range(3):
        for job in shop.store.running():
            dispatcher.report(finished(job.id, job.epoch))
        shop.clock.now += 0.2
        dispatcher.step()
    wait_until(lambda: _finish_running(shop, dispatcher, launcher) == len(jobs), 30, "all starts")
    assert [job_id for job_id, _ in launcher.started] == [job.id for job in jobs]
    assert shop.choices[-1].queue.fsck() == []
    shop.close()


def _finish_running(shop: Workshop, dispatcher: Any, launcher: FakeLauncher) -> int:
    for job in shop.store.running():
        dispatcher.report(finished(job.id, job.epoch))
    shop.clock.now += 0.2
    dispatcher.step()
    return len(launcher.started)


def test_a_cluster_whose_owner_of_the_slot_died_is_down_and_asked_again(cluster: list[RedisServer]) -> None:
    queue = RedisQueue(cluster[0].url)
    queue.begin_rebuild()
    cluster[2].kill()
    for _ in range(3):
        with pytest.raises(QueueDownError):
            queue.is_ready()
    cluster[2].start()

    def rebuilt() -> bool:
        try:
            queue.begin_rebuild()
            queue.end_rebuild(0)
        except QueueDownError:
            return False
        return queue.is_ready()

    wait_until(rebuilt, 60, "the cluster")
    queue.close()
