"""The pages keep themselves up to date, in a real Chromium: by the stream, and by questions where it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from dubbing.jobs import Job
from dubbing.store import Fence
from dubbing.web.identity import COOKIE
from tests.browser import QUIET
from tests.web.conftest import line_result, make_job, report_of
from tests.web.server import Running, served
from tests.web.site import Site
from tests.web.test_pages import SMALL, VIOLATIONS, until

STATE = "document.querySelector('#live .state')?.textContent"


@dataclass(frozen=True, slots=True)
class World:
    """A server with a browser in front of it."""

    site: Site
    running: Running
    browser: Browser
    where: dict[str, str] = field(default_factory=dict)
    """What a run says of the place it is at work in."""

    def context(self, name: str) -> BrowserContext:
        context = self.browser.new_context(viewport={"width": 360, "height": 740})
        context.set_default_timeout(30_000)
        secret = self.site.session(name, "user")
        context.add_cookies([{"name": COOKIE, "value": secret, "url": self.running.address}])
        context.add_init_script(VIOLATIONS)
        return context

    def submit(self, name: str) -> Job:
        actor = self.site.user(name).actor
        return self.site.office.store.submit(actor, {"source": f"/films/{name}.mp4", "targets": ["es"]})[0]

    def start(self, job: Job) -> Fence:
        fence = Fence(job.id, job.epoch + 1, self.site.office.store.in_charge().backend_epoch)
        assert self.site.office.store.take(fence, owner="test", ttl_ms=600_000)
        return fence

    def progress(self, fence: Fence, done: int) -> None:
        stage = {"stage": "speak", "target": "es", "done": done, "total": 20, "eta_s": 3.0, "note": ""}
        assert self.site.office.store.report_progress(fence, {"stages": [stage]} | self.where)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[..., str]) -> Iterator[World]:
    program = require_program("chromium", "chromium-browser")
    with (
        Site(tmp_path_factory.mktemp("pages") / "Output") as site,
        served(site) as running,
        sync_playwright() as playwright,
    ):
        for name in ("ana", "bea", "cleo", "dan", "eve", "fay"):
            in_thread(lambda name=name: site.user(name))
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield World(site, running, browser)
        browser.close()


def in_thread(act: Callable[[], object]) -> None:
    """Playwright has a loop in this thread, and hashing a password wants one of its own."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def marked(page: Page) -> Page:
    """The page will tell whether it was loaded anew."""
    page.evaluate("window.marked = true")
    return page


def test_the_list_shows_new_jobs_their_progress_and_their_end_in_place(world: World, tmp_path: Path) -> None:
    page = world.context("ana").new_page()
    page.goto(f"{world.running.address}/ui/jobs")
    marked(page)

    job = world.submit("ana")
    row = f"document.querySelector('li[data-job=\"{job.id}\"]')"
    until(page, f"{row}?.textContent.includes('Waiting')")
    fence = world.start(job)
    until(page, f"{row}.textContent.includes('Running')")
    assert page.locator("#said").text_content() == "ana.mp4: Running"
    page.locator(f'li[data-job="{job.id}"] a').focus()
    world.progress(fence, 7)
    until(page, f"{row}.querySelector('.far').textContent === 'speak 35 %'")
    page.screenshot(path=tmp_path / "list.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    world.site.office.store.finish(fence, {"report": "/x/report.json", "files": {}, "warnings": []})
    until(page, f"{row}.textContent.includes('Done')")

    assert page.evaluate("document.activeElement.closest('li')?.dataset.job") == job.id
    assert page.evaluate("window.marked") and page.evaluate("window.violations") == []


def test_a_jobs_page_shows_its_stages_in_place_and_its_dub_at_the_end(world: World, tmp_path: Path) -> None:
    job = world.submit("bea")
    page, errors = world.context("bea").new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{world.running.address}/ui/jobs/{job.id}")
    marked(page)

    fence = world.start(job)
    until(page, f"{STATE} === 'Running'")
    for done in (3, 12):
        world.progress(fence, done)
        until(page, f"document.querySelector('#stages .count')?.textContent.startsWith('{done}/20')")
    page.screenshot(path=tmp_path / "stages.png")
    assert page.locator("#said").text_content() == "Running"
    assert page.evaluate(SMALL) == [] and page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("window.marked")
    folder = make_job(world.site.output, "bea", report_of({"es": [line_result(0, "hola")]}), es_mp4=b"film")
    world.site.office.store.finish(fence, {"report": str(folder / "report.json"), "files": {}, "warnings": []})
    page.locator("#player").wait_for()  # the page was loaded anew
    assert page.evaluate(STATE) == "Done"

    assert errors == [] and page.evaluate("window.violations") == []


def test_the_log_the_files_and_the_preview_of_a_running_job_come_by_themselves(world: World, tmp_path: Path) -> None:
    job = world.submit("fay")
    page = world.context("fay").new_page()
    page.goto(f"{world.running.address}/ui/jobs/{job.id}")
    marked(page)
    fence = world.start(job)
    folder = make_job(world.site.output, "fay", None)
    ours = replace(world, where={"folder": str(folder)})
    words = "document.querySelector('#log pre')?.textContent"

    (folder / "job.log").write_text("first\n")
    ours.progress(fence, 1)
    until(page, f"{words} === 'first'")
    page.locator("#log summary").click()
    (folder / "job.log").write_text("\n".join(["first", *map(str, range(99)), "last"]))
    (folder / "fay.en.srt").write_text("1")
    ours.progress(fence, 2)
    until(page, f"{words}.endsWith('last')")
    assert page.locator("#log details").get_attribute("open") is not None
    assert page.evaluate(
        "(({scrollTop, clientHeight, scrollHeight}) => scrollTop + clientHeight >= scrollHeight - 2)(document.querySelector('#log pre'))"
    )
    page.get_by_role("link", name="fay.en.srt").wait_for()

    (folder / "fay.preview.es.mp4").write_bytes(b"")
    ours.progress(fence, 3)
    page.locator("#preview video").wait_for()
    page.evaluate("document.querySelector('#preview video').marked = true")
    ours.progress(fence, 4)
    until(page, "document.querySelector('#stages .count').textContent.startsWith('4/20')")
    page.screenshot(path=tmp_path / "running.png", full_page=True)
    assert page.evaluate("document.querySelector('#preview video').marked"), "a film that plays must not be replaced"
    assert page.evaluate(SMALL) == [] and page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("window.marked") and page.evaluate("window.violations") == []


def test_where_streams_fail_the_page_asks_by_itself(world: World) -> None:
    job = world.submit("cleo")
    page = world.context("cleo").new_page()
    page.route("**/api/v1/events", lambda route: route.abort())
    page.goto(f"{world.running.address}/ui/jobs/{job.id}")
    marked(page)

    fence = world.start(job)
    world.progress(fence, 5)

    until(page, "document.querySelector('#stages .count')?.textContent.startsWith('5/20')")
    assert page.evaluate("window.marked")


def test_two_windows_of_one_session_are_both_kept_up_to_date(world: World) -> None:
    context, job = world.context("dan"), world.submit("dan")
    pages = [context.new_page(), context.new_page()]
    for page in pages:
        page.goto(f"{world.running.address}/ui/jobs/{job.id}")

    world.start(job)

    for page in pages:
        until(page, f"{STATE} === 'Running'")


def test_a_page_that_is_seen_again_asks_at_once(world: World) -> None:
    job = world.submit("eve")
    page = world.context("eve").new_page()
    page.goto(f"{world.running.address}/ui/jobs/{job.id}")
    turn = """(state) => {
      Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});
      document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(turn, "hidden")
    world.start(job)
    page.route("**/api/v1/events", lambda route: route.abort())
    assert page.evaluate(STATE) == "Waiting"

    with page.expect_request(f"**/ui/jobs/{job.id}/stages"):
        page.evaluate(turn, "visible")
    until(page, f"{STATE} === 'Running'")
