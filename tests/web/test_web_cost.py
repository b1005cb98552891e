"""What reads, uploads and streams cost, in statements, hops to threads, writes and messages: so that it stays so."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio.to_thread
import pytest
import uvloop
from sqlalchemy import event
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dubbing.jobs import Actor
from dubbing.store import Store
from dubbing.store.live import Change
from dubbing.web import live, server
from dubbing.web.arrivals import BUFFER, Arrival
from tests.web.site import Client, Site
from tests.web.tus import Tus, checksum

MESSAGE = 256_000
"""Bytes of a message as uvloop reads them from a socket."""
SIZE = 96 << 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("cost") / "Output") as opened:
        yield opened


@pytest.fixture(scope="module")
def ana(site: Site) -> Client:
    return site.client("ana", "user")


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of functions that were sent to a thread."""
    seen: list[str] = []
    plain, by_anyio = asyncio.to_thread, anyio.to_thread.run_sync

    async def counted(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        seen.append(getattr(function, "__name__", "?"))
        return await plain(function, *arguments, **options)

    async def counted_by_anyio(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        seen.append(getattr(function, "__name__", "?"))
        return await by_anyio(function, *arguments, **options)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    monkeypatch.setattr(anyio.to_thread, "run_sync", counted_by_anyio)
    return seen


@pytest.fixture
def statements(site: Site) -> Iterator[list[str]]:
    """What the database was told, by any connection."""
    seen: list[str] = []
    engines = _engines(site.office.store)

    def listen(connection: Any, *_: Any) -> None:
        connection.set_trace_callback(seen.append)

    for engine in engines:
        event.listen(engine, "checkout", listen)
    yield seen
    for engine in engines:
        event.remove(engine, "checkout", listen)


def _engines(store: Store) -> tuple[Any, ...]:
    return store._reader, store._writer


@pytest.mark.parametrize(
    "address", ["/ui/jobs", "/ui/jobs/{job}", "/ui/jobs/{job}/stages", "/api/v1/jobs/{job}", "/api/v1/jobs"]
)
def test_a_read_asks_the_database_twice_and_a_thread_twice(
    site: Site, ana: Client, address: str, hops: list[str], statements: list[str]
) -> None:
    job = site.office.store.submit(site.user("ana").actor, {"source": "/films/talk.mp4"})[0]
    path = address.format(job=job.id)
    assert ana.get(path).status_code == 200
    hops.clear()
    statements.clear()

    assert ana.get(path).status_code == 200

    # who asks, and what: each in a reading of its own
    assert len(hops) == 2, hops
    assert [words.split()[0] for words in statements] == ["BEGIN", "SELECT", "COMMIT"] * 2


def test_the_server_parses_and_waits_by_compiled_code(site: Site) -> None:
    options = server.options(site.app)
    options.load()

    assert options.http_protocol_class is HttpToolsProtocol
    assert options.get_loop_factory() is uvloop.new_event_loop


def test_an_upload_is_gathered_into_few_writes_and_noted_seldom(
    site: Site, hops: list[str], statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(1).randbytes(MESSAGE)
    messages = [data] * (SIZE // MESSAGE)
    size, hashed, pwritev = MESSAGE * len(messages), Counted(), os.pwritev
    written: list[int] = []
    flushed: list[int] = []

    def write(*arguments: Any) -> int:
        written.append(pwritev(*arguments))
        return written[-1]

    monkeypatch.setattr(os, "pwritev", write)
    for name in ("fsync", "fdatasync", "sync_file_range"):
        monkeypatch.setattr(os, name, flushed.append, raising=False)
    monkeypatch.setattr("dubbing.web.arrivals.hashlib.new", lambda *_, **__: hashed)

    tus = Tus(site, site.session("bea", "user"))

    async def run() -> None:
        address = await tus.begin(size)
        statements.clear()
        hops.clear()
        assert (await tus.patch(address, 0, *messages)).offset == size

    asyncio.run(run())

    assert sum(written) == size and min(written[:-1]) >= BUFFER and len(written) <= size // BUFFER + 1
    # beside the writes: who asks, the row, the lock, the end of what a crash left, and the end
    assert len(hops) - len(written) <= 6, hops
    # two readings and a writing in the middle and at the end, three statements each, and the lock's own reading
    assert len(statements) <= 3 * (3 + 2), statements
    assert flushed == [] and hashed.updates == 0


class Counted:
    """A hash that only counts."""

    updates = 0

    def update(self, _: bytes) -> None:
        self.updates += 1


def test_a_checksum_is_counted_by_the_thread_that_writes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(2).randbytes(3 * BUFFER)
    pieces = [data[at : at + MESSAGE] for at in range(0, len(data), MESSAGE)]
    loop_busy: list[bool] = []
    plain = Arrival._write

    def write(arrival: Arrival, parts: list[bytes]) -> None:
        try:
            asyncio.get_running_loop()
            loop_busy.append(True)
        except RuntimeError:
            loop_busy.append(False)
        plain(arrival, parts)

    monkeypatch.setattr(Arrival, "_write", write)

    tus = Tus(site, site.session("cleo", "user"))

    async def run() -> None:
        address = await tus.begin(len(data))
        answer = await tus.patch(address, 0, *pieces, headers={"Upload-Checksum": checksum(data, "sha1")})
        assert answer.offset == len(data)

    asyncio.run(run())
    assert len(loop_busy) >= 3 and not any(loop_busy)


def test_the_next_bytes_are_received_while_the_last_are_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces, more_came = [bytes(BUFFER)] * 3, threading.Event()
    plain = Arrival._write

    def write(arrival: Arrival, parts: list[bytes]) -> None:
        if arrival.offset == arrival._position == 0:
            # the first write goes on only once something else has arrived
            assert more_came.wait(60)
        plain(arrival, parts)

    monkeypatch.setattr(Arrival, "_write", write)

    tus = Tus(site, site.session("dan", "user"))

    async def run() -> None:
        address = await tus.begin(3 * BUFFER)

        async def look() -> None:
            while True:
                arrival = site.office.arrivals.open.get(address.rpartition("/")[2])
                if arrival is not None and arrival._writing is not None and arrival.waiting:
                    more_came.set()
                    return
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        assert (await tus.patch(address, 0, *pieces)).offset == 3 * BUFFER
        await looking

    asyncio.run(run())


def test_a_change_is_written_once_for_all_who_read_the_same(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    store, owner, other = site.office.store, site.user("eve", "user"), site.user("finn", "user")
    job = store.submit(owner.actor, {"source": "/films/talk.mp4"})[0]
    store.share(owner.actor, job.id, True)
    written: list[str] = []
    plain = live.message

    def message(change: Change, actor: Actor) -> str:
        written.append(plain(change, actor))
        return written[-1]

    monkeypatch.setattr(live, "message", message)
    news = live.News(Change(7, store.job(owner.actor, job.id)))
    texts = [news.text(actor) for actor in [owner.actor, *[other.actor] * 50]]

    assert len(written) == 2 and texts == [written[0], *[written[1]] * 50]
    assert '"mine":true' in written[0] and '"mine":false' in written[1]


def test_streams_that_were_opened_together_neither_beat_nor_come_back_together(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    actor = site.user("ana").actor

    async def wait_for(act: Any, timeout: float) -> Any:
        act.close()
        waits.append(timeout)
        raise asyncio.TimeoutError

    async def first_two(stream: live.Stream) -> str:
        texts = live.messages(live.Hub(site.office.store), site.office.store, stream, 2**62)
        first, _ = await anext(texts), await anext(texts)
        await texts.aclose()  # type: ignore[attr-defined]
        return first

    async def run() -> list[str]:
        return [await first_two(live.Stream(str(number), actor)) for number in range(30)]

    monkeypatch.setattr(asyncio, "wait_for", wait_for)
    retries = [int(text.partition(": ")[2]) for text in asyncio.run(run())]

    assert len(set(waits)) > 20 and all(2 / 3 <= wait / live.HEARTBEAT_S <= 1 for wait in waits)
    assert len(set(retries)) > 20 and all(2 / 3 <= retry / live.RETRY_MS <= 4 / 3 for retry in retries)
