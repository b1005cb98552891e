"""The official client of ElevenLabs works with another base_url alone."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from elevenlabs import ElevenLabs
from elevenlabs.core.api_error import ApiError

from dubbing import orders
from dubbing.store import Fence
from dubbing.web.arrivals import RESERVE
from tests.services import wait_until
from tests.web.conftest import line_result, make_job, report_of
from tests.web.server import Running, served
from tests.web.site import Client, Site

FILM = bytes(range(256)) * 20_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("eleven") / "Output") as opened:
        yield opened


@pytest.fixture(scope="module")
def running(site: Site) -> Iterator[Running]:
    with served(site) as server:
        yield server


@contextmanager
def official(site: Site, running: Running, secret: str) -> Iterator[ElevenLabs]:
    """The client as its makers made it; only its connections are closed at the end."""
    with httpx.Client(timeout=60) as connections:
        yield ElevenLabs(base_url=running.address, api_key=secret, httpx_client=connections)


@pytest.fixture
def client(site: Site, running: Running) -> Iterator[ElevenLabs]:
    """With a key of ana's."""
    with official(site, running, key(site, "ana")) as made:
        yield made


def key(site: Site, name: str) -> str:
    secret = f"dub_{name}_{time.monotonic_ns()}"
    site.office.store.add_key(site.user(name).id, secret, name="client", scope="write")
    return secret


def finish(site: Site, job_id: str, *, error: dict[str, object] | None = None) -> Path:
    """End a job as the dispatcher would; answers its folder."""
    store = site.office.store
    job = store.job(site.user("root", "admin").actor, job_id)
    request = orders.from_json(job.request)
    made = report_of({"es": [line_result(0, "hola")]})
    made["source"]["duration_ms"] = 2_500
    srt = b"1\n00:00:00,000 --> 00:00:02,000\nhola\n"
    folder = make_job(
        request.output_dir, f"{request.source.stem}-{job_id[:4]}", made, es_mp4=FILM, es_srt=srt, en_vtt=b"WEBVTT\n"
    )
    fence = Fence(job.id, job.epoch + 1, store.in_charge().backend_epoch)
    assert store.take(fence, owner="test", ttl_ms=60_000)
    if error is not None:
        assert store.fail(fence, error)
    else:
        assert store.finish(fence, {"report": str(folder / "report.json"), "files": {}, "warnings": []})
    return folder


def films(site: Site) -> list[Path]:
    """Every file that came in, and every row that tells of one."""
    found = [path for place in (site.office.films, site.office.uploads) for path in place.rglob("*") if path.is_file()]
    return sorted([*found, *(Path(name) for name in uploads(site))])


def uploads(site: Site) -> dict[str, tuple[int, int, bool]]:
    """Size, what has arrived, and whether a job has it, of every upload."""
    with site.office.store.read() as connection:
        rows = connection.exec_driver_sql("SELECT id, size, received, expires_ms FROM upload").all()
    return {row.id: (row.size, row.received, row.expires_ms == 0) for row in rows}


def test_a_film_is_sent_dubbed_fetched_and_deleted(site: Site, client: ElevenLabs) -> None:
    created = client.dubbing.create(
        file=("../My talk?.MP4", FILM, "video/mp4"),
        target_lang="es",
        source_lang="en",
        name="A talk",
        start_time=1,
        drop_background_audio=True,
    )

    job = site.office.store.job(site.user("ana").actor, created.dubbing_id)
    request = orders.from_json(job.request)
    assert request.source.read_bytes() == FILM
    assert request.source.is_relative_to(site.office.films) and request.source.name == "My talk?.mp4"
    assert uploads(site)[request.source.parent.name] == (len(FILM), len(FILM), True)
    assert (request.targets, request.source_language, request.start_ms) == (("es",), "en", 1000)
    assert not request.keep_background and request.output_dir == site.output / "ana"
    assert created.expected_duration_sec > 0

    waiting = client.dubbing.get(created.dubbing_id)
    assert (waiting.status, waiting.name, waiting.target_languages) == ("dubbing", "A talk", ["es"])
    with pytest.raises(ApiError) as early:
        b"".join(client.dubbing.audio.get(created.dubbing_id, "es"))
    assert (early.value.status_code, early.value.body["code"]) == (425, "not_ready")

    folder = finish(site, created.dubbing_id)
    dubbed = client.dubbing.get(created.dubbing_id)
    assert dubbed.status == "dubbed" and dubbed.source_language == "en" and dubbed.error is None
    assert dubbed.media_metadata and (dubbed.media_metadata.content_type, dubbed.media_metadata.duration) == (
        "video/mp4",
        2.5,
    )
    assert b"".join(client.dubbing.audio.get(created.dubbing_id, "es")) == FILM
    srt = client.dubbing.transcript.get_transcript_for_dub(created.dubbing_id, "es", format_type="srt")
    assert "hola" in str(srt) and "-->" in str(srt)
    assert client.dubbing.transcripts.get(created.dubbing_id, "source", "webvtt").webvtt == "WEBVTT\n"
    with pytest.raises(ApiError) as absent:
        b"".join(client.dubbing.audio.get(created.dubbing_id, "ca"))
    assert absent.value.status_code == 404

    assert client.dubbing.delete(created.dubbing_id).status == "ok"
    assert not folder.exists() and not request.source.exists()
    assert request.source.parent.name not in uploads(site)
    with pytest.raises(ApiError) as gone:
        client.dubbing.get(created.dubbing_id)
    assert gone.value.status_code == 404


def test_dubs_are_listed_part_by_part_and_a_failure_is_told(site: Site, running: Running) -> None:
    with official(site, running, key(site, "lee")) as client:
        listed(site, client)


def listed(site: Site, client: ElevenLabs) -> None:
    made = [client.dubbing.create(file=("a.mp4", b"film"), target_lang="es").dubbing_id for _ in range(3)]
    finish(site, made[0], error={"code": "no_speech", "message": "No speech was found", "hint": "", "retryable": False})

    first = client.dubbing.list(page_size=2)
    second = client.dubbing.list(page_size=2, cursor=first.next_cursor)

    assert [dub.dubbing_id for dub in (*first.dubs, *second.dubs)] == made[::-1]
    assert (first.has_more, second.has_more) == (True, False)
    assert (second.dubs[0].status, second.dubs[0].error) == ("failed", "No speech was found")


def test_one_that_waits_is_deleted_at_once_and_one_that_runs_is_asked_to_stop(site: Site, client: ElevenLabs) -> None:
    waits, runs = (client.dubbing.create(file=("a.mp4", b"film"), target_lang="es").dubbing_id for _ in range(2))
    store = site.office.store
    assert store.take(Fence(runs, 1, store.in_charge().backend_epoch), owner="test", ttl_ms=60_000)

    assert client.dubbing.delete(waits).status == "ok"
    with pytest.raises(ApiError) as still:
        client.dubbing.delete(runs, request_options={"max_retries": 0})
    assert still.value.status_code == 409
    assert store.job(site.user("ana").actor, runs).asked == "cancel"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"target_lang": "es", "source_url": "https://example.org/a.mp4"}, "usage"),
        ({"file": ("a.mp4", b""), "target_lang": "es"}, "file_empty"),
        ({"file": ("a.mp4", b"film")}, "usage"),
        ({"file": ("a.mp4", b"film"), "target_lang": "not a tag"}, "language"),
        ({"file": ("a.mp4", b"film"), "target_lang": "es", "source_lang": "es"}, "language"),
        ({"file": ("a.mp4", b"film"), "target_lang": "es", "mode": "manual"}, "usage"),
        ({"file": ("a.mp4", b"film"), "target_lang": "es", "csv_file": ("a.csv", b"x")}, "usage"),
        ({"file": ("a.mp4", b"film"), "target_lang": "es", "start_time": -1}, "usage"),
        ({"file": ("a.mp4", b"film"), "target_lang": "es", "name": "x" * 5000}, "usage"),
    ],
)
def test_what_cannot_be_dubbed_is_refused_and_leaves_nothing(
    site: Site, client: ElevenLabs, fields: dict[str, object], code: str
) -> None:
    before = films(site)
    with pytest.raises(ApiError) as refusal:
        client.dubbing.create(**fields)  # type: ignore[arg-type]

    assert refusal.value.body["code"] == code
    assert films(site) == before


def test_a_wrong_key_opens_nothing(site: Site, running: Running) -> None:
    with official(site, running, "wrong") as client, pytest.raises(ApiError) as refusal:
        client.dubbing.list()
    assert refusal.value.status_code == 401


def post(client: Client, body: bytes, kind: str = "multipart/form-data; boundary=x") -> tuple[int, str]:
    answer = client.post("/v1/dubbing", content=body, headers={"Content-Type": kind})
    return answer.status_code, answer.json()["code"]


def test_forms_that_are_none_are_refused_and_leave_nothing(site: Site) -> None:
    client, before = site.client("ana", "user"), films(site)
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nfilm'

    assert post(client, b"{}", "application/json") == (400, "usage")
    assert post(client, b"{}", "multipart/form-data") == (400, "usage")
    assert post(client, b"nothing of the kind") == (400, "usage")
    assert post(client, part) == (400, "usage")
    assert post(client, part + b"\r\n" + part + b"\r\n--x--\r\n") == (400, "usage")
    assert post(client, b"--x\r\nX: y\r\n\r\n1\r\n" * 50 + b"--x--\r\n") in ((400, "usage"),)
    assert films(site) == before


def test_a_film_the_disk_has_no_room_for_is_refused(
    site: Site, client: ElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = films(site)
    monkeypatch.setattr(site.office.arrivals, "free", lambda folder: RESERVE + 1_000_000)

    with pytest.raises(ApiError) as refusal:
        client.dubbing.create(file=("a.mp4", FILM), target_lang="es", request_options={"max_retries": 0})

    assert (refusal.value.status_code, refusal.value.body["code"]) == (507, "upload_room")
    assert films(site) == before


def test_the_quota_counts_these_films_and_those_of_the_pages_alike(site: Site, running: Running) -> None:
    root, kim = site.user("root", "admin"), site.user("kim")
    site.office.store.change_account(root.actor, kim.id, quota_mb=8)
    site.office.store.add_upload(kim.id, "of the page.mp4", 2_000_000, room=10**9)
    with official(site, running, key(site, "kim")) as client:
        first = client.dubbing.create(file=("a.mp4", FILM), target_lang="es")
        before = films(site)
        with pytest.raises(ApiError) as refusal:
            client.dubbing.create(file=("b.mp4", FILM), target_lang="es")
        assert (refusal.value.status_code, refusal.value.body["code"]) == (413, "quota")
        assert films(site) == before

        client.dubbing.delete(first.dubbing_id)
        assert client.dubbing.create(file=("b.mp4", FILM), target_lang="es").dubbing_id


def test_a_form_without_a_length_is_refused(site: Site) -> None:
    client, before = site.client("ana", "user"), films(site)

    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nfilm\r\n--x--\r\n'

    answer = client.post("/v1/dubbing", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})

    assert (answer.status_code, answer.json()["code"]) == (400, "usage") and "Content-Length" in answer.json()["title"]
    assert films(site) == before


def test_a_connection_that_breaks_leaves_nothing(site: Site, running: Running) -> None:
    before, secret = films(site), key(site, "ana")
    host, port = running.address.removeprefix("http://").split(":")
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + bytes(2_000_000)
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/dubbing HTTP/1.1\r\nHost: {host}\r\nxi-api-key: {secret}\r\nContent-Length: 5000000\r\n"
        connection.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + part)
        wait_until(lambda: films(site) != before, 60, "the upload has begun")
    wait_until(lambda: films(site) == before, 60, "nothing is left of it")


def test_a_large_film_goes_to_the_disk_and_not_through_the_memory(tmp_path: Path) -> None:
    """The way from the form to the disk, in a process whose memory is measured: 200 MB in pieces of 64 kB."""
    code = """
import asyncio, resource, sys
from pathlib import Path
from dubbing.store import Store
from dubbing.web.arrivals import Arrivals
from dubbing.web.film_form import FilmForm
async def body():
    yield b'--x\\r\\nContent-Disposition: form-data; name="file"; filename="a.mp4"\\r\\n\\r\\n'
    for _ in range(3200):
        yield bytes(65536)
    yield b'\\r\\n--x--\\r\\n'
async def take():
    form = FilmForm(body(), 'multipart/form-data; boundary=x', file_field='file')
    assert await form.find_film()
    async with Arrivals().hold(store, Path(sys.argv[1]), user.id, upload.id) as arrival:
        await arrival.receive(form.film(), None)
    assert form.ended
store = Store(f'sqlite:///{sys.argv[1]}/a.sqlite3')
user = store.add_user('ana')
upload = store.add_upload(user.id, 'a.mp4', 3200 * 65536 + 100, room=10**9)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
asyncio.run(take())
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(store.upload(user.id, upload.id).received, (Path(sys.argv[1]) / upload.id).stat().st_size, grown)
store.close()
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=120)

    found = re.fullmatch(r"(\d+) (\d+) (\d+)\n", done.stdout)
    assert found, done.stderr
    assert int(found[1]) == int(found[2]) == 3200 * 65536 and int(found[3]) < 30_000
