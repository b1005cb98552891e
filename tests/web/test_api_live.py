"""Live progress over a real socket: what streams are sent, when they end, and what a slow reader costs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dubbing.jobs import Job
from dubbing.store import Fence
from dubbing.store.access import digest
from dubbing.web import live
from dubbing.web.identity import COOKIE
from tests.web.server import Running, served
from tests.web.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of its own."""
    with Site(tmp_path_factory.mktemp("live") / "Output") as opened:
        yield opened


@pytest.fixture(scope="module")
def running(site: Site) -> Iterator[Running]:
    """The site on a port."""
    with served(site) as server:
        yield server


class Reader:
    """A program that reads a stream; everything it waits for has 30 s."""

    def __init__(self, answer: HTTPResponse) -> None:
        self.answer = answer

    def event(self) -> dict[str, str]:
        """The next event; comments and `retry` are passed over."""
        facts: dict[str, str] = {}
        while True:
            line = self.answer.readline().decode().rstrip("\n")
            if not line and ("data" in facts or self.answer.isclosed()):
                return facts
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                facts[name] = value

    def until(self, job: Job, state: str) -> dict[str, str]:
        """The event that shows a job in a state."""
        while True:
            event = self.event()
            data = json.loads(event["data"]) if event.get("event") == "job" else {}
            if data.get("id") == job.id and data.get("state") == state:
                return event


@contextmanager
def stream(running: Running, secret: str, **headers: str) -> Iterator[Reader]:
    """An open stream of the session of this secret."""
    connection = HTTPConnection(urlsplit(running.address).netloc, timeout=30)
    try:
        cookie = {"Cookie": f"{COOKIE}={secret}"}
        connection.request(
            "GET", "/api/v1/events", headers=cookie | {k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
        yield Reader(answer)
    finally:
        connection.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def submitted(site: Site, name: str) -> Job:
    """A job of somebody."""
    user = site.user(name)
    return site.office.store.submit(user.actor, {"source": "/films/talk.mp4", "targets": ["es"]}, targets=["es"])[0]


def started(site: Site, job: Job) -> Fence:
    """Run a job, or seem to."""
    fence = Fence(job.id, job.epoch + 1, site.office.store.in_charge().backend_epoch)
    assert site.office.store.take(fence, owner="test", ttl_ms=60_000)
    return fence


def test_a_stream_begins_with_the_jobs_under_way_and_tells_each_change_whole(site: Site, running: Running) -> None:
    job = submitted(site, "ana")
    with stream(running, site.session("ana", "user")) as reader:
        first = json.loads(reader.until(job, "queued")["data"])
        fence = started(site, job)
        reader.until(job, "running")
        stage = {"stage": "speak", "target": "es", "done": 1, "total": 4, "eta_s": None, "note": ""}
        site.office.store.report_progress(fence, {"stages": [stage]})
        while not (seen := json.loads(reader.until(job, "running")["data"]))["progress"]:
            pass
        site.office.store.finish(fence, {"report": "/x/report.json", "files": {}, "warnings": ["look"]}, warned=True)
        last = json.loads(reader.until(job, "done_with_warnings")["data"])

    assert (first["mine"], first["title"], seen["progress"]) == (True, "talk.mp4", [stage])
    assert (last["warnings"], last["progress"]) == (["look"], [stage])
    assert site.client("ana").get(f"/api/v1/jobs/{job.id}").json() == last


def test_what_was_missed_comes_first_when_a_stream_is_taken_up_again(site: Site, running: Running) -> None:
    job, secret = submitted(site, "bea"), site.session("bea", "user")
    with stream(running, secret) as reader:
        seen = reader.until(job, "queued")["id"]
    site.office.store.cancel(site.user("bea").actor, job.id)

    with stream(running, secret, Last_Event_ID=seen) as reader:
        event = reader.event()

    assert json.loads(event["data"])["state"] == "cancelled" and int(event["id"]) > int(seen)


@pytest.mark.parametrize("last", ["x", "-1", "99999999999999999999999999", "²"])
def test_a_last_event_id_that_is_none_does_no_harm(site: Site, running: Running, last: str) -> None:
    job = submitted(site, "ida")
    with stream(running, site.session("ida", "user"), Last_Event_ID=last.encode().decode("latin-1")) as reader:
        site.office.store.cancel(site.user("ida").actor, job.id)
        reader.until(job, "cancelled")


def test_users_hear_of_their_own_and_of_shared_jobs_alone(site: Site, running: Running) -> None:
    with (
        stream(running, site.session("cleo", "user")) as cleo,
        stream(running, site.session("root", "admin")) as root,
    ):
        hidden, shared, own = (submitted(site, name) for name in ("dan", "dan", "cleo"))
        site.office.store.share(site.user("dan").actor, shared.id, True)
        for job in (hidden, shared, own):
            site.office.store.cancel(site.user("root").actor, job.id)
        heard = set()
        while own.id not in heard:
            event = cleo.event()
            if json.loads(event["data"])["state"] == "cancelled":
                heard.add(json.loads(event["data"])["id"])
        root.until(hidden, "cancelled")

    assert heard == {shared.id, own.id}


def test_a_new_stream_of_a_session_ends_the_old_one(site: Site, running: Running) -> None:
    secret = site.session("eve", "user")
    with stream(running, secret) as old, stream(running, secret) as new:
        event = old.event()
        assert 2000 <= int(event.pop("retry")) <= 4000 and event == {"event": "end", "data": "replaced"}
        assert old.answer.read() == b""
        job = submitted(site, "eve")
        new.until(job, "queued")


def test_a_stream_ends_with_its_session(site: Site, running: Running) -> None:
    secret = site.session("finn", "user")
    with stream(running, secret) as reader:
        site.office.store.close_session(secret)
        assert reader.event()["data"] == "closed"
        job = submitted(site, "finn")
        assert job.id.encode() not in reader.answer.read()


def test_streams_cost_no_threads_and_are_forgotten_when_their_reader_goes(site: Site, running: Running) -> None:
    hub: live.Hub = running.app.state.hub  # type: ignore[attr-defined]
    until(lambda: hub.streams == 0)
    submitted(site, "gus")
    opened = [stream(running, site.session("gus", "user")) for _ in range(30)]
    before = threading.active_count()
    readers = [one.__enter__() for one in opened]
    assert hub.streams == 30
    job = submitted(site, "gus")
    for reader in readers:
        reader.until(job, "queued")
    # the pool of the store's look-ups may have grown to its own bound, which does not depend on the streams
    assert threading.active_count() - before < 15
    for one in opened:
        one.__exit__(None, None, None)
    until(lambda: hub.streams == 0)


def test_one_poller_looks_for_all_streams_and_rests_without_any(site: Site) -> None:
    class Counted:
        """The store, with its looks counted."""

        looks = 0

        def __getattr__(self, name: str) -> object:
            return getattr(site.office.store, name)

        def changes(self, **facts: object) -> object:
            self.looks += 1
            return site.office.store.changes(**facts)  # type: ignore[arg-type]

    store, ana = Counted(), site.user("ana")
    secrets = [site.session("ana", "user") for _ in range(50)]

    async def watch() -> float:
        hub, begun = live.Hub(store), time.monotonic()  # type: ignore[arg-type]
        streams = [await hub.join(digest(secret), ana.actor) for secret in secrets]
        site.office.store.submit(ana.actor, {"source": "/films/talk.mp4"})
        for stream in streams:
            await asyncio.wait_for(stream.wake.wait(), 30)
        while store.looks < 4:
            await asyncio.sleep(0.01)
        for stream in streams:
            hub.leave(stream)
        took = time.monotonic() - begun
        await asyncio.wait_for(hub._poller, 30)  # type: ignore[arg-type]
        return took

    took = asyncio.run(watch())
    assert 4 <= store.looks <= took / live.LOOK_S + 2


def test_a_reader_who_lags_too_far_is_let_go(site: Site) -> None:
    store, actor = site.office.store, site.user("hal").actor
    last = store.last_event()
    for _ in range(live.MOST_WAITING + 1):
        store.submit(actor, {"source": "/films/talk.mp4"})
    changes = store.changes(after=last)

    async def lag() -> list[str]:
        reader = live.Stream("door", actor)
        for change in changes:
            reader.put(live.News(change))
        hub = live.Hub(store)
        return [text async for text in live.messages(hub, store, reader, 2**62)]

    assert len(changes) == live.MOST_WAITING + 1
    assert asyncio.run(lag())[-1] == "event: end\ndata: slow\n\n"


def test_many_changes_of_one_job_wait_as_its_latest_alone(site: Site) -> None:
    job = submitted(site, "jo")
    reader = live.Stream("door", site.user("jo").actor)
    for number in range(10 * live.MOST_WAITING):
        reader.put(live.News(live.Change(number, job)))

    assert reader.ended is None
    assert [news.change.event_id for news in reader.take()] == [10 * live.MOST_WAITING - 1]


def test_a_quiet_stream_shows_that_it_is_alive(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.01)
    actor = site.user("kai").actor

    async def quiet() -> list[str]:
        reader, found = live.Stream("door", actor), []
        async for text in live.messages(live.Hub(site.office.store), site.office.store, reader, 2**62):
            found.append(text)
            if len(found) == 3:
                reader.end("stopped")
        return found

    assert asyncio.run(quiet())[1:3] == [": still here\n\n"] * 2


def test_the_server_stops_at_once_with_streams_open(tmp_path: Path) -> None:
    with Site(tmp_path / "Output") as site, served(site) as running, stream(running, site.session()) as reader:
        running.should_exit = True
        assert reader.event()["data"] == "stopped"


def test_a_part_of_the_page_is_fetched_by_those_who_may_see_the_job(site: Site) -> None:
    job = submitted(site, "lea")
    owner, other = site.client("lea", "user"), site.client("uwe", "user")

    assert "Waiting" in owner.get(f"/ui/jobs/{job.id}/stages").text
    assert f'data-job="{job.id}"' in owner.get(f"/ui/jobs/{job.id}/row").text
    assert other.get(f"/ui/jobs/{job.id}/stages").status_code == other.get(f"/ui/jobs/{job.id}/row").status_code == 404
