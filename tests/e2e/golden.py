"""The whole system as a person meets it: a real `dubbing-web` with its worker, a network that can be cut, and pages looked at."""

from __future__ import annotations

import base64
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page

from dubbing import config
from dubbing.web.identity import COOKIE
from tests.services import Proxy, wait_until
from tests.web.test_pages import FAINT, SIZES, SMALL, until
from tests.web.test_server import Server, children, runs

OFFLINE = "Failed to load resource: net::ERR_"
WAIT_S = 180.0
"""For anything that engines or Ray take part in; it ends as soon as the condition holds."""
WATCH = """
document.addEventListener('securitypolicyviolation', (e) => console.error(`CSP: ${e.violatedDirective} ${e.blockedURI}`));
const seen = JSON.parse(sessionStorage.getItem('seen') || '[]');
new MutationObserver(() => {
  const rows = [...document.querySelectorAll('#stages li')].map((row) => row.textContent.replace(/\\s+/g, ' ').trim());
  const now = JSON.stringify([performance.timeOrigin, rows]);
  if (!rows.length || now === seen[seen.length - 1]) return;
  seen.push(now);
  sessionStorage.setItem('seen', JSON.stringify(seen));
}).observe(document, {subtree: true, childList: true, characterData: true});
"""
PHONE = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}


class House:
    """`dubbing-web` with engines that need no download, behind a network that can be cut and leads to its next start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {"QUEUE_MODE": "fallback", "DUBBING_LOG_DIR": str(folder / "logs"), "DUBBING_QUALITY": "draft"}
        self.servers: list[Server] = []
        self.everything: set[int] = set()
        self.start()
        self.network = Proxy(self.port)
        self.address = f"http://127.0.0.1:{self.network.port}"

    @property
    def server(self) -> Server:
        return self.servers[-1]

    @property
    def port(self) -> int:
        return int(self.server.address.rpartition(":")[2])

    @property
    def settings(self) -> config.Settings:
        env = self.env | {"DUBBING_OUTPUT_DIR": str(self.folder / "Output")}
        return config.load(env, env_file=None, secrets_file=None)

    def start(self) -> None:
        self.servers.append(Server(self.folder, **self.env))

    def setup_link(self) -> str:
        found = self.servers[0].out.wait(r"open http://[^/]+(/ui/setup/\S+) to make the first administrator")
        return self.address + found[1]

    def at_work(self) -> None:
        """Wait until jobs run."""
        self.server.out.wait(r"the worker is ready, 2 jobs at once", WAIT_S * 2)
        self.everything |= set(children(self.server.process.pid))

    def kill(self) -> None:
        """As when the machine's memory is out: nothing is said to anybody."""
        self.everything |= set(children(self.server.process.pid))
        self.server.process.kill()
        self.server.process.wait()

    def end(self) -> None:
        """Stop as a person would, and leave nothing behind."""
        self.everything |= set(children(self.server.process.pid))
        code = self.server.end(signal.SIGINT)
        said = [line for server in self.servers for line in server.err.all]
        assert (code, [line for line in said if "Traceback" in line]) == (0, []), said
        wait_until(lambda: not any(map(runs, self.everything)), WAIT_S, "the end of Ray and the worker")

    def close(self) -> None:
        for server in self.servers:
            if server.process.poll() is None:
                server.process.kill()
            server.process.wait()
            for reader in server.readers:
                reader.join(60)
        self.network.close()


@dataclass
class Walk:
    """One person's browser: what is pressed, what is seen, and everything that is wrong on the way."""

    page: Page
    size: str
    folder: Path
    wrong: list[str] = field(default_factory=list)
    looks: int = 0
    _cut: bool = False

    def __post_init__(self) -> None:
        self.page.on("console", lambda m: self._said(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _said(self, text: str) -> None:
        if not (self._cut and OFFLINE in text):
            self.wrong.append(text)

    @contextmanager
    def without_network(self) -> Iterator[None]:
        """While the block lasts a browser may say that it found no server."""
        self._cut = True
        yield
        self._cut = False

    def look(self, name: str, *, whole: bool = True) -> None:
        """Take a picture of the page (what is seen of it, if it may change meanwhile) and check what holds for every page."""
        self.looks += 1
        self.page.screenshot(path=self.folder / f"{self.size}-{self.looks:02}-{name}.png", full_page=whole)
        assert self.ask("document.documentElement.scrollWidth") <= SIZES[self.size][0], name
        assert self.ask(SMALL) == [], name
        assert self.ask(FAINT)["faint"] == [], name
        assert self.wrong == [], name

    def ask(self, question: str) -> Any:
        """What the page answers; where it is just on its way to another page, that one's answer."""
        end = time.monotonic() + WAIT_S
        while True:
            try:
                return self.page.evaluate(question)
            except Error:
                if time.monotonic() > end:
                    raise
            self.page.wait_for_load_state()

    def press(self, target: Locator) -> None:
        """With a finger or with a mouse."""
        if self.size == "phone":
            target.tap()
        else:
            target.click()

    def button(self, name: str) -> None:
        self.press(self.page.get_by_role("button", name=name, exact=True))

    def link(self, name: str) -> None:
        self.press(self.page.get_by_role("link", name=name, exact=True))

    def until(self, condition: str, within_s: float = WAIT_S) -> None:
        until(self.page, condition, within_s)

    def arrive(self, pattern: str) -> None:
        """Wait for another page."""
        self.page.wait_for_url(re.compile(pattern), timeout=WAIT_S * 1000)
        self.page.wait_for_load_state()

    def enter(self, name: str, password: str, button: str) -> None:
        """Fill in a user name and a password."""
        self.page.get_by_label("User name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.button(button)
        self.arrive(r"/ui/jobs$")

    def film(self, script: str) -> Any:
        """A question about the player."""
        return self.ask(f"(() => {{ const video = document.querySelector('video'); return {script}; }})()")

    def play(self, words: str = "") -> None:
        """Play from the beginning until the dub's subtitle is shown (one with these words), somewhat beyond its start."""
        self.until("document.querySelector('video').readyState >= 1")
        self.film("video.currentTime = 0, video.play().catch(() => {})")
        shown = (
            "[...document.querySelector('video').textTracks].some((track) => track.mode === 'showing'"
            f" && [...track.activeCues || []].some((cue) => cue.text.includes({json.dumps(words)})))"
        )
        self.until(f"{shown} && document.querySelector('video').currentTime > 0.3")
        self.film("video.pause()")

    def progress(self) -> dict[float, list[dict[str, tuple[int, int]]]]:
        """What was shown of the stages, without repetitions, by load of the page: stage to (done, total)."""
        found: dict[float, list[dict[str, tuple[int, int]]]] = {}
        for text in json.loads(self.page.evaluate("sessionStorage.getItem('seen') || '[]'")):
            load, rows = json.loads(text)
            counts = (re.match(r"(\D+?)[\d ]*?(\d+)/(\d+)", row) for row in rows)
            found.setdefault(load, []).append({c[1]: (int(c[2]), int(c[3])) for c in counts if c})
        return found


@dataclass(frozen=True)
class Town:
    """A house, and browsers of people who come to it."""

    house: House
    browser: Browser

    @contextmanager
    def visit(self, size: str, folder: Path, **options: Any) -> Iterator[Walk]:
        """A browser of its own, which knows nobody; it ends with the block."""
        width, height = SIZES[size]
        options |= PHONE if size == "phone" else {}
        context: BrowserContext = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(WAIT_S * 1000)
        context.add_init_script(WATCH)
        walk = Walk(context.new_page(), size, folder)
        yield walk
        assert walk.wrong == []
        context.close()


class Guest:
    """A person who was invited and works without a browser; everything his stream of events said is kept."""

    def __init__(self, house: House, link: str, name: str, password: str) -> None:
        self.name, self.password, self.link = name, password, link
        self.http = client_of(house)
        assert self.http.post(link, data={"name": name, "password": password}).status_code == 303
        self.session = self.http.cookies[COOKIE]
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        wait_until(lambda: self.said, WAIT_S, "the stream of events")

    def _listen(self) -> None:
        with self.http.stream("GET", "/api/v1/events", timeout=WAIT_S) as answer:
            self.said += [f"{answer.status_code}\n"]
            for text in answer.iter_text():
                self.said.append(text)

    def dub(self, film: Path, name: str, **wishes: Any) -> str:
        """Upload a film and ask for a dub into Spanish; the job's id."""
        encoded = base64.b64encode(name.encode()).decode()
        data, tus = film.read_bytes(), {"Tus-Resumable": "1.0.0"}
        facts = {"Upload-Length": str(len(data)), "Upload-Metadata": f"filename {encoded}"}
        upload = self.http.post("/api/v1/uploads", headers=tus | facts).headers["Location"]
        piece = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        assert self.http.patch(upload, headers=tus | piece, content=data).status_code == 204
        wanted = {"upload": upload.rpartition("/")[2], "targets": ["es"], "quality": "draft", **wishes}
        answer = self.http.post("/api/v1/jobs", json=wanted)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def state(self, job_id: str) -> str:
        return str(self.http.get(f"/api/v1/jobs/{job_id}").json()["state"])

    def key(self) -> str:
        """The secret of a new API key, which has been used."""
        page = self.http.post("/ui/settings/keys", data={"name": "script", "scope": "read"}).text
        found = re.search(r"dub_[\w-]{20,}", page)
        assert found
        assert self.http.get("/api/v1/jobs", headers={"Authorization": f"Bearer {found[0]}"}).status_code == 200
        return found[0]

    def leave(self) -> str:
        """Log out, which ends the stream; all it said."""
        assert self.http.post("/ui/logout").status_code == 303
        self._listener.join(WAIT_S)
        assert not self._listener.is_alive()
        self.http.close()
        return "".join(self.said)


def client_of(house: House, session: str = "") -> httpx.Client:
    """A browser without a screen."""
    cookies = {COOKIE: session} if session else {}
    headers = {"Sec-Fetch-Site": "same-origin"}
    return httpx.Client(base_url=house.address, headers=headers, cookies=cookies, timeout=WAIT_S)


def meanwhile(condition: Callable[[], object], page: Page, what: str) -> None:
    """Wait for something outside the page, while the page goes on."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        page.wait_for_timeout(20)
