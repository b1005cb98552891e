"""Webhooks: who is told of what, how it is signed and sent again, and which addresses are refused."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dubbing import config
from dubbing.api_errors import WebhookAddressError
from dubbing.jobs import Job
from dubbing.store import Fence, Store, User, open_store
from dubbing.store.webhooks import KEPT, MOST_WEBHOOKS, WAITS_S
from dubbing.web import courier, outbound
from tests.conftest import ROOT
from tests.web.site import Site


@dataclass
class Ear:
    """A server that is told things."""

    address: str = ""
    status: int = 200
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def listening(status: int = 200) -> Iterator[Ear]:
    """A server on this machine, while the block lasts."""
    ear = Ear(status=status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            ear.heard.append(({**self.headers, "path": self.path}, body))
            self.send_response(ear.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        ear.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield ear
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Clock:
    """A clock that is set."""

    now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """A database of its own whose clock the test sets."""
    settings = config.load({"DUBBING_STATE_DIR": str(tmp_path)}, env_file=None)
    opened = open_store(settings, clock)
    yield opened
    opened.close()


def cancelled(store: Store, user: User) -> Job:
    job, _ = store.submit(user.actor, {"source": "/films/talk.mp4", "targets": ["es"]}, targets=["es"])
    return store.cancel(user.actor, job.id)


def carried(store: Store) -> int:
    return asyncio.run(courier.round_(store))


# --- what is told -----------------------------------------------------------------------------------------------------


def test_each_end_of_a_job_is_told_once_and_signed(store: Store) -> None:
    root = store.add_user("root", "admin")
    done, failed, stopped = (
        store.submit(root.actor, {"source": f"/films/{n}.mp4", "targets": ["es"]}, targets=["es"])[0] for n in range(3)
    )
    with listening() as ear:
        hook = store.add_webhook(root.id, f"{ear.address}/in?from=dub", "whsec_x")
        epoch = store.in_charge().backend_epoch
        for job in (done, failed):
            assert store.take(Fence(job.id, 1, epoch), owner="test", ttl_ms=60_000)
        store.finish(
            Fence(done.id, 1, epoch), {"report": "/secret/r.json", "files": {}, "warnings": ["w"]}, warned=True
        )
        error = {"code": "engine_failed", "message": "no", "hint": "", "retryable": False}
        store.fail(Fence(failed.id, 1, epoch), error)
        store.cancel(root.actor, stopped.id)

        assert (carried(store), carried(store)) == (3, 0)

    told = {json.loads(body)["job"]["id"]: (headers, body) for headers, body in ear.heard}
    assert len(ear.heard) == 3 and set(told) == {done.id, failed.id, stopped.id}
    facts = {
        name: json.loads(told[job.id][1]) for name, job in (("done", done), ("failed", failed), ("stopped", stopped))
    }
    assert [facts[name]["type"] for name in facts] == ["job.done", "job.failed", "job.cancelled"]
    assert facts["done"]["job"] == {
        "id": done.id, "state": "done_with_warnings", "targets": ["es"], "warnings": ["w"], "error": None,
    }  # fmt: skip
    assert facts["failed"]["job"]["error"] == error and facts["stopped"]["job"]["error"] is None
    for headers, body in ear.heard:
        assert headers["path"] == "/in?from=dub" and headers["Content-Type"] == "application/json"
        assert b"secret" not in body
        found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers["X-Dubbing-Signature"])
        assert found
        assert found[2] == hmac.new(b"whsec_x", found[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert {(sent.webhook_id, sent.attempt, sent.due_ms, sent.status) for sent in store.deliveries(root.id)} == {
        (hook.id, 1, 0, 200)
    }


def test_nobody_hears_of_the_jobs_of_others(store: Store) -> None:
    root, ana = store.add_user("root", "admin"), store.add_user("ana")
    with listening() as ear:
        store.add_webhook(root.id, ear.address, "s")
        cancelled(store, ana)
        assert carried(store) == 0 and ear.heard == []


def test_the_check_of_the_documents_tells_true_from_false() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    (code,) = (block.partition("```")[0] for block in text.split("```python\n")[1:] if "def genuine" in block)
    import time  # noqa: PLC0415 - the example names it

    space: dict[str, object] = {"hmac": hmac, "hashlib": hashlib, "time": time}
    exec(code, space)
    genuine, now = space["genuine"], int(time.time())

    assert genuine("key", courier.signature("key", '{"a":1}', now), b'{"a":1}')  # type: ignore[operator]
    assert not genuine("key", courier.signature("key", '{"a":1}', now), b'{"a":2}')  # type: ignore[operator]
    assert not genuine("other", courier.signature("key", '{"a":1}', now), b'{"a":1}')  # type: ignore[operator]
    assert not genuine("key", courier.signature("key", '{"a":1}', now - 900), b'{"a":1}')  # type: ignore[operator]


# --- again ------------------------------------------------------------------------------------------------------------


def test_what_is_not_taken_is_sent_again_with_longer_and_longer_waits_and_then_given_up(
    store: Store, clock: Clock
) -> None:
    root = store.add_user("root", "admin")
    with listening(status=503) as ear:
        store.add_webhook(root.id, ear.address, "s")
        cancelled(store, root)
        assert carried(store) == 1
        for wait in WAITS_S:
            clock.now += wait * 1000 - 1
            assert carried(store) == 0
            clock.now += 1
            assert carried(store) == 1
        (sent,) = store.deliveries(root.id)
        clock.now += 10 * WAITS_S[-1] * 1000

        assert carried(store) == 0
    assert (sent.attempt, sent.status, sent.due_ms) == (len(WAITS_S) + 1, 503, 0)
    assert len({body for _, body in ear.heard}) == 1 and len(ear.heard) == len(WAITS_S) + 1


def test_a_server_that_is_down_or_speaks_no_http_is_asked_again(store: Store, clock: Clock) -> None:
    root = store.add_user("root", "admin")
    with listening() as ear:
        address = ear.address
    store.add_webhook(root.id, address, "s")
    cancelled(store, root)

    assert carried(store) == 1
    (sent,) = store.deliveries(root.id)
    assert (sent.attempt, sent.status, sent.due_ms) == (1, 0, clock.now + WAITS_S[0] * 1000)


def test_a_redirect_is_not_followed(store: Store) -> None:
    root = store.add_user("root", "admin")
    with listening(status=302) as ear:
        store.add_webhook(root.id, ear.address, "s")
        cancelled(store, root)
        carried(store)

    assert [headers["path"] for headers, _ in ear.heard] == ["/"]
    assert store.deliveries(root.id)[0].status == 302


def test_deliveries_outlive_a_restart_and_the_death_of_the_sender(tmp_path: Path, clock: Clock) -> None:
    settings = config.load({"DUBBING_STATE_DIR": str(tmp_path)}, env_file=None)
    with listening() as ear:
        first = open_store(settings, clock)
        root = first.add_user("root", "admin")
        first.add_webhook(root.id, ear.address, "s")
        cancelled(first, root)
        assert len(first.take_deliveries(8)) == 1  # and then it dies
        first.close()
        second = open_store(settings, clock)
        assert carried(second) == 0
        clock.now += WAITS_S[0] * 1000
        assert carried(second) == 1
        second.close()
    assert len(ear.heard) == 1


def test_two_senders_do_not_send_the_same_message(store: Store) -> None:
    root = store.add_user("root", "admin")
    store.add_webhook(root.id, "https://example.org", "s")
    cancelled(store, root)

    assert (len(store.take_deliveries(8)), len(store.take_deliveries(8))) == (1, 0)


def test_of_what_was_sent_only_the_latest_is_kept(store: Store) -> None:
    root = store.add_user("root", "admin")
    with listening() as ear:
        store.add_webhook(root.id, ear.address, "s")
        for _ in range(KEPT + 5):
            cancelled(store, root)
        while carried(store):
            pass

    assert len(ear.heard) == KEPT + 5 and len(store.deliveries(root.id)) == KEPT


def test_a_disabled_user_and_a_deleted_webhook_are_told_nothing(store: Store) -> None:
    root = store.add_user("root", "admin")
    with listening() as ear:
        hook = store.add_webhook(root.id, ear.address, "s")
        cancelled(store, root)
        store.change_user(root.id, role="admin", password_hash=None, disabled=True)
        assert carried(store) == 0
        store.change_user(root.id, role="admin", password_hash=None, disabled=False)
        store.end_webhook(root.id, hook.id)
        assert carried(store) == 0
    assert ear.heard == [] and store.deliveries(root.id) == []


# --- where to ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fc00::1", "fd7a:115c:a1e0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_of_private_networks_are_not_public(address: str) -> None:
    assert not outbound.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_of_the_internet_are(address: str) -> None:
    assert outbound.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/", "http://localhost/", "https://[::1]/", "http://10.0.0.1", "http://[::ffff:127.0.0.1]/",
        "ftp://example.org/", "file:///etc/passwd", "https://", "https://user:word@example.org/", "https://example.org:99999/",
        "https://example.org/\r\nX: y", "https://exämple.org/", "https://example.org/a b", "//example.org", "http://[::1",
    ],
)  # fmt: skip
def test_a_user_cannot_name_such_an_address(url: str) -> None:
    with pytest.raises(WebhookAddressError):
        outbound.check_url(url, private=False)


def test_a_name_that_leads_into_this_machine_is_refused_where_it_is_connected_to(store: Store) -> None:
    with listening() as ear:
        ana = store.add_user("ana")
        # `localhost.` and numbers that resolvers take for 127.0.0.1 are seen only when the name has been looked up
        for host in ("localhost.", "127.1", "0x7f.1", "2130706433"):
            port = ear.address.rpartition(":")[2]
            store.add_webhook(ana.id, f"http://{host}:{port}/", "s")
        cancelled(store, ana)

        assert carried(store) == 4
    assert ear.heard == []
    assert {sent.status for sent in store.deliveries(ana.id)} == {0}


def test_who_was_an_administrator_loses_the_private_networks_with_the_role(store: Store) -> None:
    root = store.add_user("root", "admin")
    with listening() as ear:
        store.add_webhook(root.id, ear.address, "s")
        store.change_user(root.id, role="user", password_hash=None, disabled=False)
        cancelled(store, root)
        carried(store)
    assert ear.heard == []


def test_a_server_that_does_not_answer_is_given_up_in_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "DEADLINE_S", 0.2)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(TimeoutError):
            asyncio.run(outbound.post(url, b"{}", {}, private=True))


# --- the API ----------------------------------------------------------------------------------------------------------


def test_webhooks_are_made_shown_and_deleted_by_their_owner(tmp_path: Path) -> None:
    with Site(tmp_path / "Output") as site:
        ana, ben = site.client("ana", "user"), site.client("ben", "user")
        made = ana.post("/api/v1/webhooks", json={"url": "https://example.org/in"})
        cancelled(site.office.store, site.user("ana"))
        (listed,) = ana.get("/api/v1/webhooks").json()["webhooks"]

        assert made.status_code == 201 and made.json()["secret"].startswith("whsec_")
        assert "secret" not in listed and listed["url"] == "https://example.org/in"
        assert [sent["attempt"] for sent in listed["deliveries"]] == [0]
        assert ben.get("/api/v1/webhooks").json()["webhooks"] == []
        assert ben.delete(f"/api/v1/webhooks/{listed['id']}").status_code == 404
        private = ana.post("/api/v1/webhooks", json={"url": "http://192.168.1.5/"})
        assert (private.status_code, private.json()["code"]) == (422, "webhook_address")
        assert site.client().post("/api/v1/webhooks", json={"url": "http://192.168.1.5/"}).status_code == 201
        for _ in range(MOST_WEBHOOKS - 1):
            assert ana.post("/api/v1/webhooks", json={"url": "https://example.org/in"}).status_code == 201
        assert ana.post("/api/v1/webhooks", json={"url": "https://example.org/in"}).status_code == 400
        assert ana.delete(f"/api/v1/webhooks/{listed['id']}").status_code == 204


def test_the_server_itself_carries_messages_while_it_runs(tmp_path: Path) -> None:
    with Site(tmp_path / "Output") as site, listening() as ear:
        root = site.user("root", "admin")
        site.office.store.add_webhook(root.id, ear.address, "s")
        with site.client():  # a context: what runs beside the requests runs too
            cancelled(site.office.store, root)
            for _ in range(3000):
                if ear.heard and site.office.store.deliveries(root.id)[0].status:
                    break
                threading.Event().wait(0.01)
        assert len(ear.heard) == 1
