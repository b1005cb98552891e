"""The upload page in a real Chromium of a phone's size, on a network and a server that fail in the middle."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dubbing import orders
from dubbing.errors import NotFoundError
from dubbing.jobs import State
from dubbing.store import Upload
from dubbing.web.identity import COOKIE
from tests.browser import QUIET
from tests.web.served import free_port, serving
from tests.web.site import Site
from tests.web.test_pages import VIOLATIONS

PIECE = 8 << 20
SLOW, CRAWL = 3 << 20, 64 << 10
"""Bytes per second: slow enough to fall into, quick enough to wait for; and so slow that a film never arrives."""
DROP = """
const dropped = new DataTransfer();
dropped.items.add(new File(['film'], 'a.mp4', {type: 'video/mp4'}));
document.getElementById('drop').dispatchEvent(new DragEvent('drop', {dataTransfer: dropped, bubbles: true, cancelable: true}));
"""
OFFLINE = "Failed to load resource: net::ERR_"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[..., str]) -> Path:
    """Three seconds of moving pictures without compression: 26 MB."""
    path = tmp_path_factory.mktemp("film") / "walk by the sea.avi"
    source = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=640x360:rate=25:duration=3",
        "-c:v",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
    ]
    subprocess.run([require_program("ffmpeg"), "-v", "error", "-nostdin", *source, path], check=True, timeout=60)
    assert path.stat().st_size > 3 * PIECE
    return path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "Output") as opened:
        opened.user("ana", "user")  # before a browser runs: both want the event loop
        yield opened


class Phone:
    """A page of a phone's size, logged in as ana, and what it complained about."""

    def __init__(self, page: Page, port: int) -> None:
        self.page, self.port = page, port
        self.errors: list[str] = []
        page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.add_init_script(VIOLATIONS)
        self._network = page.context.new_cdp_session(page)
        self._network.send("Network.enable")

    def open(self) -> None:
        self.page.goto(f"http://127.0.0.1:{self.port}/ui/upload")

    def speed(self, bytes_per_s: int, *, offline: bool = False) -> None:
        """Throttle what the page sends; -1 is no limit."""
        facts: dict[str, Any] = {"offline": offline, "latency": 0, "downloadThroughput": -1}
        self._network.send("Network.emulateNetworkConditions", {**facts, "uploadThroughput": bytes_per_s})

    def complaints(self) -> list[str]:
        """What must not be; a browser also logs each request that found no server."""
        return [text for text in self.errors if OFFLINE not in text] + list(self.page.evaluate("window.violations"))


@pytest.fixture
def phone(site: Site, require_program: Callable[..., str]) -> Iterator[Phone]:
    program, port = require_program("chromium", "chromium-browser"), free_port()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
        context.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)
        cookie = {"name": COOKIE, "value": site.session("ana", "user"), "url": f"http://127.0.0.1:{port}"}
        context.add_cookies([cookie])  # type: ignore[list-item]
        yield Phone(context.new_page(), port)
        browser.close()


def uploads(site: Site) -> list[Upload]:
    with site.office.store.read() as connection:
        ids = [row[0] for row in connection.exec_driver_sql("SELECT id FROM upload ORDER BY created_ms")]
    found = []
    for one in ids:
        with contextlib.suppress(NotFoundError):  # the page may have removed it since
            found.append(site.office.store.upload(site.user("ana", "user").id, one))
    return found


def wait_for_a_piece(phone: Phone, site: Site) -> int:
    """Until the server has accepted some of the film; how much. The rest does not come before it is let."""
    phone.speed(SLOW)
    while not uploads(site) or not uploads(site)[-1].received:
        phone.page.wait_for_timeout(20)
    phone.speed(CRAWL)
    (upload,) = uploads(site)
    assert upload.received < upload.size
    return upload.received


def test_a_film_whose_server_died_in_the_middle_arrives_and_waits_in_the_list(
    site: Site, phone: Phone, film: Path
) -> None:
    page = phone.page
    with serving(site.output, phone.port) as server:
        phone.open()
        phone.speed(CRAWL)
        page.set_input_files("#films", film)
        page.locator(".chip", has_text="Español").tap()
        page.get_by_role("button", name="Start").tap()
        expect(page.locator("#waiting")).to_have_text("The dub starts as soon as everything is here.")
        before = wait_for_a_piece(phone, site)
        server.kill()
    expect(page.locator(".how")).to_contain_text("Trying again")

    phone.speed(-1)
    with serving(site.output, phone.port):
        page.wait_for_url("**/ui/jobs/*")
        expect(page.locator("h1")).to_have_text("walk by the sea.avi")
        page.get_by_role("link", name="Dubs").tap()
        expect(page.locator(".jobs li")).to_contain_text("walk by the sea.avi")
        expect(page.locator(".jobs li")).to_contain_text("Waiting")
        assert phone.complaints() == []

    (job,) = site.office.store.jobs(site.user("ana").actor)
    (upload,) = uploads(site)
    assert job.state is State.PENDING and 0 < before < upload.size == film.stat().st_size
    request = orders.from_json(job.request)
    assert request.targets == ("es",) and request.source.read_bytes() == film.read_bytes()


def test_a_reload_goes_on_where_it_stopped_and_a_removed_film_is_gone(site: Site, phone: Phone, film: Path) -> None:
    page = phone.page
    page.on("dialog", lambda dialog: dialog.accept())
    with serving(site.output, phone.port):
        phone.open()
        phone.speed(CRAWL)
        page.set_input_files("#films", film)
        before = wait_for_a_piece(phone, site)
        page.get_by_role("button", name="Pause").tap()
        expect(page.locator(".how")).to_have_text("Paused")
        page.reload()
        expect(page.locator("#unfinished")).to_contain_text("walk by the sea.avi")

        offsets: list[int] = []
        page.on(
            "request",
            lambda r: offsets.append(int(r.headers["upload-offset"])) if r.method == "PATCH" else None,
        )
        phone.speed(-1)
        page.set_input_files("#films", film)
        expect(page.locator("li[data-state=done] .how")).to_contain_text("all here")
        (upload,) = uploads(site)
        assert upload.whole and offsets[0] >= before
        assert (site.office.uploads / upload.id).read_bytes() == film.read_bytes()

        page.get_by_role("button", name="Remove").tap()
        expect(page.locator("#uploads li")).to_have_count(0)
        while uploads(site):
            page.wait_for_timeout(20)
        assert not (site.office.uploads / upload.id).exists()
        assert page.evaluate("localStorage.length") == 0
        assert phone.complaints() == []


def test_what_the_server_refuses_is_said_on_the_page(site: Site, phone: Phone, film: Path, tmp_path: Path) -> None:
    page, ana = phone.page, site.user("ana", "user")
    cues = tmp_path / "no cues.srt"
    cues.write_text("nothing")
    with serving(site.output, phone.port):
        phone.open()
        page.set_input_files("#films", {"name": "empty.mp4", "mimeType": "video/mp4", "buffer": b""})
        expect(page.locator("#trouble")).to_contain_text("empty.mp4 is empty")
        page.evaluate(DROP)
        expect(page.locator("li[data-state=done]")).to_contain_text("a.mp4")
        expect(page.locator("#waiting")).to_have_text("Choose a language to dub into.")
        page.locator(".chip", has_text="Català").tap()
        page.locator("summary").tap()
        page.set_input_files("[name='translation:ca']", cues)
        page.get_by_role("button", name="Start").tap()
        expect(page.locator("#trouble")).to_contain_text("no cues.srt cannot be used: neither SRT nor WebVTT nor ASS")

        site.office.store.change_user(ana.id, role="user", password_hash=None, disabled=False, quota_mb=1)
        page.set_input_files("#films", film)
        expect(page.locator("li[data-state=failed] .how")).to_contain_text("are left of your 1 MB")
        assert [text for text in phone.complaints() if "422" not in text and "413" not in text] == []
