"""The server as a process: it starts, watches its worker, says how it is, and ends with everything it started."""

from __future__ import annotations

import http.client
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.request import urlopen

import pytest
from starlette.testclient import TestClient

from dubbing import heartbeat
from dubbing.web import health
from dubbing.web.identity import COOKIE
from dubbing.web.traffic import access_log
from dubbing.web.worker import LONGEST_PAUSE_S, Worker, pause_s
from tests.services import RedisServer, wait_until
from tests.web.conftest import environment, line_result, make_job, report_of
from tests.web.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "Output") as opened:
        yield opened


class Lines:
    """What was said, and a way to wait for a line of it."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def __call__(self, line: str) -> None:
        self.all.append(line)

    def wait(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        wait_until(lambda: self.find(pattern), timeout_s, f"{pattern} in {self.all}")
        found = self.find(pattern)
        assert found
        return found

    def find(self, pattern: str) -> re.Match[str] | None:
        return next(filter(None, (re.search(pattern, line) for line in list(self.all))), None)


class Server:
    """`dubbing-web` as a child of the test."""

    def __init__(self, folder: Path, *options: str, **settings: str) -> None:
        defaults = {"DUBBING_OUTPUT_DIR": str(folder / "Output"), "PORT": "0", "QUEUE_MODE": "fallback"}
        self.out, self.err, self.folder = Lines(), Lines(), folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dubbing.web.server", *options],
            env=environment(**(defaults | settings)), cwd=folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        streams = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self.readers = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in streams]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def _read(stream: IO[str], lines: Lines) -> None:
        with stream:
            for line in stream:
                lines(line.rstrip())

    @property
    def address(self) -> str:
        return self.out.wait(r"(http://\S+)/ is ready").group(1)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(self.address + path, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except OSError as error:
            return getattr(error, "code", 0), str(error)

    def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sign)
        code = self.process.wait(timeout=90)
        for reader in self.readers:
            reader.join(60)
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def run(*options: str, **settings: str) -> Server:
        started.append(Server(tmp_path, *options, **settings))
        return started[-1]

    yield run
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
        for reader in server.readers:
            reader.join(60)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Everything below a process."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        below.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        found += (more := below.get(waiting.pop(), []))
        waiting += more
    return found


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_in_order(
    start: Callable[..., Server], tmp_path: Path, sign: signal.Signals
) -> None:
    server = start("--pages-only")

    assert server.get("/livez") == (200, "ok\n")
    assert server.out.wait(r"open http://\S+/ui/setup/\S+ to make the first administrator")
    assert server.get("/readyz")[0] == 503  # nobody runs jobs

    assert server.end(sign) == 0
    assert server.err.all == []
    logged = (tmp_path / "logs" / "access.log").read_text()
    assert re.search(r"127\.0\.0\.1 GET /livez 200 [\d.]+ ms", logged)


def test_a_paused_player_does_not_hold_up_the_end(start: Callable[..., Server]) -> None:
    server = start("--pages-only")
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=30)
    connection.request("GET", "/static/style.css", headers={"Connection": "keep-alive"})
    connection.getresponse().read()

    assert server.end() == 0
    connection.close()


def test_a_film_that_is_read_no_further_does_not_hold_up_the_end(start: Callable[..., Server], tmp_path: Path) -> None:
    report = report_of({"es": [line_result(0, "hola")]})
    make_job(tmp_path / "Output", "talk", report, es_mp4=bytes(64 << 20))
    server = start("--pages-only")
    place = server.address
    with Site(tmp_path / "Output") as site:
        request = f"GET {site.path('/jobs/talk/files/talk.es.mp4')} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        cookie = f"{COOKIE}={site.session()}"
    with socket.create_connection(("127.0.0.1", int(place.rpartition(":")[2])), timeout=30) as player:
        player.sendall(f"{request}Cookie: {cookie}\r\n\r\n".encode())
        assert player.recv(1024).startswith(b"HTTP/1.1 200 OK")
        assert server.end() == 0
    assert server.err.all == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_worker_on_a_real_ray_becomes_ready_comes_back_and_never_stays_behind(start: Callable[..., Server]) -> None:
    server = start()
    server.out.wait(r"the worker is ready, \d+ jobs at once", 240)
    wait_until(lambda: server.get("/readyz")[0] == 200, 60, "ready")

    (worker,) = [pid for pid in children(server.process.pid) if b"dubbing.cli" in _command(pid)]
    os.kill(worker, signal.SIGKILL)
    server.out.wait(r"the worker ended \(killed by SIGKILL\); jobs wait, and it is started again in 1 s")
    wait_until(lambda: sum("worker is ready" in line for line in server.out.all) == 2, 240, "ready again")

    everything = children(server.process.pid)
    assert len(everything) > 3
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not any(map(runs, everything)), 120, "the end of Ray and the worker")


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# --- the worker -------------------------------------------------------------------------------------------------------

READY = """print('{"slots": {"default": 2}, "api": ""}', flush=True)\n"""
UNTIL_EOF = "import sys; sys.stdin.read()\n"


def child(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_readiness_line_becomes_a_sentence_and_other_lines_pass() -> None:
    said = Lines()
    with Worker(said, child("print('a word', flush=True)\n" + READY + UNTIL_EOF)):
        said.wait("^the worker is ready, 2 jobs at once.$")
    assert said.all == ["a word", "the worker is ready, 2 jobs at once."]


def test_a_worker_that_dies_is_started_again_with_growing_pauses(tmp_path: Path) -> None:
    said, asked = Lines(), []

    def pause(failures: int) -> float:
        asked.append(failures)
        return 0.0 if failures < 3 else 60.0

    with Worker(said, child("raise SystemExit(5)"), pause=pause):
        wait_until(lambda: len(asked) == 3, 60)
        said.wait(r"the worker ended \(exit code 5\); jobs wait, and it is started again in 60 s")
    assert asked == [1, 2, 3]
    assert [pause_s(n) for n in (1, 2, 3, 7, 500)] == [1, 2, 4, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_a_worker_that_does_not_want_to_end_is_killed_in_bounded_time() -> None:
    said = Lines()
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "time.sleep(86_400)"
    with Worker(said, child(deaf), stop_s=0.2):
        said.wait("ready")


def test_serve_ends_when_the_pipe_of_its_starter_ends(tmp_path: Path) -> None:
    """The order of the end is `dub serve`'s own, which SIGTERM begins; it must come however the starter went."""
    code = (
        "import signal, sys, threading; from dubbing.queue_commands import _end_with_input\n"
        "asked = threading.Event(); signal.signal(signal.SIGTERM, lambda *_: asked.set())\n"
        "threading.Thread(target=_end_with_input, daemon=True).start(); print('in', flush=True)\n"
        "while not asked.wait(0.1): pass"
    )
    with subprocess.Popen(
        child(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), cwd=tmp_path
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"in\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(60) == 0


# --- readiness --------------------------------------------------------------------------------------------------------


def readiness(site: Site) -> tuple[int, dict[str, str]]:
    answer = site.client(None).get("/readyz", headers={"Accept": "application/json"})
    assert answer.json()["ready"] is (answer.status_code == 200)
    return answer.status_code, answer.json()["checks"]


def test_it_is_ready_when_a_dispatcher_was_heard_of_lately(site: Site) -> None:
    state = site.office.settings.state
    assert readiness(site) == (503, {
        "database": "ok", "queue": "ok", "dispatcher": "none runs yet; jobs wait", "uploads": "ok", "disk": "ok",
    })  # fmt: skip

    heartbeat.beat(state)
    assert readiness(site)[0] == 200
    assert site.client(None).get("/readyz").text == "database: ok\nqueue: ok\ndispatcher: ok\nuploads: ok\ndisk: ok\n"
    assert site.client(None).head("/readyz").status_code == 200

    os.utime(state / heartbeat.NAME, (time.time() - 90, time.time() - 90))
    status, checks = readiness(site)
    assert status == 503 and re.fullmatch(r"it was last heard of 9\d s ago; jobs wait", checks["dispatcher"])

    heartbeat.beat(state)
    heartbeat.stop(state)
    assert readiness(site)[1]["dispatcher"] == "none runs yet; jobs wait"


def test_a_full_disk_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LEAST_FREE_MB", 1 << 50)
    status, checks = readiness(site)
    assert status == 503 and re.fullmatch(r"\d+ MB are free", checks["disk"])


def test_a_folder_that_cannot_be_written_is_told(site: Site) -> None:
    site.office.uploads.write_text("a file stands where the folder should be")
    assert readiness(site)[1]["uploads"] == "their folder cannot be written"


def test_a_queue_that_is_gone_is_told_without_its_address(tmp_path: Path, own_redis: RedisServer) -> None:
    with Site(tmp_path, QUEUE_MODE="redis", REDIS_URL=own_redis.url) as site:
        assert readiness(site)[1]["queue"] == "ok"
        own_redis.kill()
        text = site.client(None).get("/readyz").text
        assert "queue: it does not answer\n" in text and "127.0.0.1" not in text
        assert 'dubbing_ready{check="queue"} 0' in site.client(None).get("/metrics").text


# --- figures and the log ----------------------------------------------------------------------------------------------


def figures(text: str) -> dict[str, float]:
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in found.items()}


def test_the_figures_count_requests_by_route_and_jobs_by_state(site: Site) -> None:
    root = site.user("root", "admin").actor
    job, _ = site.office.store.submit(root, {"source": "a.mp4"}, priority=95)
    site.office.store.submit(root, {"source": "b.mp4"}, priority=5)
    client = site.client()
    client.get(f"/ui/jobs/{job.id}")
    client.get(f"/ui/jobs/{'0' * 32}")
    client.get("/nowhere/at/all")
    client.get("/static/style.css")

    found = figures(client.get("/metrics").text)

    assert found['dubbing_http_requests_total{method="GET",route="/ui/jobs/{job_id}",status="200"}'] == 1
    assert found['dubbing_http_requests_total{method="GET",route="/ui/jobs/{job_id}",status="404"}'] == 1
    assert found['dubbing_http_requests_total{method="GET",route="none",status="404"}'] == 1
    assert found['dubbing_http_requests_total{method="GET",route="/static",status="200"}'] == 1
    assert found['dubbing_http_requests_open{method="GET"}'] == 1  # this very one
    assert found['dubbing_http_first_byte_seconds_count{route="/ui/jobs/{job_id}"}'] == 2
    assert found['dubbing_http_first_byte_seconds_bucket{route="/ui/jobs/{job_id}",le="+Inf"}'] == 2
    assert 0 < found['dubbing_http_first_byte_seconds_sum{route="/ui/jobs/{job_id}"}'] < 60
    assert found['dubbing_jobs{state="pending"}'] == 2
    assert [found[f'dubbing_queue_depth{{band="{band}"}}'] for band in range(10)] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found["dubbing_uploads_in_flight"] == 0
    assert found['dubbing_ready{check="database"}'] == 1 and found['dubbing_ready{check="dispatcher"}'] == 0


def test_no_figure_names_a_user_or_a_job(site: Site) -> None:
    user = site.user("ana")
    job, _ = site.office.store.submit(user.actor, {"source": "secret film.mp4"})
    site.client("ana", "user").get(f"/ui/jobs/{job.id}?q=wanted")
    text = site.client().get("/metrics").text
    assert not [word for word in (job.id, user.id, "ana", "secret", "wanted") if word in text]


def test_the_figures_are_for_this_machine_and_for_administrators(tmp_path: Path) -> None:
    with Site(tmp_path, REMOTE_ACCESS_MODE="tailscale", HOST="0.0.0.0") as site:

        def ask(**headers: str) -> int:
            phone = TestClient(site.app, base_url="http://server", client=("100.64.0.7", 50_000))
            return phone.get("/metrics", headers=headers, follow_redirects=False).status_code

        def key(name: str, role: str) -> dict[str, str]:
            secret = f"key-of-{name}-with-enough-characters"
            site.office.store.add_key(site.user(name, role).id, secret, name=name, scope="read")
            return {"Authorization": f"Bearer {secret}"}

        assert site.client(None).get("/metrics").status_code == 200
        assert ask() == 303
        assert ask(**{"X-Forwarded-For": "127.0.0.1"}) == 303
        assert ask(**key("ana", "user")) == 403
        assert ask(**key("root", "admin")) == 200


def test_the_log_has_no_secret_and_no_second_line(site: Site, tmp_path: Path) -> None:
    client = site.client()
    with access_log(tmp_path / "logs"):
        client.get("/ui/setup/CANARY-one")
        client.get("/ui/setup/CANARY-two/and/more")
        client.get("/ui/login?next=CANARY-three", headers={"Authorization": "Bearer CANARY-four"})
        client.get("/livez", headers={"Cookie": f"{COOKIE}=CANARY-five"})
        client.get("/setup/CANARY-six")
        client.get("/nowhere%0a1.2.3.4 GET /forged")
        client.get("/static/style.css")
    text = (tmp_path / "logs" / "access.log").read_text()

    assert "CANARY" not in text
    assert len(text.splitlines()) == 7
    assert "GET /ui/setup/*** " in text and "GET /static/style.css 200" in text
    assert not logging.getLogger("dubbing.access").handlers
