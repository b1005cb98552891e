"""What arrives is what was sent, however often the connection broke; and nobody fills the disk or sees another's files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dubbing.store import Upload
from dubbing.store.uploads import KEPT_MS
from dubbing.web.arrivals import RESERVE, SWEEP_S, Limits
from dubbing.web.identity import COOKIE
from tests.web.conftest import line_result, make_job, report_of
from tests.web.served import free_port, serving
from tests.web.site import Site, add_job
from tests.web.tus import OCTETS, UPLOADS, Tus, checksum, metadata

MB = 1_000_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("uploads") / "Output") as opened:
        yield opened


@pytest.fixture(scope="module")
def ana(site: Site) -> Tus:
    return Tus(site, site.session("ana", "user"))


@pytest.fixture
def limits(site: Site) -> Iterator[Callable[..., None]]:
    """`limits(stale_s=...)` sets what the office waits for, until the test ends."""
    desk = site.office.arrivals

    def change(**values: float) -> None:
        desk.limits = Limits(**values)  # type: ignore[arg-type]

    yield change
    desk.limits = Limits()


def row(site: Site, address: str, name: str = "ana") -> Upload:
    return site.office.store.upload(site.user(name, "user").id, address.rpartition("/")[2])


def file_of(site: Site, address: str) -> Path:
    return site.office.uploads / address.rpartition("/")[2]


# --- the protocol -------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "break", "again", "damaged", "ahead", "sum", "cut_sum"]),
        st.integers(1, 700),
        st.integers(1, 4),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 2500), steps=STEPS, seed=st.integers(0, 9))
def test_whatever_breaks_on_the_way_the_file_is_what_was_sent(
    site: Site, ana: Tus, size: int, steps: list[tuple[str, int, int]], seed: int
) -> None:
    data = random.Random(seed).randbytes(size)

    async def run() -> None:
        address, offset = await ana.begin(size), 0
        for what, length, parts in steps:
            piece = data[offset : offset + length]
            cuts = [piece[n * len(piece) // parts : (n + 1) * len(piece) // parts] for n in range(parts)]
            if what == "send":
                answer = await ana.patch(address, offset, *cuts)
                assert (answer.status, answer.offset) == (204, offset + len(piece))
            elif what == "break":
                await ana.patch(address, offset, *cuts, breaks=True)
                assert await ana.offset(address) == offset + len(piece)
            elif what == "sum":
                answer = await ana.patch(address, offset, *cuts, headers={"Upload-Checksum": checksum(piece, "sha1")})
                assert (answer.status, answer.offset) == (204, offset + len(piece))
            elif what == "cut_sum":
                sums = {"Upload-Checksum": checksum(piece)}
                await ana.patch(address, offset, *cuts[:-1], b"", headers=sums, breaks=True)
            elif what == "damaged":
                wrong = {"Upload-Checksum": checksum(piece + b"x")}
                assert (await ana.patch(address, offset, *cuts, headers=wrong)).status == 460
            else:
                asked = max(0, offset - length) if what == "again" else offset + length
                if asked != offset:
                    answer = await ana.patch(address, asked, *cuts)
                    assert (answer.status, answer.offset) == (409, offset)
            offset = await ana.offset(address)
            assert row(site, address).received == offset
        assert file_of(site, address).read_bytes() == data[:offset] if offset else True
        answer = await ana.patch(address, offset, data[offset:])
        assert (answer.status, answer.offset) == (204, size)
        assert file_of(site, address).read_bytes() == data
        assert (await ana.ask("DELETE", address)).status == 204
        assert not file_of(site, address).exists()

    asyncio.run(run())


def test_a_large_piece_is_written_and_noted_on_the_way(site: Site, ana: Tus, limits: Callable[..., None]) -> None:
    data = random.Random(1).randbytes(7 << 20)
    limits(accept_bytes=2 << 20)

    async def run() -> None:
        address, hold = await ana.begin(len(data)), asyncio.Event()
        pieces = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]
        sending = asyncio.create_task(ana.patch(address, 0, *pieces[:-3], hold=hold))
        while await ana.offset(address) < 4 << 20:
            await asyncio.sleep(0)
        assert not sending.done()
        hold.set()
        answer = await sending
        assert answer.offset == len(data) - 3 * 65_536
        answer = await ana.patch(address, answer.offset, *pieces[-3:])
        assert answer.offset == len(data)
        assert file_of(site, address).read_bytes() == data

    asyncio.run(run())


def test_a_wrong_checksum_is_refused_and_nothing_of_the_piece_is_kept(site: Site, ana: Tus) -> None:
    async def run() -> None:
        address = await ana.begin(20)
        await ana.patch(address, 0, b"0123456789")
        answer = await ana.patch(address, 10, b"damaged", headers={"Upload-Checksum": checksum(b"as sent")})

        assert answer.status == 460
        assert json.loads(answer.body)["code"] == "checksum"
        assert await ana.offset(address) == 10
        assert file_of(site, address).read_bytes() == b"0123456789"

    asyncio.run(run())


def test_an_upload_says_how_far_it_is_and_when_it_ends(ana: Tus) -> None:
    async def run() -> None:
        able = await ana.ask("OPTIONS", UPLOADS)
        assert able.status == 204
        assert able.headers["tus-extension"] == "creation,checksum,expiration,termination"
        assert able.headers["tus-checksum-algorithm"] == "sha1,sha256"
        address = await ana.begin(10, "año 日本.mp4")
        await ana.patch(address, 0, b"0123")

        answer = await ana.ask("HEAD", address)

        assert (answer.offset, answer.headers["upload-length"]) == (4, "10")
        assert answer.headers["upload-metadata"] == metadata("año 日本.mp4")
        assert answer.headers["cache-control"] == "no-store" and answer.headers["tus-resumable"] == "1.0.0"
        assert answer.headers["upload-expires"].endswith(" GMT")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "tus_version"),
        ({}, 400, "usage"),
        ({"Upload-Length": "-1"}, 400, "usage"),
        ({"Upload-Length": "9" * 16}, 400, "usage"),
        ({"Upload-Length": "0"}, 422, "file_empty"),
        ({"Upload-Length": "9", "Upload-Metadata": "filename ???"}, 400, "usage"),
        ({"Upload-Length": "9", "Upload-Metadata": "filename é"}, 400, "usage"),
        ({"Upload-Length": "9", "Upload-Metadata": "x" * 5000}, 400, "usage"),
    ],
)
def test_an_upload_that_cannot_be_begun_says_why(ana: Tus, headers: dict[str, str], status: int, code: str) -> None:
    answer = asyncio.run(ana.ask("POST", UPLOADS, headers))

    assert (answer.status, json.loads(answer.body)["code"]) == (status, code)
    assert answer.headers["tus-resumable"] == "1.0.0"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, 400, "usage"),
        ({"Upload-Offset": "x"}, 400, "usage"),
        ({"Upload-Checksum": "md5 AAAA"}, 400, "usage"),
        ({"Upload-Checksum": "sha1 ???"}, 400, "usage"),
        ({"Content-Length": "11"}, 413, "upload_too_large"),
        ({"Upload-Offset": "3"}, 409, "upload_offset"),
    ],
)
def test_a_piece_that_cannot_be_taken_says_why(ana: Tus, headers: dict[str, str], status: int, code: str) -> None:
    async def run() -> None:
        address = await ana.begin(10)
        answer = await ana.patch(address, 0, b"0123", headers=headers)
        assert (answer.status, json.loads(answer.body)["code"]) == (status, code)
        assert await ana.offset(address) == 0

    asyncio.run(run())


def test_more_than_was_announced_is_refused_and_what_fits_is_kept(site: Site, ana: Tus) -> None:
    async def run() -> None:
        address = await ana.begin(10)
        answer = await ana.patch(address, 0, b"01234567890")
        assert (answer.status, json.loads(answer.body)["code"]) == (413, "upload_too_large")
        assert file_of(site, address).stat().st_size == await ana.offset(address) == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\films\\a.mp4", "a.mp4"),
        ("a\x00b\n\u202egpj.mp4", "abgpj.mp4"),
        ("", "video"),
        ("/", "video"),
        ("x" * 400, "x" * 255),
    ],
)
def test_a_name_is_kept_as_text_and_never_as_a_path(site: Site, ana: Tus, given_name: str, kept: str) -> None:
    address = asyncio.run(ana.begin(10, given_name))

    assert row(site, address).name == kept
    assert address.rpartition("/")[2] == row(site, address).id


# --- two at once ---------------------------------------------------------------------------------------------------------


def test_of_two_senders_at_once_one_has_to_wait(site: Site, ana: Tus) -> None:
    async def run() -> None:
        address, hold = await ana.begin(10), asyncio.Event()
        first = asyncio.create_task(ana.patch(address, 0, b"01234", hold=hold))
        while address.rpartition("/")[2] not in site.office.arrivals.open:
            await asyncio.sleep(0)

        second = await ana.patch(address, 0, b"abcde")
        hold.set()

        assert (second.status, json.loads(second.body)["code"]) == (423, "upload_busy")
        assert (await first).offset == 5
        assert file_of(site, address).read_bytes() == b"01234"

    asyncio.run(run())


@pytest.mark.parametrize("next_step", ["PATCH", "DELETE"])
def test_a_sender_who_fell_silent_gives_way(site: Site, ana: Tus, limits: Callable[..., None], next_step: str) -> None:
    limits(stale_s=-1)

    async def run() -> None:
        address, never = await ana.begin(10), asyncio.Event()
        first = asyncio.create_task(ana.patch(address, 0, b"01234", hold=never))
        arrival = None
        while arrival is None or arrival.waiting == 0:
            await asyncio.sleep(0)
            arrival = site.office.arrivals.open.get(address.rpartition("/")[2])
        if next_step == "DELETE":
            assert (await ana.ask("DELETE", address)).status == 204
            assert (await ana.ask("HEAD", address)).status == 404
        else:
            answer = await ana.patch(address, 0, b"01234")
            assert (answer.status, answer.offset) == (409, 5)
        assert (await first).offset == 5

    asyncio.run(run())


def test_a_sender_from_whom_nothing_comes_is_given_up(site: Site, ana: Tus, limits: Callable[..., None]) -> None:
    limits(idle_s=0.05)

    async def run() -> None:
        address = await ana.begin(10)
        answer = await ana.patch(address, 0, b"01234", hold=asyncio.Event())
        assert (answer.status, answer.offset) == (204, 5)
        assert not site.office.arrivals.open

    asyncio.run(run())


# --- room, and whose it is ------------------------------------------------------------------------------------------------


def test_uploads_of_others_do_not_exist(site: Site, ana: Tus) -> None:
    others = [Tus(site, site.session(name, role)) for name, role in (("bob", "user"), ("root", "admin"))]

    async def run() -> None:
        address = await ana.begin(10)
        for other in others:
            assert (await other.ask("HEAD", address)).status == 404
            assert (await other.patch(address, 0, b"0123")).status == 404
            assert (await other.ask("DELETE", address)).status == 404
            body = json.dumps({"upload": address.rpartition("/")[2], "targets": ["es"]}).encode()
            assert (await other.ask("POST", "/api/v1/jobs", {"Content-Type": "application/json"}, [body])).status == 404
        assert await ana.offset(address) == 0

    asyncio.run(run())


def test_a_user_keeps_no_more_than_his_quota(site: Site) -> None:
    store, output = site.office.store, site.output
    carl = site.user("carl", "user")
    store.change_user(carl.id, role="user", password_hash=carl.password_hash, disabled=False, quota_mb=10)
    add_job(store, carl, make_job(output, "carls", report_of({"es": [line_result(0, "x")]}), es_mp4=b"x" * 3 * MB))
    tus = Tus(site, site.session("carl", "user"))

    async def begin(size: int) -> tuple[int, str]:
        answer = await tus.ask("POST", UPLOADS, {"Upload-Length": str(size)})
        return answer.status, json.loads(answer.body or b"{}").get("title", "")

    async def run() -> None:
        assert await begin(4 * MB) == (201, "")
        status, title = await begin(4 * MB)
        assert (status, title) == (413, "The file has 4 MB, and 2 MB are left of your 10 MB")
        assert (await begin(2 * MB))[0] == 201

    asyncio.run(run())


def test_a_disk_without_room_refuses_at_once_and_counts_what_was_promised(tmp_path: Path) -> None:
    with Site(tmp_path / "Output") as site:
        ana = Tus(site, site.session("ana", "user"))
        site.office.arrivals.free = lambda folder: RESERVE + 10 * MB  # the disk, as the office sees it

        async def run() -> None:
            address = await ana.begin(6 * MB)
            await ana.patch(address, 0, b"x" * MB)
            answer = await ana.ask("POST", UPLOADS, {"Upload-Length": str(6 * MB)})
            assert (answer.status, json.loads(answer.body)["code"]) == (507, "upload_room")
            assert json.loads(answer.body)["title"] == "The server has 5 MB left for uploads, and this file needs 6 MB"
            assert (await ana.ask("POST", UPLOADS, {"Upload-Length": str(5 * MB)})).status == 201

        asyncio.run(run())


def test_what_nobody_finished_ends_with_its_bytes(tmp_path: Path) -> None:
    with Site(tmp_path / "Output") as site:
        store, now = site.office.store, [site.office.store.clock_ms()]
        store._clock = lambda: now[0]
        ana = Tus(site, site.session("ana", "user"))

        async def run() -> None:
            old = await ana.begin(10)
            await ana.patch(old, 0, b"0123")
            now[0] += KEPT_MS - 1
            assert await ana.offset(old) == 4
            now[0] += 2
            assert (await ana.ask("HEAD", old)).status == 404
            site.office.arrivals._swept -= SWEEP_S
            young = await ana.begin(10)
            await ana.patch(young, 0, b"01")
            assert not file_of(site, old).exists()
            assert file_of(site, young).exists()

        asyncio.run(run())


def test_a_film_goes_with_the_last_job_that_has_it(tmp_path: Path) -> None:
    with Site(tmp_path / "Output") as site:
        store, now = site.office.store, [site.office.store.clock_ms()]
        store._clock = lambda: now[0]
        user = site.user("ana", "user")
        ana = Tus(site, site.session("ana", "user"))

        async def run() -> str:
            address = await ana.begin(4)
            await ana.patch(address, 0, b"film")
            body = json.dumps({"upload": address.rpartition("/")[2], "targets": ["es"]}).encode()
            answer = await ana.ask("POST", "/api/v1/jobs", {"Content-Type": "application/json"}, [body])
            assert answer.status == 201
            assert (await ana.ask("DELETE", address)).status == 409
            assert (await ana.patch(address, 4, b"")).status == 409
            assert await ana.offset(address) == 4
            return str(json.loads(answer.body)["id"])

        def swept() -> int:
            site.office.arrivals._swept -= SWEEP_S
            return site.office.arrivals.sweep(store, site.office.uploads, site.office.films)

        job = asyncio.run(run())
        now[0] += KEPT_MS + 1
        assert swept() == 0
        assert [path.read_bytes() for path in site.office.films.rglob("*.mp4")] == [b"film"]
        store.cancel(user.actor, job)
        store.delete(user.actor, job)
        assert swept() == 1
        assert list(site.office.films.iterdir()) == []


@pytest.mark.parametrize("on_disk", [0, 3])
def test_bytes_that_the_disk_lost_are_asked_for_again(site: Site, ana: Tus, on_disk: int) -> None:
    async def run() -> None:
        address = await ana.begin(10)
        await ana.patch(address, 0, b"01234567")
        with file_of(site, address).open("r+b") as file:
            file.truncate(on_disk)
        assert await ana.offset(address) == on_disk
        answer = await ana.patch(address, on_disk, b"0123456789"[on_disk:])
        assert answer.offset == 10
        assert file_of(site, address).read_bytes() == b"0123456789"

    asyncio.run(run())


# --- a real server --------------------------------------------------------------------------------------------------------


def until(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def client_of(site: Site, port: int) -> httpx.Client:
    headers = {"Cookie": f"{COOKIE}={site.session('ana', 'user')}", "Sec-Fetch-Site": "same-origin"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={**headers, "Tus-Resumable": "1.0.0"}, timeout=60)


def test_a_killed_server_goes_on_where_the_bytes_end_and_a_full_disk_is_told(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(96 << 20)
    port = free_port()
    with Site(tmp_path / "Output") as site, client_of(site, port) as client:
        site.user("ana", "user")
        with serving(site.output, port) as process:
            address = client.post(UPLOADS, headers={"Upload-Length": str(len(data))}).headers["Location"]
            file = site.office.uploads / address.rpartition("/")[2]
            with socket.create_connection(("127.0.0.1", port)) as raw:
                head = [f"PATCH {address} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(data)}"]
                head += [
                    f"{key}: {value}" for key, value in client.headers.items() if key in ("cookie", "sec-fetch-site")
                ]
                head += ["Tus-Resumable: 1.0.0", "Upload-Offset: 0", f"Content-Type: {OCTETS}", "", ""]
                raw.sendall("\r\n".join(head).encode() + data[: 80 << 20])
                until(lambda: row(site, address).received >= 64 << 20)
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert (64 << 20) <= file.stat().st_size <= 80 << 20

        with serving(site.output, port) as process:
            offset = int(client.head(address).headers["Upload-Offset"])
            assert 64 << 20 <= offset <= file.stat().st_size
            headers = {"Content-Type": OCTETS}
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (88 << 20, 88 << 20))
            full = client.patch(address, content=data[offset:], headers={**headers, "Upload-Offset": str(offset)})
            assert (full.status_code, full.json()["code"]) == (507, "upload_room")
            assert int(client.head(address).headers["Upload-Offset"]) == 88 << 20
        with serving(site.output, port):
            rest = client.patch(address, content=data[88 << 20 :], headers={**headers, "Upload-Offset": str(88 << 20)})
            assert (rest.status_code, int(rest.headers["Upload-Offset"])) == (204, len(data))
            assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(data).digest()
