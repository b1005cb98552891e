"""The pages show what jobs left in their folders, and nothing else of the machine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from dubbing import config
from dubbing.errors import SettingsError
from dubbing.store import Fence
from dubbing.web import pages, server
from dubbing.web.app import SecureHeaders
from dubbing.web.errors import add_errors
from dubbing.web.headers import HEADERS
from dubbing.web.report import bars
from tests.web.conftest import line_result, make_job, report_of
from tests.web.site import Client, Site, add_job

HOSTILE = """"><script>alert('x')</script> & {{ 7*7 }} 'q' ?# 100%"""
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An empty output folder."""
    return tmp_path / "Output"


@pytest.fixture
def site(output: Path) -> Iterator[Site]:
    """The server over `output`."""
    with Site(output) as opened:
        yield opened


@pytest.fixture
def client(site: Site) -> Client:
    """An administrator's browser."""
    return site.client()


@pytest.fixture
def real_client(real_output: Path, tmp_path: Path) -> Iterator[Client]:
    """An administrator's browser on a real dub."""
    with Site(real_output, DUBBING_STATE_DIR=str(tmp_path)) as opened:
        yield opened.client()


class Page(HTMLParser):
    """Elements and text of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.texts))


# --- what is shown --------------------------------------------------------------------------------------------------


def test_without_dubs_the_list_says_how_to_make_one(client: Client) -> None:
    answer = client.get("/ui/jobs")

    assert answer.status_code == 200
    assert "dub submit talk.mp4 --to es" in answer.text


def test_the_list_shows_jobs_newest_first_and_narrows_them(output: Path, site: Site, client: Client) -> None:
    root, ana = site.user("root", "admin"), site.user("ana")
    old = add_job(site.office.store, root, make_job(output, "old", report_of({})), targets=("es", "ca"))
    warned = add_job(site.office.store, ana, make_job(output, "new", report_of({})), warned=True)
    waiting, _ = site.office.store.submit(root.actor, {"source": "/films/wait.mp4", "targets": ["fr"]})

    def listed(query: str = "", by: Client = client) -> list[str]:
        links = [str(link.get("href")) for link in Page(by.get(f"/ui/jobs{query}").text).all("a")]
        return [link.removeprefix("/ui/jobs/") for link in links if re.fullmatch(r"/ui/jobs/[0-9a-f]{32}", link)]

    page = Page(client.get("/").text)

    assert listed() == [waiting.id, warned.id, old.id]
    assert listed("?view=mine") == [waiting.id, old.id] and listed("?state=waiting") == [waiting.id]
    assert listed("?q=NEW") == [warned.id] and listed("?state=done&q=ol") == [old.id] and listed("?q=%25") == []
    assert "old Español , Català Done" in page.text and "Done, with warnings 1 warning ana" in page.text
    assert listed(by=site.client("ana", "user")) == [warned.id]


def test_a_long_list_comes_in_pages(site: Site, client: Client) -> None:
    root = site.user("root", "admin")
    ids = [site.office.store.submit(root.actor, {"source": f"{n}.mp4"})[0].id for n in range(35)]

    first = client.get("/ui/jobs").text
    older = next(str(link["href"]) for link in Page(first).all("a") if "before=" in str(link.get("href")))
    second = client.get(f"/ui/jobs{older}").text

    assert [job in first for job in ids] == [False] * 5 + [True] * 30
    assert [job in second for job in ids] == [True] * 5 + [False] * 30


def test_a_real_dub_is_shown_with_everything_the_job_left(real_output: Path, real_client: Client) -> None:
    client = real_client
    made = json.loads((real_output / "talk" / "report.json").read_text())

    page = Page(client.get("/jobs/talk").text)

    (video,) = page.all("video")
    talk = client.path_of("/jobs/talk")
    assert video["src"] == f"{talk}/files/talk.es.mp4"
    assert [track["srclang"] for track in page.all("track")] == ["es", "en"]
    links = [link["href"] or "" for link in page.all("a")]
    offered = {link.removeprefix(f"{talk}/files/").removesuffix("?download=1") for link in links if "download" in link}
    assert offered == {path.name for path in (real_output / "talk").iterdir() if path.name != ".work"}
    assert f"{made['targets']['es']['overlap']['median']:.2f}" in page.text
    worst = made["targets"]["es"]["worst_lines"][0]
    assert worst["text"] in page.text
    assert f"hurried rate {worst['rate']:.2f}" in page.text
    assert f"{talk}/files/talk.es.mp4#t={max(0, worst['dub_start_ms'] - 500) / 1000}" in links
    assert "fake-translate" in page.text
    assert "Apache-2.0" in page.text
    for address in [*links, *(str(track["src"]) for track in page.all("track")), str(video["src"])]:
        assert client.head(address.split("#")[0] if address[0] == "/" else f"/jobs/talk{address}").status_code in (
            200,
            405,
        )


def test_another_language_is_chosen_by_a_link_that_needs_no_script(real_client: Client) -> None:
    page = Page(real_client.get("/jobs/talk?language=ca").text)

    assert page.all("video")[0]["src"] == real_client.path_of("/jobs/talk/files/talk.ca.mp4")
    sections = {part["id"]: "hidden" in part for part in page.all("section") if part.get("class") == "dub"}
    assert sections == {"dub-1": True, "dub-2": False}


def test_a_language_that_the_job_lacks_is_not_found(real_client: Client) -> None:
    answer = real_client.get("/jobs/talk?language=xx")

    assert answer.status_code == 404
    assert "There is no dub of talk into xx here." in answer.text


def test_a_language_of_an_earlier_run_can_still_be_played(output: Path, client: Client) -> None:
    make_job(output, "talk", report_of({"ca": [line_result(0, "hola")]}), ca_mp4=b"x", es_mp4=b"x", en_vtt=b"x")

    page = Page(client.get("/jobs/talk?language=es").text)

    assert page.all("video")[0]["src"] == client.path_of("/jobs/talk/files/talk.es.mp4")
    assert "dubbed by an earlier run" in page.text


def test_a_damaged_report_says_what_to_do(output: Path, client: Client) -> None:
    (make_job(output, "torn") / "report.json").write_text('{"schema": 1, "state"')
    make_job(output, "future", report_of({}) | {"schema": 2}, es_mp4=b"x")

    assert "is damaged" in client.get("/jobs/torn").text
    future = client.get("/jobs/future").text
    assert "of another version" in future
    assert Page(future).all("video")


def test_a_job_whose_folder_is_gone_still_has_its_page(output: Path, client: Client) -> None:
    shutil.rmtree(make_job(output, "moved", report_of({})))

    assert client.get("/jobs/moved").status_code == 200
    assert client.get("/jobs/moved/files/report.json").status_code == 404


def test_a_waiting_a_running_and_a_failed_job_say_how_far_they_are(site: Site, client: Client) -> None:
    store, root = site.office.store, site.user("root", "admin")
    jobs = [store.submit(root.actor, {"source": f"/films/{n}.mp4", "targets": ["es"]})[0] for n in range(3)]
    epoch = store.in_charge().backend_epoch
    for job in jobs[1:]:
        assert store.take(Fence(job.id, 1, epoch), owner="test", ttl_ms=60_000)
    stage = {"stage": "speak", "target": "es", "done": 3, "total": 9, "eta_s": 75.0, "note": ""}
    assert store.report_progress(Fence(jobs[1].id, 1, epoch), {"stages": [stage]})
    error = {
        "code": "media_no_audio",
        "message": "The file has no sound",
        "hint": "Choose another.",
        "retryable": False,
    }
    assert store.fail(Fence(jobs[2].id, 1, epoch), error)

    waiting, running, failed = (Page(client.get(f"/ui/jobs/{job.id}").text) for job in jobs)

    assert "Waiting" in waiting.text and "Pause" in waiting.text
    assert "Running" in running.text and "3/9, 1:15 left" in running.text
    assert running.all("progress") == [{"max": "9", "value": "3", "aria-label": "speak"}]
    assert "Failed" in failed.text and "The file has no sound Choose another." in failed.text
    assert "Run again" in failed.text


def test_the_buttons_of_a_job_do_what_they_say(site: Site, client: Client) -> None:
    store, root = site.office.store, site.user("root", "admin")
    job, _ = store.submit(root.actor, {"source": "/films/a.mp4", "targets": ["es"]})

    def press(action: str) -> str:
        answer = client.post(f"/ui/jobs/{job.id}/{action}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/ui/jobs/{job.id}")
        return store.job(root.actor, job.id).state.value

    assert [press(action) for action in ("pause", "resume", "cancel", "retry")] == [
        "paused",
        "pending",
        "cancelled",
        "pending",
    ]
    press("share")
    assert store.job(root.actor, job.id).shared
    press("unshare")
    assert not store.job(root.actor, job.id).shared
    assert client.post(f"/ui/jobs/{job.id}/resume").status_code == 409
    assert client.post(f"/ui/jobs/{job.id}/explode").status_code == 400


def test_a_dub_without_a_file_for_browsers_says_so(output: Path, client: Client) -> None:
    make_job(
        output, "talk", report_of({"es": [line_result(0, "hola")]}, notes=["no MP4: the pictures are VP8"]), mkv=b"x"
    )

    page = Page(client.get("/jobs/talk").text)

    assert page.all("video") == []
    assert [script["src"] for script in page.all("script")] == ["/static/live.js"]
    assert "There is no MP4 of this dub" in page.text
    assert "the pictures are VP8" in page.text


def test_sound_alone_is_played_too(output: Path, client: Client) -> None:
    make_job(output, "song", report_of({"es": [line_result(0, "hola", "late")]}), es_m4a=b"x")

    answer = client.get("/jobs/song/files/song.es.m4a")

    assert answer.headers["content-type"] == "audio/mp4"
    assert 'class="player sound"' in client.get("/jobs/song").text


def test_silence_has_no_figures(output: Path, client: Client) -> None:
    made = report_of({"es": []})
    made["targets"]["es"]["sound"] = {"lufs": float("-inf"), "true_peak_dbtp": None, "note": None}
    make_job(output, "quiet", made, es_mp4=b"x")

    text = Page(client.get("/jobs/quiet").text).text

    assert "– LUFS" in text
    assert "– dBTP" in text
    assert "Lines by speaking rate" not in text


def test_bars_go_from_slow_to_fast_and_what_is_no_range_is_left_out() -> None:
    found = bars({">=1.9": 1, "1.05-1.15": 4, "<0.85": 2, "0.95-1.05": 8, "<script>": 3, "0.85-0.95": 0})

    assert [(bar.label, bar.count, bar.share) for bar in found] == [
        ("under 0.85", 2, 0.25),
        ("0.95 to 1.05", 8, 1.0),
        ("1.05 to 1.15", 4, 0.5),
        ("1.9 and over", 1, 0.125),
    ]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (pages.clock(65.9), "1:05"),
        (pages.clock(3725), "1:02:05"),
        (pages.size(999), "999 B"),
        (pages.size(1_252_849), "1.3 MB"),
        (pages.size(999_999), "1.0 MB"),
        (pages.size(45_000_000_000), "45 GB"),
        (pages.number(-16.04, 1), "−16.0"),
        (pages.number(float("nan")), "–"),
    ],
)
def test_figures_read_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected


def test_hostile_names_and_texts_stay_text(output: Path, client: Client) -> None:
    made = report_of(
        {"es": [line_result(0, HOSTILE, HOSTILE)], HOSTILE: [line_result(0, "x")]},
        source={"name": HOSTILE, "language": HOSTILE, "duration_ms": 1000},
        warnings=[HOSTILE],
        notes=[HOSTILE],
    )
    made["engines"][0] |= dict.fromkeys(("kind", "target", "name", "version", "licence", "note", "reason"), HOSTILE)
    name = HOSTILE.replace("/", "_")
    folder = make_job(output, name, made, es_mp4=b"film", es_vtt=b"WEBVTT", mkv=b"x")

    address = client.path_of(f"/jobs/{quote(name, safe='')}")
    listed = client.get("/ui/jobs").text
    answer = client.get(address)
    page = Page(answer.text)

    assert folder.name == name and listed.count("<script") == 1 and name in Page(listed).text
    assert [script["src"] for script in page.all("script")] == ["/static/live.js", "/static/player.js"]
    assert not [e for e in page.elements if "style" in e[1] or any(key.startswith("on") for key in e[1])]
    assert page.text.count(HOSTILE) >= 8
    assert "49" not in page.text
    assert client.get(str(page.all("video")[0]["src"])).content == b"film"
    refused = client.get(f"{address}?language={quote('<b>no</b>')}")
    assert (refused.status_code, "<b>no" in refused.text) == (404, False)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def talk(output: Path) -> Path:
    """A job with a film of known bytes, and around it what must not be seen."""
    folder = make_job(
        output, "talk", report_of({"es": [line_result(0, "hola")]}), es_mp4=CONTENT, es_srt=b"1", mkv=b"m"
    )
    (output.parent / "secret.es.mp4").write_text("CANARY")
    (output / "loose.es.mp4").write_text("CANARY")
    (folder / "notes.txt").write_text("CANARY")
    (folder / "secret.es.mp4").write_text("CANARY")
    (folder / ".es.mp4").write_text("CANARY")
    (folder / ".work" / "talk.es.mp4").write_text("CANARY")
    (folder / "talk.ca.mp4").symlink_to(output.parent / "secret.es.mp4")
    (folder / "talk.fr.mp4").symlink_to("notes.txt")
    (folder / "talk.de.mp4").mkdir()
    os.mkfifo(folder / "talk.it.mp4")
    outside = make_job(output.parent / "elsewhere", "linked", report_of({}), es_mp4=b"CANARY")
    (output / "linked").symlink_to(outside)
    (output / ".hidden").mkdir()
    make_job(output, "inner", None, es_mp4=b"x")
    return folder


ATTACKS = [
    "/jobs/talk/files/notes.txt",
    "/jobs/talk/files/secret.es.mp4",
    "/jobs/talk/files/.es.mp4",
    "/jobs/talk/files/talk.ca.mp4",
    "/jobs/talk/files/talk.fr.mp4",
    "/jobs/talk/files/talk.de.mp4",
    "/jobs/talk/files/talk.it.mp4",
    "/jobs/talk/files/talk.pt.mp4",
    "/jobs/talk/files/.work",
    "/jobs/talk/files/.work/job.json",
    "/jobs/talk/files/.work%2Fjob.json",
    "/jobs/talk/files/..%2F..%2F..%2Fsecret.es.mp4",
    "/jobs/talk/files/%2e%2e%2f%2e%2e%2floose.es.mp4",
    "/jobs/talk/files/..%5c..%5cloose.es.mp4",
    "/jobs/talk/files/%252e%252e%252floose.es.mp4",
    "/jobs/talk/files/%2Fetc%2Fpasswd",
    "/jobs/talk/files//etc/passwd",
    "/jobs/talk/files/talk.es.mp4%00.txt",
    "/jobs/talk/files/talk.es.mp4%0a",
    "/jobs/talk/files/%ff%fe",
    "/jobs/talk/files/TALK.ES.MP4",
    "/jobs/talk/files/",
    "/jobs/talk/",
    "/ui/jobs/talk",
    "/ui/jobs/..%2f..%2fsecret.es.mp4",
    "/ui/jobs/..%2ftalk/files/talk.es.mp4",
    "/ui/jobs/%2e%2e/files/secret.es.mp4",
    "/ui/jobs/%2Ftmp",
    "/static/..%2ftemplates%2fbase.html",
    "/static/%2e%2e/app.py",
    "/static/.",
    "/docs",
    "/openapi.json",
]


async def ask(client: Client, path: str) -> tuple[int, bytes]:
    """Status and body of a GET whose path arrives as written: a client's library would tidy it first."""
    sent, cookie = [], "; ".join(f"{key}={value}" for key, value in client.cookies.items())
    path = re.sub("^/jobs/talk(?=/|$)", client.path_of("/jobs/talk"), path)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": unquote_to_bytes(path).decode("utf-8", "replace"), "raw_path": path.encode(),
        "query_string": b"", "root_path": "", "headers": [(b"host", b"127.0.0.1:8000"), (b"cookie", cookie.encode())],
        "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    await client.app(scope, receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])  # type: ignore[return-value,misc]


@pytest.mark.parametrize("path", ATTACKS)
def test_what_no_job_produced_does_not_exist(talk: Path, client: Client, path: str) -> None:
    status, body = asyncio.run(ask(client, path))

    # a slash too many is answered with the way to the list's own address, which is not found in turn
    assert status == 404 or (status == 307 and path.endswith("/"))
    assert b"CANARY" not in body
    assert b"root:" not in body


def test_the_attacks_are_against_a_job_that_is_there(talk: Path, client: Client) -> None:
    assert client.get("/jobs/talk/files/talk.es.mp4").content == CONTENT
    assert asyncio.run(ask(client, "/jobs/talk/files/talk.es.mp4")) == (200, CONTENT)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("talk.es.mp4", "video/mp4"),
        ("talk.mkv", "video/x-matroska"),
        ("talk.es.srt", "application/x-subrip; charset=utf-8"),
        ("talk.en.vtt", "text/vtt; charset=utf-8"),
        ("report.json", "application/json"),
        ("job.log", "text/plain; charset=utf-8"),
    ],
)
def test_files_have_their_own_types_and_are_saved_under_their_names(
    real_output: Path, real_client: Client, name: str, expected: str
) -> None:
    client = real_client

    shown, saved = client.get(f"/jobs/talk/files/{name}"), client.get(f"/jobs/talk/files/{name}?download=1")

    assert shown.content == saved.content == (real_output / "talk" / name).read_bytes()
    assert shown.headers["content-type"] == expected
    assert shown.headers["content-disposition"] == f'inline; filename="{name}"'
    assert saved.headers["content-disposition"] == f'attachment; filename="{name}"'
    in_a_sandbox = shown.headers["content-security-policy"].endswith("; sandbox")
    assert in_a_sandbox == (not expected.startswith("video/"))


def test_a_name_of_any_script_survives_a_download(output: Path, client: Client) -> None:
    make_job(output, "año 日本", report_of({"es": []}), es_mp4=b"x")

    answer = client.get(f"/jobs/{quote('año 日本')}/files/{quote('año 日本.es.mp4')}?download=1")

    assert answer.headers["content-disposition"] == f"attachment; filename*=utf-8''{quote('año 日本.es.mp4')}"


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=1000-", 1000, 10239),
        ("bytes=-5", 10235, 10239),
        ("bytes=10000-99999", 10000, 10239),
    ],
)
def test_a_player_gets_the_part_it_asks_for(talk: Path, client: Client, asked: str, first: int, last: int) -> None:
    answer = client.get("/jobs/talk/files/talk.es.mp4", headers={"Range": asked})

    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/10240"
    assert answer.content == CONTENT[first : last + 1]


@pytest.mark.parametrize(("asked", "status"), [("bytes=10240-", 416), ("bytes=abc", 400)])
def test_a_part_that_is_not_there_is_refused(talk: Path, client: Client, asked: str, status: int) -> None:
    assert client.get("/jobs/talk/files/talk.es.mp4", headers={"Range": asked}).status_code == status


def test_a_whole_file_says_that_parts_can_be_had(talk: Path, client: Client) -> None:
    answer = client.head("/jobs/talk/files/talk.es.mp4")

    assert (answer.headers["accept-ranges"], answer.headers["content-length"], answer.content) == (
        "bytes",
        "10240",
        b"",
    )


# --- who may ask, and how -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/ui/jobs",
        "/ui/login",
        "/ui/setup/x",
        "/jobs/talk",
        "/jobs/talk/files/talk.mkv",
        "/static/player.js",
        "/livez",
        "/none",
    ],
)
def test_every_answer_carries_the_headers(talk: Path, client: Client, path: str) -> None:
    headers = client.get(path).headers

    for name in set(HEADERS) - {"Content-Security-Policy"}:
        assert headers[name] == HEADERS[name]
    policy = headers["Content-Security-Policy"]
    assert policy.startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; img-src 'self'"
    )
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil.example", "10.0.0.7:8000", ""]
)
def test_a_name_that_was_made_to_point_here_is_refused(talk: Path, client: Client, host: str) -> None:
    answer = client.get("/", headers={"Host": host})

    assert answer.status_code == 400
    assert "talk" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_the_names_of_this_machine_are_answered(client: Client, host: str) -> None:
    assert client.get("/livez", headers={"Host": host}).text == "ok\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/ui/jobs", "/jobs/talk", "/jobs/talk/files/talk.es.mp4", "/livez"])
def test_there_is_nothing_but_reading(talk: Path, client: Client, method: str, path: str) -> None:
    answer = client.request(method, path)

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) <= {"GET", "HEAD"}


def test_reading_leaves_the_folder_as_it_was(talk: Path, client: Client) -> None:
    def state() -> list[tuple[str, int, int]]:
        return sorted((str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in talk.rglob("*"))

    before = state()
    for path in ("/ui/jobs", "/jobs/talk", "/jobs/talk/files/talk.es.mp4"):
        assert client.get(path).status_code == 200

    assert state() == before


def test_a_defect_is_a_page_without_details() -> None:
    app = FastAPI()
    add_errors(app)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("CANARY")

    answer = TestClient(SecureHeaders(app), raise_server_exceptions=False).get("/broken")

    assert answer.status_code == 500
    assert "Something went wrong inside the program: RuntimeError." in answer.text
    assert "CANARY" not in answer.text
    assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


# --- the command ----------------------------------------------------------------------------------------------------


def test_a_foreign_host_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOST", "192.0.2.1")

    assert server.main(["--pages-only"]) == 2

    assert "The setting HOST has the value '192.0.2.1" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_it_listens_on_this_machine_only(host: str) -> None:
    with server.listen(config.load({"HOST": host, "PORT": "0"}, env_file=None)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.address(listener))


def test_it_listens_on_the_newer_protocol_where_there_is_one() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server.listen(config.load({"HOST": "::1", "PORT": "0"}, env_file=None)) as listener:
        assert server.address(listener).startswith("http://[::1]:")


def test_a_taken_port_is_said_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = config.load({"PORT": str(taken.getsockname()[1])}, env_file=None)
        with pytest.raises(SettingsError, match="cannot be listened on") as caught:
            server.listen(settings)
    assert "PORT=8001 dubbing-web" in caught.value.advice


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(SettingsError, match="PORT"):
        config.load({"PORT": port}, env_file=None)
