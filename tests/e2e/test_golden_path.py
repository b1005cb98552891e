"""From the first start to a dub on the phone, on the real system: every step by the pages, in a real Chromium."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import segno
from playwright.sync_api import Locator, expect, sync_playwright

from dubbing.jobs import Actor
from dubbing.line_edits import LinesFile, read_lines
from dubbing.store import Store, open_store
from dubbing.web.identity import COOKIE
from tests.browser import QUIET
from tests.e2e import jobs
from tests.e2e.golden import WAIT_S, Guest, House, Town, Walk, client_of, meanwhile
from tests.services import wait_until
from tests.web.test_pages import SIZES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PIECE = 8 << 20
"""Bytes that the upload page sends at once."""
OWNER, OWNERS_PASSWORD = "olga", "the house stands on a hill"
NAME = "Bon dia – Barcelona.mp4"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[..., str]) -> Iterator[Town]:
    """An empty state folder, a server on it, and a Chromium."""
    for program in ("ffmpeg", "apertium", "espeak-ng"):
        require_program(program)
    chromium = require_program("chromium", "chromium-browser")
    house = House(tmp_path_factory.mktemp("house"))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
            yield Town(house, browser)
            browser.close()
        house.end()
    finally:
        house.close()


@pytest.fixture(scope="module")
def film(media_dir: Path, tmp_path_factory: pytest.TempPathFactory, town: Town) -> Path:
    """Ten seconds of somebody speaking, at the bit rate at which phones film: several pieces to send."""
    path = tmp_path_factory.mktemp("film") / NAME
    rate = ["-b:v", "24M", "-minrate", "24M", "-maxrate", "24M", "-bufsize", "4M", "-x264-params", "nal-hrd=cbr"]
    picture = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", *rate, "-c:a", "copy"]
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", media_dir / "od_englishvideo.mp4", *picture, path]
    subprocess.run(command, check=True, timeout=120)
    assert path.stat().st_size > 3 * PIECE
    return path


@pytest.fixture(scope="module")
def owner(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The first administrator, made by the link that the first start prints; the state of his browser."""
    link, folder = town.house.setup_link(), tmp_path_factory.mktemp("setup")
    with town.visit("phone", folder) as walk:
        walk.page.goto(link)
        walk.look("setup")
    with town.visit("desktop", folder) as walk:
        walk.page.goto(link)
        expect(walk.page.locator("h1")).to_have_text("Set up this server")
        walk.look("setup")
        walk.enter(OWNER, OWNERS_PASSWORD, "Set up")
        walk.look("first-page")
        state: Mapping[str, Any] = walk.page.context.storage_state()
        assert walk.page.request.get(link).status == 404, "the link works once"
    return state


def invite(walk: Walk, address: str) -> str:
    """What an administrator does for somebody else; the link."""
    walk.page.goto(f"{address}/ui/jobs")
    walk.link("Administration")
    walk.page.get_by_role("button", name="Make an invitation").wait_for()
    walk.look("users")
    walk.button("Make an invitation")
    code = walk.page.locator("svg.qr path").last
    code.wait_for()
    walk.look("invited")
    link = walk.page.locator(".secret code").inner_text().strip()
    drawn = re.findall(r' d="([^"]+)"', segno.make(link, error="m").svg_inline(omitsize=True, light="#fff"))
    assert code.get_attribute("d") == drawn[-1], "the code should hold the link"
    return link


def join(walk: Walk, link: str, name: str, password: str) -> None:
    """What the invited person does: in, out, and in again."""
    walk.page.goto(link)
    expect(walk.page.locator("h1")).to_have_text("Welcome")
    walk.look("welcome")
    walk.enter(name, password, "Join")
    walk.look("empty-list")
    walk.button("Log out")
    walk.arrive(r"/ui/login$")
    walk.look("login")
    walk.enter(name, password, "Log in")


def begin_upload(walk: Walk, film: Path) -> None:
    """Choose the film and a language, and start; the network breaks in the middle of the second piece."""
    walk.link("Upload a video")
    walk.arrive(r"/ui/upload$")
    walk.look("new-dub")
    walk.press(walk.page.locator(".chip", has_text="Español"))
    walk.page.set_input_files("#films", film)
    walk.button("Start")
    walk.page.locator(".how", has_text="Trying again").wait_for()
    walk.look("cut")


def upload_cut_in_the_middle(town: Town, walk: Walk, film: Path, *, killed: bool) -> None:
    """The film arrives though the network broke (and the server died); what had arrived is not sent again."""
    network, house = town.house.network, town.house
    offsets: list[int] = []
    walk.page.on("request", lambda r: offsets.append(int(r.headers["upload-offset"])) if r.method == "PATCH" else None)
    with walk.without_network():
        network.break_after(PIECE + PIECE // 2)
        begin_upload(walk, film)
        assert offsets == [0, PIECE]
        if killed:
            house.kill()
            house.start()
        before = network.sent
        network.lead_to(house.port)
        walk.arrive(r"/ui/jobs/[0-9a-f]{32}$")
    size = film.stat().st_size
    assert offsets == [0, PIECE, *range(PIECE, size, PIECE)]
    assert size - PIECE < network.sent - before < size - PIECE // 2, "only what was missing should have been sent"
    expect(walk.page.locator("h1")).to_have_text(NAME)


def see_it_made(town: Town, walk: Walk) -> None:
    """The page counts up by itself until the dub is there."""
    town.house.at_work()
    walk.until("document.querySelector('#stages .count') || document.querySelector('#live[data-state^=done]')")
    walk.look("running", whole=False)
    walk.page.locator("#live[data-state^=done]").wait_for(timeout=WAIT_S * 1000)
    walk.page.locator("video").wait_for()


def check_progress(walk: Walk) -> None:
    """At least one load of the page showed stages that grew, up to a whole one."""
    loads = walk.progress()
    print(json.dumps(loads, ensure_ascii=False))
    sums = [sum(done for done, _ in shown.values()) for seen in loads.values() for shown in seen]
    assert any(len(seen) >= 2 for seen in loads.values())
    assert sums == sorted(sums) and sums[-1] > sums[0]


def edit(walk: Walk, number: int, text: str) -> None:
    """Change the words of one line and have it made anew."""
    walk.link("Fix lines")
    line: Locator = walk.page.locator(f"#line-{number}")
    line.wait_for()
    walk.look("lines")
    line.get_by_label(f"Words of line {number}").fill(text)
    walk.press(line.get_by_role("button", name="Save"))
    line.get_by_text("Saved.").wait_for()
    walk.look("saved")
    walk.button("Redo what changed")
    walk.arrive(r"/ui/jobs/[0-9a-f]{32}$")
    walk.look("again", whole=False)


def report_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text()))


def clips(folder: Path) -> dict[int, tuple[str | None, bytes]]:
    """Name and content of the sound of each line."""
    lines: LinesFile = read_lines(folder, "es")
    return {row.line: (row.clip, (folder / row.clip).read_bytes() if row.clip else b"") for row in lines.lines}


def check_film(path: Path, source: Path) -> None:
    """What a player finds in the downloaded film."""
    found = jobs.streams(path)
    assert [stream["codec_type"] for stream in found] == ["video", "audio", "audio", "subtitle", "subtitle"]
    assert [stream["tags"]["language"] for stream in found[1:]] == ["spa", "eng", "spa", "eng"]
    assert [stream["disposition"]["default"] for stream in found[1:]] == [1, 0, 1, 0]
    assert jobs.picture_hash(path) == jobs.picture_hash(source)
    assert abs(jobs.decoded_ms(path, "a") - jobs.decoded_ms(source, "V")) <= 40


@pytest.mark.parametrize("size", SIZES)
def test_a_stranger_is_invited_and_takes_a_dub_home(
    town: Town, owner: Mapping[str, Any], film: Path, size: str, tmp_path: Path
) -> None:
    house, name = town.house, f"guest-{size}"
    folder = house.folder / "Output" / name / Path(NAME).stem
    with town.visit(size, tmp_path, storage_state=owner) as walk:
        link = invite(walk, house.address)
    with town.visit(size, tmp_path) as walk:
        join(walk, link, name, f"{size} fits into no pocket")
        upload_cut_in_the_middle(town, walk, film, killed=size == "desktop")
        see_it_made(town, walk)
        check_progress(walk)
        walk.play()
        assert (walk.film("video.videoWidth"), walk.film("video.videoHeight")) == (1080, 720)
        walk.look("done")
        report, before = report_of(folder), clips(folder)
        assert report["targets"]["es"]["spoken"] == len(before) >= 2

        made = report["targets"]["es"]
        edit(walk, 1, "Hola, esto es algo nuevo.")
        meanwhile(lambda: report_of(folder) != report, walk.page, "the second run")
        see_it_made(town, walk)
        again, after = report_of(folder), clips(folder)
        assert again["calls"]["speak.kept"] == made["lines"] - 1
        assert {number for number in after if after[number] != before[number]} == {1}
        walk.play("Hola, esto es algo nuevo.")
        walk.look("done-again")

        with walk.page.expect_download() as downloading:
            walk.press(walk.page.get_by_role("link", name=re.compile(r"\.es\.mp4")))
        kept = tmp_path / downloading.value.suggested_filename
        downloading.value.save_as(kept)
        walk.link("Dubs")
        walk.arrive("/ui/jobs$")
        walk.look("list")
    assert kept.name == f"{folder.name}.es.mp4"
    assert kept.read_bytes() == (folder / kept.name).read_bytes()
    check_film(kept, film)


# --- two users at once ------------------------------------------------------------------------------------------------

CLIPS = ["ps_librivox_0890.wav", "sb_spk1_snt1.wav", "sb_spk2_snt1.wav"]
CANARY = "jilguero"
"""A word that is spoken in the dubs, and nowhere else."""
PRIORITIES = [20, 50, 50]
"""As submitted; the last job is then put before the others by the owner."""


@dataclass
class Worker:
    """A guest and his jobs, in the order of submission."""

    guest: Guest
    titles: list[str]
    jobs: list[str]

    @property
    def marks(self) -> list[str]:
        """What nobody else may ever read."""
        return [self.guest.name, *self.jobs, *self.titles]

    @property
    def started(self) -> list[str]:
        """His jobs in the order in which they should start."""
        return self.jobs[::-1]


@pytest.fixture
def desk(town: Town, owner: Mapping[str, Any]) -> Iterator[httpx.Client]:
    """The administrator, without a screen."""
    cookie = next(cookie["value"] for cookie in owner["cookies"] if cookie["name"] == COOKIE)
    with client_of(town.house, cookie) as client:
        yield client


@pytest.fixture
def store(town: Town) -> Iterator[Store]:
    """The same database, to read in."""
    with contextlib.closing(open_store(town.house.settings)) as opened:
        yield opened


def hire(town: Town, desk: httpx.Client, store: Store, media: Path, name: str) -> Worker:
    """Invite somebody, let him run one job at a time, and take three of him: the later, the more urgent."""
    link = re.search(r"http://[^<\s]+/ui/invite/[\w-]+", desk.post("/ui/admin/invitations", data={"role": "user"}).text)
    assert link
    worker = Worker(Guest(town.house, link[0], name, f"{name} likes long sentences"), [], [])
    account = store.user_by_name(name)
    form = {"role": "user", "active": "true", "cap": "1"}
    assert desk.post(f"/ui/admin/users/{account.id}", data=form).status_code == 303
    words = {
        "translations": {"es": {"name": "es.srt", "text": jobs.srt([(0, 1500, f"El {CANARY} canta a medianoche.")])}}
    }
    for number, (clip, priority) in enumerate(zip(CLIPS, PRIORITIES, strict=True)):
        worker.titles.append(f"{name} in private {number}.wav")
        given = words if number == 2 else {}
        worker.jobs.append(worker.guest.dub(media / clip, worker.titles[-1], priority=priority, **given))
    form = {"job": worker.jobs[2], "priority": "90"}
    assert desk.post("/ui/admin/queue/priority", data=form).status_code == 303
    return worker


def check_the_log(store: Store, workers: list[Worker]) -> None:
    """Caps hold at every instant, both ran side by side, and each one's jobs started by priority."""
    owner = {job: worker.guest.name for worker in workers for job in worker.jobs}
    running: set[str] = set()
    starts: list[str] = []
    side_by_side = False
    for event in store.events(Actor("test", "admin"), limit=100_000):
        if event.job_id not in owner:
            continue
        if event.kind == "running":
            running.add(event.job_id)
            starts.append(event.job_id)
        elif event.kind not in ("progress", "target", "asked"):
            running.discard(event.job_id)
        whose = [owner[job] for job in running]
        assert len(whose) == len(set(whose)), "nobody may run more than one"
        side_by_side = side_by_side or len(whose) == 2
    assert side_by_side
    for worker in workers:
        assert [job for job in starts if job in worker.jobs] == worker.started


def addresses(worker: Worker) -> set[tuple[str, str]]:
    """(method, address) of everything that his pages and the API's description lead to."""
    found: set[tuple[str, str]] = set()
    paths = worker.guest.http.get("/api/v1/openapi.json").json()["paths"]
    for job in worker.jobs:
        pages = [f"/ui/jobs/{job}", f"/ui/jobs/{job}/lines/es", f"/ui/jobs/{job}/delete"]
        for page in pages:
            html = worker.guest.http.get(page).text
            for name, link in re.findall(r'\b(action|href|src|data-media|data-peaks)="(/[^"]*)"', html):
                if job in link:
                    found.add(("POST" if name == "action" else "GET", unescape(link).partition("#")[0]))
        found |= {("GET", page) for page in [*pages, f"/ui/jobs/{job}/stages", f"/ui/jobs/{job}/row"]}
        found |= {("POST", pages[2]), ("PATCH", f"/api/v1/jobs/{job}/lines/es")}
        file = worker.guest.http.get(f"/api/v1/jobs/{job}/files").json()["files"][0]["name"]
        values = {"job_id": job, "file_name": quote(file), "language": "es", "tag": "es", "action": "share"}
        for path, methods in paths.items():
            if "{job_id}" in path:
                address = re.sub(r"\{(\w+)\}", lambda name: values.get(name[1], "x"), path)  # noqa: B023
                found |= {(method.upper(), address) for method in methods}
    return found


def check_apart(worker: Worker, other: Worker) -> None:
    """Nothing of a worker's exists for the other, whatever he asks for."""
    mine = addresses(worker)
    assert len({method for method, _ in mine}) >= 4 and len(mine) > 20 * len(worker.jobs)
    for method, address in sorted(mine):
        refused = other.guest.http.request(method, address)
        assert refused.status_code == 404, f"{method} {address}"
        if method == "GET" and "/x" not in address:
            assert worker.guest.http.get(address).status_code == 200, address
    for page in ("/ui/jobs", "/ui/jobs?view=shared", f"/ui/jobs?q={worker.guest.name}", "/api/v1/jobs", "/ui/settings"):
        shown = other.guest.http.get(page).text
        assert [mark for mark in worker.marks if mark in shown.replace(f'value="{worker.guest.name}"', "")] == []


def written(house: House) -> dict[str, bytes]:
    """Everything that was written down, but for films and sounds: databases, logs, Ray's own logs, what was said."""
    films = {".mp4", ".mkv", ".wav", ".m4a", ".mka"}
    rays = [path for pid in house.everything for path in Path("/tmp").glob(f"dub-ray-{pid}-*")]
    assert rays, "Ray's folder should have been found"
    kept = {}
    for path in [path for folder in (house.folder, *rays) for path in folder.rglob("*")]:
        if path.is_file() and not path.is_symlink() and path.suffix not in films:
            kept[str(path)] = path.read_bytes()
    said = [line for server in house.servers for line in (*server.out.all, *server.err.all)]
    kept["said"] = "\n".join(line for line in said if "works once" not in line).encode()
    return kept


def check_written(house: House, workers: list[Worker], secrets: list[str]) -> None:
    """No password, session, link or key is on the disk as itself; logs do not know what is spoken in the dubs."""
    files = written(house)
    assert any(path.endswith("access.log") for path in files) and any(".sqlite3" in path for path in files)
    guests = [worker.guest for worker in workers]
    secrets = secrets + [text for guest in guests for text in (guest.password, guest.session, guest.link[-32:])]
    assert all(len(secret) > 15 for secret in secrets)
    assert [(path, secret) for path, data in files.items() for secret in secrets if secret.encode() in data] == []
    logs = {path: data for path, data in files.items() if "/logs/" in path or path == "said"}
    assert [path for path, data in logs.items() if CANARY.encode() in data] == []
    assert any(CANARY.encode() in data for path, data in files.items() if path.endswith(".es.srt"))


def test_two_users_at_once_stay_within_their_caps_and_out_of_each_others_sight(
    town: Town, owner: Mapping[str, Any], desk: httpx.Client, store: Store, media_dir: Path
) -> None:
    town.house.at_work()
    assert desk.post("/ui/admin/queue/pause").status_code == 303
    workers = [hire(town, desk, store, media_dir, name) for name in ("anneliese", "bartholomew")]
    assert desk.post("/ui/admin/queue/resume").status_code == 303
    for worker in workers:
        for job in worker.jobs:
            wait_until(lambda: worker.guest.state(job) not in ("queued", "running"), WAIT_S, "the end")  # noqa: B023
            assert worker.guest.state(job).startswith("done")

    check_the_log(store, workers)
    keys = [worker.guest.key() for worker in workers]
    for worker, other in (workers, workers[::-1]):
        check_apart(worker, other)
    for worker, other in (workers, workers[::-1]):
        heard = worker.guest.leave()
        assert heard.startswith("200\n") and heard.endswith("event: end\ndata: closed\n\n")
        assert all(mark in heard for mark in (*worker.jobs, *worker.titles, '"state":"running"'))
        assert [mark for mark in other.marks if mark in heard] == []
    sessions = [cookie["value"] for cookie in owner["cookies"]]
    check_written(town.house, workers, [*keys, *sessions, OWNERS_PASSWORD, town.house.setup_link()[-32:]])
