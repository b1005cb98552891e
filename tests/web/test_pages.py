"""The pages in a real Chromium, as a phone and as a desktop: a dub is found, played, switched, and nothing is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from dubbing import voicebook
from dubbing.errors import NoAudioError
from dubbing.media import wav
from dubbing.store import Fence
from dubbing.types import Voice
from dubbing.web import interpreter
from dubbing.web.identity import COOKIE
from tests.browser import QUIET
from tests.web.conftest import environment, line_result, make_job, report_of
from tests.web.site import Site

SIZES = {"phone": (360, 740), "desktop": (1280, 900)}
LONG_NAME = "A_rather_long_name_of_a_lecture_without_any_space_recorded_on_a_phone"
NO_ORIGINAL = "recording"
VIOLATIONS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (e) => window.violations.push(`${e.violatedDirective} ${e.blockedURI}`));
"""
SEEKS = """
window.seeks = [];
document.querySelector('video').addEventListener('seeked', (e) => window.seeks.push(e.target.currentTime));
"""
SMALL = """
[...document.querySelectorAll('a, button, input, select, textarea, summary')]
  .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44)
  .map((e) => e.outerHTML)
"""
# the relative luminance and the contrast of WCAG 2, over every text that is shown
FAINT = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return getComputedStyle(e).backgroundColor;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility()
    && [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim()));
  const contrasts = texts.map((e) => {
    const style = getComputedStyle(e);
    const [a, b] = [luminance(e.namespaceURI.endsWith('svg') ? style.fill : style.color), luminance(ground(e))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML];
  });
  return {texts: contrasts.length, faint: contrasts.filter(([contrast]) => contrast < 4.5)};
})()
"""
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
# every rule of WCAG 2.0 and 2.1 at A and AA, and what else its makers advise
UNFIT = """
async () => {
  const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'];
  const found = await axe.run(document, {runOnly: rules, resultTypes: ['violations']});
  return [found.passes.length, found.violations.map((v) => `${v.id} (${v.help}): ${v.nodes.map((n) => n.html).join(' ')}`)];
}
"""
INVITE = "an-invitation-that-everybody-may-look-at"


@dataclass
class Seen:
    """What a browser complained about."""

    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Served:
    """A running server and who is logged in there."""

    address: str
    site: Site
    cookie: str

    def at(self, path: str) -> str:
        """The whole address; jobs are named by their folders."""
        return self.address + self.site.path(path)


@pytest.fixture(scope="module")
def served(real_output: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`dubbing-web` over a film of `dub run` and jobs of every other kind."""
    output = tmp_path_factory.mktemp("served") / "Output"
    shutil.copytree(real_output, output)
    lines = [line_result(i, f"Línea {i}, que es larga", *(["late", "over_limit"] if i % 3 else [])) for i in range(9)]
    warnings = ["es: 6 of 9 lines start more than a second late: 2, 3, 5, 6, 8, 9"]
    made = report_of({"es": lines}, state="done_with_warnings", warnings=warnings)
    make_job(output, LONG_NAME, made, mkv=b"x")
    make_job(output, "interview", None)
    make_job(output, NO_ORIGINAL, made, es_mp4=b"")
    settings = environment(DUBBING_OUTPUT_DIR=str(output), PORT="0", QUEUE_MODE="fallback")
    command = [sys.executable, "-m", "dubbing.web.server", "--pages-only"]
    with (
        Site(output) as site,
        subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout and process.stderr
            address = process.stdout.readline().split()[1].rstrip("/")
            for name in (LONG_NAME, "interview", NO_ORIGINAL, "talk"):
                site.id_of(name)
            add_unfinished(site)
            site.office.store.add_invite(INVITE, "viewer", by=site.user("root", "admin").actor)
            tell_of_voices(site)
            yield Served(address, site, site.session())
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=90) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def tell_of_voices(site: Site) -> None:
    """Voices as a worker writes them down: one has a sample, one waits for it, one is root's own."""
    state = site.office.settings.state
    voices = [Voice(f"es+{name}", "espeak-ng", "es", f"Spanish ({name})", natural=False) for name in ("klatt", "f2")]
    voices += [Voice(f"A rather long name {number}", "xtts-v2", "es") for number in range(2)]
    voicebook.write(state, voices)
    voicebook.grant(state, voices[0], wav.header(8000, 1, 8000) + bytes(8000))
    voicebook.wish(state, voices[2])
    site.office.store.prefer(site.user("root", "admin").id, "voice:es", "espeak-ng es+f2")


def add_unfinished(site: Site) -> None:
    """A job that runs, and one that failed."""
    store, root = site.office.store, site.user("root", "admin")
    for name in ("under-way", "mute"):
        job, _ = store.submit(root.actor, {"source": f"/films/{name}.mp4", "targets": ["es"]}, targets=("es",))
        fence = Fence(job.id, job.epoch + 1, store.in_charge().backend_epoch)
        assert store.take(fence, owner="test", ttl_ms=3_600_000)
        stage = {"stage": "speak", "target": "es", "done": 3, "total": 20, "eta_s": 90.0, "note": ""}
        assert store.report_progress(fence, {"stages": [stage]})
        if name == "mute":
            assert store.fail(fence, NoAudioError(name="mute.mp4").as_dict())
        site.jobs[name] = job.id


@pytest.fixture(scope="module")
def browsers(require_program: Callable[..., str]) -> Iterator[Callable[..., Browser]]:
    """`browsers(*flags)` starts Chromium, once for each set of flags."""
    program = require_program("chromium", "chromium-browser")
    started: dict[tuple[str, ...], Browser] = {}
    with sync_playwright() as playwright:

        def start(*flags: str) -> Browser:
            if flags not in started:
                started[flags] = playwright.chromium.launch(executable_path=program, args=[*QUIET, *flags])
            return started[flags]

        yield start
        for browser in started.values():
            browser.close()


def open_page(
    served: Served, browser: Browser, size: str, script: bool = True, known: bool = True
) -> tuple[Page, Seen]:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        has_touch=size == "phone",
        java_script_enabled=script,
    )
    context.set_default_timeout(90_000)
    if known:
        context.add_cookies([{"name": COOKIE, "value": served.cookie, "url": served.address}])
    page, seen = context.new_page(), Seen()
    page.add_init_script(VIOLATIONS)
    page.on(
        "console", lambda message: seen.errors.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    return page, seen


def complaints(page: Page, seen: Seen) -> list[str]:
    return [*seen.errors, *page.evaluate("window.violations")]


def until(page: Page, condition: str, within_s: float = 90.0) -> None:
    """Wait for a condition of the page, which may be on its way to another page; Playwright's own way needs eval,
    which the pages forbid."""
    deadline, said = time.monotonic() + within_s, ""
    while time.monotonic() < deadline:
        try:
            if page.evaluate(f"() => Boolean({condition})"):
                return
        except Error as error:
            said = error.message
        page.wait_for_timeout(20)
    raise AssertionError(f"{condition} never came true {said}")


def unfit(page: Page) -> list[str]:
    """What axe-core has against a page with everything unfolded."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.evaluate(f"{AXE}; null")
    passed, found = page.evaluate(UNFIT)
    assert passed > 10
    return [f"{violation} at {page.url}, {page.evaluate('innerWidth')} px" for violation in found]


def time_of(page: Page) -> float:
    return float(page.evaluate("document.querySelector('video').currentTime"))


@pytest.mark.parametrize("size", SIZES)
def test_a_dub_is_found_played_and_switched(
    served: Served, browsers: Callable[..., Browser], size: str, tmp_path: Path
) -> None:
    page, seen = open_page(served, browsers(), size)
    page.goto(served.at("/"))
    page.screenshot(path=tmp_path / "list.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate(SMALL) == []

    page.get_by_role("link", name="talk").click()
    until(page, "document.querySelector('video').readyState >= 1")
    assert page.evaluate("document.querySelector('video').videoWidth") == 640
    page.screenshot(path=tmp_path / "job.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate(SMALL) == []

    page.evaluate("document.querySelector('video').play()")
    until(page, "document.querySelector('video').currentTime > 1")
    assert page.evaluate("document.querySelector('video').textTracks[0].cues[0].text").startswith("[es]")

    assert page.locator("#dub-1 svg.loudness polyline").count() == 2

    page.evaluate(SEEKS)
    before = time_of(page)
    page.get_by_role("link", name="Català", exact=True).click()
    until(page, "document.querySelector('video').currentSrc.endsWith('/talk.ca.mp4') && window.seeks.length")
    assert page.evaluate("window.seeks[0]") >= before
    until(page, "document.querySelector('video').currentTime > window.seeks[0]")
    assert not page.evaluate("document.querySelector('video').paused")
    until(page, "document.querySelector('video').textTracks[0].cues?.[0]?.text.startsWith('[ca]')")
    assert page.evaluate("document.querySelector('video').textTracks[0].mode") == "showing"
    assert [page.locator(f"#dub-{n}").is_visible() for n in (1, 2)] == [False, True]
    assert page.url.endswith("?language=ca")

    page.evaluate("document.querySelector('video').pause()")
    line = page.locator("#dub-2 [data-seek]").last
    page.evaluate("document.querySelector('video').currentTime = 0")
    line.click()
    wanted = float(line.get_attribute("data-seek") or "nan")
    until(page, f"document.querySelector('video').currentTime > {wanted}")
    assert page.locator("video").bounding_box()["y"] >= 0  # type: ignore[index]
    page.screenshot(path=tmp_path / "switched.png")

    assert complaints(page, seen) == []


# what is really heard, by an analyser between the film and the loudspeaker: the share of the energy around 220 Hz
LISTEN = """
window.listen = async (seconds) => {
  const video = document.querySelector('video');
  if (!window.analyser) {
    const context = new AudioContext();
    window.analyser = new AnalyserNode(context, {fftSize: 8192, smoothingTimeConstant: 0});
    context.createMediaElementSource(video).connect(window.analyser).connect(context.destination);
    await context.resume();
  }
  const hertz = window.analyser.context.sampleRate / window.analyser.fftSize;
  const bins = new Float32Array(window.analyser.frequencyBinCount);
  let around = 0, all = 0;
  for (const end = video.currentTime + seconds; video.currentTime < end && !video.ended;) {
    await new Promise((done) => setTimeout(done, 30));
    window.analyser.getFloatFrequencyData(bins);
    bins.forEach((level, i) => {
      const energy = 10 ** (level / 10);
      all += energy;
      if (Math.abs(i * hertz - 220) < 20) around += energy;
    });
  }
  return all ? around / all : 0;
};
// where the film was at a click, and where the page let it go on: a film that plays is further when an event comes in
document.addEventListener('click', () => { window.clicked = document.querySelector('video').currentTime; }, true);
const own = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, 'currentTime');
Object.defineProperty(document.querySelector('video'), 'currentTime', {
  get: own.get,
  set(value) { window.asked = value; own.set.call(this, value); },
});
"""
SPOKEN_FROM_S = 9.9
"""A long line of the dub, a tone, lies here; the original is silent, or speaks."""


def heard(page: Page) -> float:
    """Share of the fake voice's tone in what is heard where it speaks."""
    page.evaluate(f"document.querySelector('video').currentTime = {SPOKEN_FROM_S}")
    page.evaluate("document.querySelector('video').play()")
    return float(page.evaluate("window.listen(0.8)"))


@pytest.mark.parametrize("size", SIZES)
def test_the_sound_is_changed_to_the_original_and_back_at_the_same_place(
    served: Served, browsers: Callable[..., Browser], size: str
) -> None:
    page, seen = open_page(served, browsers(), size)
    page.goto(served.at("/jobs/talk"))
    page.evaluate(LISTEN)
    page.evaluate(SEEKS)
    until(page, "document.querySelector('video').readyState >= 1")
    dub = heard(page)
    modes = "[...document.querySelector('video').textTracks].map((track) => [track.language, track.mode]).sort().join()"
    page.evaluate(
        "for (const t of document.querySelector('video').textTracks) t.mode = t.language === 'en' ? 'showing' : 'disabled'"
    )

    page.evaluate("document.querySelector('video').currentTime = 1")
    until(page, "document.querySelector('video').currentTime > 1.2")
    kept = []
    for name in ("Original", "Dub", "Original"):
        page.evaluate("window.seeks.length = 0")
        page.get_by_role("link", name=name, exact=True).click()
        until(page, "window.seeks.length && document.querySelector('video').currentTime > window.seeks[0]")
        kept.append(page.evaluate("window.asked - window.clicked"))
        assert page.evaluate("window.seeks[0] >= window.asked - 0.1")
        wanted = "/talk.es.mp4?sound=original" if name == "Original" else "/talk.es.mp4"
        assert page.evaluate("document.querySelector('video').currentSrc").endswith(wanted)
        assert page.locator(".sounds [aria-current]").inner_text() == name
        assert not page.evaluate("document.querySelector('video').paused")
    assert all(abs(moved) < 0.3 for moved in kept), kept
    assert page.evaluate(modes) == "en,showing,es,disabled"
    original = heard(page)
    print(f"share of the voice's tone: dub {dub:.2f}, original {original:.2f}")
    assert dub > 0.5 and original < 0.2

    page.evaluate("document.querySelector('video').pause()")
    page.evaluate("window.seeks.length = 0")
    page.get_by_role("link", name="Català", exact=True).click()
    until(
        page,
        "document.querySelector('video').currentSrc.endsWith('/talk.ca.mp4?sound=original') && window.seeks.length",
    )
    assert abs(page.evaluate("window.seeks[0] - window.clicked")) < 0.3, "it is paused, and stays where it is"
    assert page.evaluate("document.querySelector('video').paused")
    assert page.url.endswith("?language=ca&sound=original")
    assert page.evaluate(modes) == "ca,hidden,en,showing"
    page.evaluate("document.querySelector('video').textTracks[0].mode = 'showing'")
    until(page, "document.querySelector('video').textTracks[0].cues?.[0]?.text.startsWith('[ca]')")
    page.evaluate("window.seeks.length = 0")
    page.get_by_role("link", name="Dub", exact=True).click()
    until(page, "document.querySelector('video').currentSrc.endsWith('/talk.ca.mp4') && window.seeks.length")
    assert heard(page) > 0.5
    assert page.url.endswith("?language=ca") and complaints(page, seen) == []


def test_without_scripts_the_original_is_a_page_of_its_own(served: Served, browsers: Callable[..., Browser]) -> None:
    page, seen = open_page(served, browsers(), "phone", script=False)
    page.goto(served.at("/jobs/talk"))

    page.get_by_role("link", name="Original", exact=True).click()
    page.wait_for_url("**/ui/jobs/*?language=es&sound=original")

    assert (page.locator("video").get_attribute("src") or "").endswith("/talk.es.mp4?sound=original")
    assert seen.errors == []


def test_a_film_whose_original_no_browser_plays_says_where_it_is(
    served: Served, browsers: Callable[..., Browser]
) -> None:
    page, _ = open_page(served, browsers(), "phone")
    page.goto(served.at(f"/jobs/{NO_ORIGINAL}"))

    assert page.locator("#one-sound").is_visible()
    assert not page.get_by_role("link", name="Original", exact=True).is_visible()


@pytest.mark.parametrize(
    "path",
    [
        "/ui/jobs",
        "/ui/login?next=x",
        "/ui/upload",
        "/jobs/talk",
        "/jobs/talk/lines/es",
        f"/jobs/{LONG_NAME}",
        "/jobs/interview",
        "/jobs/under-way",
        "/jobs/mute",
        "/jobs/talk/delete",
        f"/ui/invite/{INVITE}",
        "/ui/voices?language=es&said=kept",
        "/ui/settings?said=password",
        "/ui/admin?said=changed",
        "/ui/admin/queue",
        "/ui/admin/readiness",
        "/ui/admin/audit",
        "/none",
    ],
)
def test_every_text_can_be_read_and_every_page_fits_a_phone(
    served: Served, browsers: Callable[..., Browser], path: str, tmp_path: Path
) -> None:
    page, _ = open_page(served, browsers(), "phone", known="/login" not in path)
    page.goto(served.at(path))
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        found = page.evaluate(FAINT)
        assert found["texts"] >= 5
        assert found["faint"] == []
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert len(grounds) == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(SMALL) == []
    assert page.evaluate("window.violations") == []
    assert unfit(page) == []

    page.set_viewport_size({"width": 1280, "height": 900})
    assert unfit(page) == []

    page.set_viewport_size({"width": 360, "height": 740})
    page.context.add_cookies([{"name": interpreter.COOKIE, "value": "es", "url": served.address}])
    page.reload()
    page.screenshot(path=tmp_path / "es.png", full_page=True)
    assert page.evaluate("document.documentElement.lang") == "es"
    assert unfit(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(SMALL) == []


def test_the_pages_can_be_installed_on_a_phone(served: Served, browsers: Callable[..., Browser]) -> None:
    page, seen = open_page(served, browsers(), "phone")
    page.goto(served.at("/"))
    ask = page.context.new_cdp_session(page).send

    manifest = ask("Page.getAppManifest")
    icons = {icon["src"]: icon["sizes"] for icon in json.loads(manifest["data"])["icons"]}
    drawn = """async ([src]) => { const image = new Image(); image.src = src; await image.decode();
                                  return `${image.naturalWidth}x${image.naturalHeight}` }"""

    hindrances = {error["errorId"] for error in ask("Page.getInstallabilityErrors")["installabilityErrors"]}
    assert manifest["errors"] == [] and hindrances <= {"in-incognito"}, "contexts of tests are private windows"
    assert {src: page.evaluate(drawn, [src]) for src in icons if src.endswith("png")} == {
        "/static/icon-192.png": icons["/static/icon-192.png"],
        "/static/icon-512.png": icons["/static/icon-512.png"],
    }
    assert complaints(page, seen) == []


def test_what_is_unfit_would_be_found(served: Served, browsers: Callable[..., Browser]) -> None:
    page, _ = open_page(served, browsers(), "phone")
    page.goto(served.at("/ui/settings"))
    page.evaluate("document.querySelector('h1').outerHTML = '<img src=/static/icon.svg><h4>Faint</h4>'")
    page.evaluate("Object.assign(document.querySelector('h4').style, {color: '#999', background: '#fff'})")

    assert {violation.split()[0] for violation in unfit(page)} >= {"image-alt", "color-contrast"}


def test_a_sample_that_is_spoken_meanwhile_can_be_played_without_a_reload(
    served: Served, browsers: Callable[..., Browser]
) -> None:
    state = served.site.office.settings.state
    voice = voicebook.read(state).voices["es"][3]
    voicebook.wish(state, voice)
    page, seen = open_page(served, browsers(), "phone")
    page.goto(served.at("/ui/voices?language=es"))
    place = page.locator(f"#v-{voicebook.key_of(voice)} .sample")
    assert place.inner_text() == "is being spoken"

    voicebook.grant(state, voice, wav.header(8000, 1, 8000) + bytes(8000))
    place.locator("audio").wait_for(timeout=60_000)
    until(page, f"document.querySelector('#v-{voicebook.key_of(voice)} audio').duration === 0.5", 60)

    assert page.evaluate("window.violations") == []
    assert [error for error in seen.errors if "404" not in error] == []


def test_an_invitation_is_shown_as_a_link_and_a_code_and_nothing_is_refused(
    served: Served, browsers: Callable[..., Browser], tmp_path: Path
) -> None:
    page, seen = open_page(served, browsers(), "phone")
    page.emulate_media(color_scheme="dark")
    page.goto(served.at("/ui/admin"))
    page.locator("summary").first.click()
    page.screenshot(path=tmp_path / "users.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(SMALL) == []
    page.get_by_role("button", name="Make an invitation").click()

    code = page.locator("svg.qr")
    code.wait_for()
    box = code.bounding_box()
    assert box and 150 < box["width"] <= 360 and abs(box["width"] - box["height"]) < 1
    assert "/ui/invite/" in page.locator("code").inner_text()
    page.screenshot(path=tmp_path / "invited.png", full_page=True)
    assert page.evaluate(FAINT)["faint"] == []
    assert unfit(page) == []
    assert complaints(page, seen) == []


def test_a_new_key_is_shown_once_and_fits(served: Served, browsers: Callable[..., Browser], tmp_path: Path) -> None:
    page, seen = open_page(served, browsers(), "phone")
    page.goto(served.at("/ui/settings"))
    page.get_by_label("Name of the new key").fill("script")
    page.get_by_role("button", name="Make a key").click()

    page.get_by_role("heading", name="Your new API key").wait_for()
    page.screenshot(path=tmp_path / "key.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert unfit(page) == []
    assert complaints(page, seen) == []


def test_without_scripts_everything_can_be_read_and_the_language_changed(
    served: Served, browsers: Callable[..., Browser]
) -> None:
    page, seen = open_page(served, browsers(), "phone", script=False)
    page.goto(served.at("/jobs/talk"))

    page.get_by_role("link", name="Català", exact=True).click()
    page.wait_for_url("**/ui/jobs/*?language=ca")

    assert page.locator("#dub-2").is_visible()
    assert page.locator("video").get_attribute("src") == served.site.path("/jobs/talk/files/talk.ca.mp4")
    assert seen.errors == []


def test_a_line_opens_the_film_at_its_time_without_scripts(served: Served, browsers: Callable[..., Browser]) -> None:
    page, _ = open_page(served, browsers(), "desktop")
    page.goto(served.at("/jobs/talk/files/talk.es.mp4#t=2"))

    until(page, "document.querySelector('video').currentTime >= 2")


@pytest.mark.parametrize("size", SIZES)
def test_a_line_is_heard_changed_locked_and_sent_to_be_made_anew(
    served: Served, browsers: Callable[..., Browser], size: str, tmp_path: Path
) -> None:
    page, seen = open_page(served, browsers(), size)
    page.goto(served.at("/jobs/talk"))
    page.get_by_role("link", name="Fix lines").click()
    line = page.locator("#line-2")
    line.get_by_text("Voice, speaker, time").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate(SMALL) == []
    page.evaluate("document.querySelector('#line-2 audio').play()")
    until(page, "document.querySelector('#line-2 audio').currentTime > 0.1")
    if size == "desktop":
        inked = "[...strip.getContext('2d').getImageData(0, 0, strip.width, strip.height).data].some((v) => v)"
        until(page, f"strip.width > 600 && {inked}")
        page.locator("#strip").click(position={"x": 780, "y": 50})
        assert page.evaluate("document.activeElement.name") == "text"

    line.get_by_label("Words of line 2").fill(f"Me llamo Robin, {size}.")
    line.get_by_label("Starts").fill("9:00")
    line.get_by_role("button", name="Save").click()
    line.get_by_text("it would end").wait_for()
    assert "409" not in line.inner_text() and line.get_by_label("Starts").input_value() == "9:00"
    line.get_by_label("Starts").fill("0:01.100")
    line.get_by_label("Lock").check()
    line.get_by_role("button", name="Save").click()
    line.get_by_text("Saved.").wait_for()
    page.screenshot(path=tmp_path / "lines.png", full_page=True)
    page.get_by_role("link", name="Changed").click()
    assert page.locator(".editor > li").count() == 1
    assert page.locator("#line-2 textarea").input_value() == f"Me llamo Robin, {size}."
    line.get_by_label("Lock").uncheck()
    line.get_by_role("button", name="Another reading").click()
    line.get_by_text("Saved.").wait_for()

    refusals = [message for message in seen.errors if "422" in message]
    assert len(refusals) == 1 and seen.errors == refusals
    assert page.evaluate("window.violations") == []
    line.get_by_role("button", name="Take back").click()
    page.get_by_text("Nothing waits to be made anew").wait_for()


def test_without_scripts_a_line_is_saved_and_the_page_comes_back_to_it(
    served: Served, browsers: Callable[..., Browser]
) -> None:
    page, _ = open_page(served, browsers(), "phone", script=False)
    page.goto(served.at("/jobs/talk/lines/es"))

    page.locator("#line-1 textarea").fill("Muy buenos días.")
    page.locator("#line-1").get_by_role("button", name="Save").click()
    page.wait_for_url("**/lines/es?show=all&page=1#line-1")

    assert page.locator("#line-1 textarea").input_value() == "Muy buenos días."
    page.locator("#line-1").get_by_role("button", name="Take back").click()
    page.get_by_text("Nothing waits to be made anew").wait_for()


def test_the_server_says_nothing_of_itself(served: Served) -> None:
    with urlopen(served.at("/livez")) as answer:
        assert answer.read() == b"ok\n"
        assert answer.headers["Server"] is None
