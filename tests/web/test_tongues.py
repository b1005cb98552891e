"""The pages speak the language of whoever looks at them, all of them and wholly; programs are answered in English."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from dubbing.errors import NoAudioError
from dubbing.store import Fence
from dubbing.web import app
from dubbing.web.interpreter import COOKIE
from tests.web.conftest import line_result, make_job, report_of, write_lines
from tests.web.site import PASSWORD, Client, Site

ODD = "100 %(x)s <b>{y}</b>"
OWN_WORDS = {"bdi", "code", "pre", "textarea", "time", "title", "footer"}
"""Elements whose text is data, or made of it. (Titles hold names; h1 says the same.)"""
VOID = ("meta", "link", "input", "track")
"""Elements without an end."""
ALIKE = {"Original", "Dubbing Pipeline", "error", "LUFS", "dBTP", "espeak-ng", "root", "Voice es", "Voice es+f2"}
"""Words that are the same in both languages, and names."""
UNTRANSLATED = re.compile(
    r"[\d.,:]+ ?(MB|kB|B|s|LUFS|dBTP)|[\d.]+|[\w.%@/-]*[\d./_%][\w./%-]*|Firefox|Chrome|curl", re.ASCII
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    output = tmp_path_factory.mktemp("tongues")
    lines = [line_result(0, "hola"), line_result(1, "adiós", "late", "over_limit")]
    folder = make_job(output, "talk", report_of({"es": lines, "ca": lines}), es_mp4=b"film", es_vtt=b"x")
    write_lines(folder, lines)
    with Site(output) as opened:
        store, root = opened.office.store, opened.user("root", "admin")
        store.submit(root.actor, {"source": "/films/w.mp4", "targets": ["fr"]}, targets=("fr",))
        store.add_key(root.id, "dub_secret", name="k.1", scope="write")
        store.add_invite("i" * 32, "viewer", by=root.actor)
        store.audit(root.id, "key_added", "k.1")
        opened.id_of("talk")
        yield opened


class Texts(HTMLParser):
    """What a page says: texts with letters, and what is read aloud of its elements; data left out."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.language, self._within = "", list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "html":
            self.language = values.get("lang") or ""
        if tag not in VOID:
            self._within.append("data" if tag != "html" and "lang" in values else tag)
        for name in ("aria-label", "placeholder"):
            self._say(values.get(name) or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if not {"data", *OWN_WORDS} & set(self._within):
            self._say(data)

    def _say(self, text: str) -> None:
        text = " ".join(text.split())
        if re.search("[A-Za-z]{2}", text):
            self.said.append(text)


def pages(site: Site) -> list[str]:
    """An address for every page of the route table."""
    values = {"job_id": site.id_of("talk"), "tag": "es", "secret": "i" * 32}
    found = []
    for context in iter_route_contexts(app.routes(site.office).routes):
        route = context.route
        if isinstance(route, APIRoute) and "GET" in (context.methods or ()) and context.path.startswith("/ui/"):
            found.append(re.sub(r"\{(\w+)(:\w+)?\}", lambda name: values.get(name[1], "1"), context.path))
    return [*found, "/ui/none", "/ui/jobs?q=nothing", f"/ui/jobs/{site.id_of('talk')}/lines/es?show=changed"]


def speaks(site: Site, tag: str, *, name: str | None = "root") -> Client:
    client = site.client(name)
    client.headers["Accept-Language"] = tag
    return client


def test_every_page_is_wholly_in_the_language_of_the_browser(site: Site) -> None:
    seen, left = 0, []
    clients = {tag: (speaks(site, tag), speaks(site, tag, name=None)) for tag in ("en", "es")}
    for path in pages(site):
        for who in (0, 1):
            english, spanish = (clients[tag][who].get(path, follow_redirects=False) for tag in ("en", "es"))
            assert english.status_code == spanish.status_code
            if not spanish.headers.get("content-type", "").startswith("text/html"):
                continue
            ours, theirs = Texts(english.text), Texts(spanish.text)
            if "<html" in spanish.text:
                assert (ours.language, theirs.language) == ("en", "es")
                assert spanish.headers["content-language"] == "es"
                assert {"Accept-Language", "Cookie"} <= set(spanish.headers["vary"].split(", "))
            seen += len(theirs.said)
            left += [
                f"{path}: {text!r} is the same in English and in Spanish"
                for text in sorted({*ours.said} & {*theirs.said} - ALIKE)
                if not UNTRANSLATED.fullmatch(text)
            ]
    assert seen > 400
    assert not left, "\n".join(left)


def test_sentences_numbers_and_dates_read_as_in_spain(site: Site) -> None:
    client = speaks(site, "es-ES,es;q=0.9")
    job = client.get("/jobs/talk").text

    for sentence in ("Líneas dichas", "2 de 2", "−16,0 LUFS", "velocidad 1,40", "demasiado rápida", "Hecho con"):
        assert sentence in job
    assert re.search(r"<time>\d{1,2} [a-zé]+ 20\d\d, \d\d:\d\d</time>", job)
    assert "Nuevo doblaje" in client.get("/ui/jobs").text
    assert "Registro de auditoría" in client.get("/ui/admin/audit").text


def test_the_choice_is_for_the_browser_and_survives_login_and_logout(site: Site) -> None:
    site.user("ana")
    client = speaks(site, "en", name=None)

    answer = client.post(
        "/ui/language", data={"tag": "es", "next": "/ui/login?next=/ui/upload"}, follow_redirects=False
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/login?next=/ui/upload")
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in (f"{COOKIE}=es", "HttpOnly", "SameSite=lax", "Max-Age=31536000"))
    assert '<html lang="es">' in client.get("/ui/login").text
    wrong = client.post("/ui/login", data={"name": "ana", "password": "something else"})
    assert "El nombre de usuario o la contraseña no son correctos" in wrong.text
    inside = client.post("/ui/login", data={"name": "ana", "password": PASSWORD, "next": "/ui/settings"})
    assert "Sesiones iniciadas" in inside.text
    assert "Iniciar sesión" in client.post("/ui/logout").text

    client.post("/ui/language", data={"tag": "en"})
    assert '<html lang="en">' in client.get("/ui/login").text


def test_the_choice_counts_more_than_what_the_browser_asks_for(site: Site) -> None:
    client = speaks(site, "es")
    client.cookies.set(COOKIE, "en")
    assert '<html lang="en">' in client.get("/ui/settings").text
    client.cookies.set(COOKIE, "../../etc/passwd")
    assert '<html lang="es">' in client.get("/ui/settings").text


def test_the_switch_shows_all_languages_and_which_is_in_use(site: Site) -> None:
    for path in ("/ui/login", "/ui/settings"):
        page = speaks(site, "es", name=None if path == "/ui/login" else "root").get(path).text
        pressed = re.findall(r'name="tag" value="(\w+)" lang="(\w+)" aria-pressed="(\w+)">([^<]+)<', page)
        assert pressed == [("en", "en", "false", "English"), ("es", "es", "true", "Español")]


def test_a_language_that_is_not_there_and_a_request_from_elsewhere_are_refused(site: Site) -> None:
    client = speaks(site, "en", name=None)
    assert client.post("/ui/language", data={"tag": "xx"}).status_code == 400
    assert client.post("/ui/language", data={"tag": "es"}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    away = client.post("/ui/language", data={"tag": "es", "next": "//evil.example/"}, follow_redirects=False)
    assert away.headers["location"] == "/ui/jobs"


@pytest.mark.parametrize("tag", ["en", "es"])
def test_names_are_escaped_and_never_taken_for_places(site: Site, tmp_path: Path, tag: str) -> None:
    store, root = site.office.store, site.user("root", "admin")
    job, _ = store.submit(root.actor, {"source": "/films/x.mp4", "title": ODD, "targets": ["es"]}, targets=("es",))
    client = speaks(site, tag)

    for path in ("/ui/jobs", f"/ui/jobs/{job.id}", f"/ui/jobs/{job.id}/delete", "/ui/admin/queue"):
        page = client.get(path)
        assert page.status_code == 200
        assert "100 %(x)s &lt;b&gt;{y}&lt;/b&gt;" in page.text
        assert "<b>" not in page.text


def test_the_error_of_a_job_is_read_in_the_language_of_the_page(site: Site) -> None:
    store, root = site.office.store, site.user("root", "admin")
    job, _ = store.submit(root.actor, {"source": "/films/mute.mp4", "targets": ["es"]}, targets=("es",))
    fence = Fence(job.id, job.epoch + 1, store.in_charge().backend_epoch)
    assert store.take(fence, owner="test", ttl_ms=60_000)
    assert store.fail(fence, NoAudioError(name=ODD).as_dict())

    page = speaks(site, "es").get(f"/ui/jobs/{job.id}").text
    assert "El archivo 100 %(x)s &lt;b&gt;{y}&lt;/b&gt; no tiene ninguna pista de audio" in page
    assert "The file" not in page


def test_programs_are_answered_in_english_and_scripts_of_a_page_in_its_language(site: Site) -> None:
    program = speaks(site, "es", name=None)
    program.headers["Authorization"] = "Bearer dub_secret"
    script = speaks(site, "es")

    assert program.get("/api/v1/jobs/none").json()["title"] == "There is no job none here"
    assert script.get("/api/v1/jobs/none").json()["title"] == "Aquí no existe: trabajo none"


def test_what_scripts_say_comes_with_the_page(site: Site) -> None:
    def handed(path: str, name: str) -> dict[str, str]:
        page = Handed(speaks(site, "es").get(path).text)
        found: dict[str, str] = json.loads(page.values[name])
        return found

    assert handed("/ui/upload", "data-words")["share"] == "{percent} % de {size}"
    assert handed("/jobs/talk/lines/es", "data-words")["saved"] == "Guardado."
    assert handed("/ui/jobs", "data-stages")["speak"] == "locución"


class Handed(HTMLParser):
    """The data attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.values |= {name: value or "" for name, value in attrs if name.startswith("data-")}


def test_readers_of_different_languages_do_not_mix_at_the_same_time(site: Site) -> None:
    def read(number: int) -> bool:
        tag = ("en", "es")[number % 2]
        path = "/ui/settings" if number % 3 else "/ui/none"
        return f'<html lang="{tag}">' in speaks(site, tag).get(path).text

    site.user("root", "admin")
    with ThreadPoolExecutor(8) as readers:
        assert all(readers.map(read, range(24)))
