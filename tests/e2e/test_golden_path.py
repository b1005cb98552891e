"""From the first start to a dub on the phone, on the real system: every step by the pages, in a real Chromium."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import segno
from playwright.sync_api import Locator, expect, sync_playwright

from dubbing import subtitles
from dubbing.line_edits import LinesFile, read_lines
from tests.browser import QUIET
from tests.e2e import jobs
from tests.e2e.golden import WAIT_S, House, Town, Walk, meanwhile
from tests.services import wait_until
from tests.web.test_pages import SIZES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

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
    walk.until("document.querySelector('#stages .count') || document.querySelector('video')")
    walk.look("running")
    walk.page.locator("video").wait_for(timeout=WAIT_S * 1000)


def check_progress(walk: Walk) -> None:
    """At least one load of the page showed stages that grew, up to a whole one."""
    loads = walk.progress()
    print(json.dumps(loads, ensure_ascii=False))
    sums = [sum(done for done, _ in shown.values()) for seen in loads.values() for shown in seen]
    assert any(len(seen) >= 3 for seen in loads.values())
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
    walk.look("again")


def report_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text()))


def clips(folder: Path) -> dict[int, tuple[str | None, bytes]]:
    """Name and content of the sound of each line."""
    lines: LinesFile = read_lines(folder, "es")
    return {row.line: (row.clip, (folder / row.clip).read_bytes() if row.clip else b"") for row in lines.lines}


def check_film(path: Path, source: Path) -> None:
    """What a player finds in the downloaded film."""
    found = jobs.streams(path)
    assert [stream["codec_type"] for stream in found] == ["video", "audio", "audio"]
    assert [stream["tags"]["language"] for stream in found[1:]] == ["spa", "eng"]
    assert [stream["disposition"]["default"] for stream in found[1:]] == [1, 0]
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
        assert again["calls"]["speak.kept"] == made["lines"] - 1 and again["calls"]["speak.called"] == 1
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
