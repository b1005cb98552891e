"""From an upload to a job in the line: what is asked for is what the job's row says, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dubbing import orders
from dubbing.jobs import State
from dubbing.prepare import prepare
from dubbing.types import DubRequest
from dubbing.web.bounds import MOST_BODY
from dubbing.web.new_dub import film_name
from tests.web.site import Client, Site
from tests.web.tus import OCTETS, UPLOADS, metadata

JOBS = "/api/v1/jobs"
TUS = {"Tus-Resumable": "1.0.0"}
SCRIPT = {"Accept": "application/json"}
SRT = "1\n00:00:01,000 --> 00:00:02,000\nHola.\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("new") / "Output") as opened:
        yield opened


@pytest.fixture
def ana(site: Site) -> Client:
    return site.client("ana", "user")


def upload(client: Client, data: bytes = b"film", name: str = "talk.mp4", size: int | None = None) -> str:
    """The id of an upload, whole unless `size` is more."""
    headers = {**TUS, "Upload-Length": str(size or len(data)), "Upload-Metadata": metadata(name)}
    address = client.post(UPLOADS, headers=headers).headers["Location"]
    piece = {**TUS, "Upload-Offset": "0", "Content-Type": OCTETS}
    assert client.patch(address, content=data, headers=piece).status_code == 204
    return str(address.rpartition("/")[2])


def request_of(site: Site, job_id: str, name: str = "ana") -> DubRequest:
    return orders.from_json(site.office.store.job(site.user(name, "user").actor, job_id).request)


def test_an_upload_becomes_a_job_with_all_that_was_asked(site: Site, ana: Client) -> None:
    name = upload(ana, b"f" * 3_000_000, "Año 日本.MP4")
    body: dict[str, Any] = {"upload": name, "targets": ["es", "pt-BR", "es"], "source_language": "en"}
    body |= {"quality": "draft", "priority": 20, "keep_background": False}
    body |= {"transcript": {"name": "talk.txt", "text": "Good morning."}}
    body |= {"translations": {"es": {"name": "talk.srt", "text": SRT}}}

    answer = ana.post(JOBS, json=body)

    assert answer.status_code == 201
    facts = answer.json()
    assert (facts["state"], facts["title"], facts["targets"]) == ("queued", "Año 日本.mp4", ["es", "pt-BR"])
    assert answer.headers["location"] == f"{JOBS}/{facts['id']}"
    job = site.office.store.job(site.user("ana").actor, facts["id"])
    assert (job.state, job.priority, job.cost) == (State.PENDING, 20, 1)
    request = orders.from_json(job.request)
    assert request.source == site.output / "_uploads" / name / "Año 日本.mp4"
    assert request.source.read_bytes() == b"f" * 3_000_000
    assert not (site.office.uploads / name).exists()
    assert (request.targets, request.source_language, request.quality) == (("es", "pt-BR"), "en", "draft")
    assert request.output_dir == site.output / "ana" and not request.keep_background
    assert request.transcript is not None and request.transcript.read_text() == "Good morning."
    assert request.transcript.suffix == ".txt"
    assert {tag: path.read_text() for tag, path in request.translations.items()} == {"es": SRT}


def test_a_long_film_costs_more_of_a_turn_than_a_short_one(site: Site, ana: Client) -> None:
    """Only its size is known: this process does not open it."""
    name = upload(ana, b"f", size=1)
    with site.office.store.write() as connection:
        connection.exec_driver_sql("UPDATE upload SET size = 1800000000, received = 1800000000 WHERE id = ?", (name,))
    os.truncate(site.office.uploads / name, 1_800_000_000)  # a hole

    facts = ana.post(JOBS, json={"upload": name, "targets": ["es", "fr"]}).json()

    assert site.office.store.job(site.user("ana").actor, facts["id"]).cost == 192  # 96 minutes at 2.5 Mb/s, twice


def test_a_form_does_the_same_and_leads_to_the_list(site: Site, ana: Client) -> None:
    names = [upload(ana, b"one", "one.mp4"), upload(ana, b"two", "two.mkv")]
    fields = {"upload": names, "target": ["es"], "other": "eu, zh-Hant", "quality": "good", "priority": "50"}

    answer = ana.post("/ui/upload", data=fields, follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/jobs?view=mine")
    jobs = site.office.store.jobs(site.user("ana").actor, limit=2)
    assert {orders.from_json(job.request).source.name for job in jobs} == {"one.mp4", "two.mkv"}
    assert orders.from_json(jobs[0].request).targets == ("es", "eu", "zh-Hant")
    assert not orders.from_json(jobs[0].request).keep_background


def test_the_pages_script_sends_texts_and_gets_json(site: Site, ana: Client) -> None:
    fields = {"upload": upload(ana), "target": "es", "keep_background": "1", "source_language": "auto"}
    files = {
        "transcript": ("t.srt", SRT.encode()),
        "translation:es": ("t.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\nHola\n"),
    }
    files |= {"translation:fr": ("", b"")}  # an input where nothing was chosen

    answer = ana.post("/ui/upload", data=fields, files=files, headers={"Accept": "application/json"})

    assert answer.status_code == 201
    request = request_of(site, answer.json()["jobs"][0]["id"])
    assert request.keep_background and request.source_language == "auto"
    assert request.transcript is not None and request.transcript.suffix == ".srt"
    assert [(tag, path.suffix) for tag, path in request.translations.items()] == [("es", ".vtt")]


def test_the_same_key_asks_once_and_another_makes_another_dub_of_the_upload(site: Site, ana: Client) -> None:
    name = upload(ana)
    body = {"upload": name, "targets": ["es"], "transcript": {"text": "Hello."}}

    def send(key: str, **more: Any) -> Any:
        return ana.post(JOBS, json=body | more, headers={"Idempotency-Key": key})

    first, again, other = send("k1"), send("k1"), send("k2")
    changed = send("k1", targets=["fr"])

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 201)
    assert first.json() == again.json() and first.json() != other.json()
    assert (changed.status_code, changed.json()["code"]) == (422, "idempotency_key")
    assert request_of(site, other.json()["id"]).source == request_of(site, first.json()["id"]).source


def test_a_move_that_was_cut_short_is_made_good(site: Site, ana: Client) -> None:
    """The file was moved, and then the server died before the row was written."""
    name = upload(ana)
    film = site.office.films / name / "talk.mp4"
    film.parent.mkdir(parents=True)
    (site.office.uploads / name).rename(film)

    answer = ana.post(JOBS, json={"upload": name, "targets": ["es"]})

    assert answer.status_code == 201 and film.read_bytes() == b"film"


def test_two_users_never_share_a_folder(site: Site) -> None:
    folders = set()
    for name in ("ana", "bob"):
        client = site.client(name, "user")
        answer = client.post(JOBS, json={"upload": upload(client), "targets": ["es"]})
        folders.add(request_of(site, answer.json()["id"], name).output_dir)
    assert len(folders) == 2


def test_what_a_job_reads_can_be_dubbed(
    site: Site, ana: Client, real_output: Path, require_program: Callable[..., str]
) -> None:
    require_program("espeak-ng")
    talk = real_output.parent / "talk.mp4"
    body: dict[str, Any] = {"upload": upload(ana, talk.read_bytes(), "my talk.mp4"), "targets": ["es"]}
    body |= {"translations": {"es": CUE}, "quality": "draft"}
    facts = ana.post(JOBS, json=body).json()

    job = asyncio.run(prepare(request_of(site, facts["id"]), site.office.settings))

    assert job.info.size == talk.stat().st_size and job.source_language == "en"
    assert job.folder == site.output / "ana" / "my talk"


CUE = {"name": "a.srt", "text": SRT}


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"targets": []}, 400, "usage"),
        ({"upload": None}, 400, "usage"),
        ({"source": "/films/talk.mp4"}, 400, "usage"),
        ({"targets": ["klingon!"]}, 422, "language"),
        ({"targets": ["../es"]}, 422, "language"),
        ({"source_language": "english language"}, 422, "language"),
        ({"source_language": "es-MX"}, 422, "language"),
        ({"quality": "superb"}, 400, "usage"),
        ({"priority": 101}, 400, "usage"),
        ({"priority": 51}, 403, "forbidden"),
        ({"upload": "0" * 32}, 404, "not_found"),
        ({"translations": {"fr": CUE}}, 400, "usage"),
        ({"translations": {"es": {"name": "a.srt", "text": "no cues"}}}, 422, "subtitles"),
        ({"transcript": {"name": "a.txt", "text": " ... "}}, 422, "subtitles"),
        ({"transcript": {"name": "a.srt", "text": "1\n00:00:01,000 --> 00:00:02,000\n\n"}}, 422, "subtitles"),
        ({"transcript": {"name": "a.txt", "text": "x\0"}}, 422, "subtitles"),
        ({"transcript": {"name": "a.txt", "text": "x" * (2 << 20) + "x"}}, 400, "usage"),
        ({"surprise": 1}, 400, "usage"),
    ],
)
def test_what_cannot_be_dubbed_says_why(
    site: Site, ana: Client, change: dict[str, Any], status: int, code: str
) -> None:
    before = len(site.office.store.jobs(site.user("ana").actor, limit=1000))
    body = {"upload": upload(ana), "targets": ["es"]} | change

    answer = ana.post(JOBS, json=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len(site.office.store.jobs(site.user("ana").actor, limit=1000)) == before


def test_an_unfinished_upload_a_text_for_two_films_and_a_flood_are_refused(ana: Client) -> None:
    half = ana.post(JOBS, json={"upload": upload(ana, b"half", size=8), "targets": ["es"]})
    assert (half.status_code, half.json()["code"]) == (409, "upload_unfinished")
    assert half.json()["title"] == "The file talk.mp4 has not arrived as a whole (4 of 8 bytes)"

    two = {"upload": [upload(ana), upload(ana)], "target": "es"}
    both = ana.post("/ui/upload", data=two, files={"transcript": ("a.srt", SRT.encode())}, headers=SCRIPT)
    assert (both.status_code, both.json()["code"]) == (400, "usage")

    flood = ana.post(JOBS, content=b" " * (MOST_BODY + 1))
    assert (flood.status_code, flood.json()["code"]) == (413, "upload_too_large")
    assert ana.post(JOBS, content=b"{").status_code == 400
    form = ana.post("/ui/upload", content=b" " * (MOST_BODY + 1), headers=SCRIPT)
    assert (form.status_code, form.json()["code"]) == (413, "upload_too_large")


def test_a_form_that_cannot_be_dubbed_is_a_page_for_people_and_json_for_the_script(ana: Client) -> None:
    fields = {"upload": upload(ana)}

    page = ana.post("/ui/upload", data=fields)
    script = ana.post("/ui/upload", data=fields, headers={"Accept": "application/json"})
    large = ana.post("/ui/upload", data=fields, files={"transcript": ("t.srt", b"x" * (3 << 20))})

    assert page.status_code == 400 and "No target language was chosen." in page.text
    assert script.json()["title"] == "No target language was chosen"
    assert large.status_code == 422 and "larger than 2 MiB" in large.text


def test_administrators_may_put_a_dub_before_the_others(site: Site) -> None:
    root = site.client()
    answer = root.post(JOBS, json={"upload": upload(root), "targets": ["es"], "priority": 80})
    assert answer.status_code == 201
    assert 'value="80"' in root.get("/ui/upload").text
    assert 'value="80"' not in site.client("ana", "user").get("/ui/upload").text


def test_viewers_have_no_way_in(site: Site) -> None:
    vera = site.client("vera", "viewer")
    assert vera.get("/ui/upload").status_code == 403
    assert "/ui/upload" not in vera.get("/ui/jobs").text
    assert vera.post(JOBS, json={"upload": "x", "targets": ["es"]}).status_code == 403


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("talk.MP4", "talk.mp4"),
        ("..", "video"),
        (".hidden.mp4", "hidden.mp4"),
        ("a/b\\c.mkv", "a_b_c.mkv"),
        ("no suffix", "no suffix"),
        ("odd.suf fix", "odd.suf fix"),
        ("é" * 200 + ".mp4", "é" * 50 + ".mp4"),
        (".mp4", "mp4"),
    ],
)
def test_the_name_of_a_film_is_safe_for_a_disk(name: str, kept: str) -> None:
    assert film_name(name) == kept
