"""Every route says whom it is for, and holds to it: a route that is not in the table fails the test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from dubbing.web import app
from dubbing.web.identity import asked_of
from tests.web.conftest import line_result, make_job, report_of, write_lines
from tests.web.site import Client, Site

OPEN = {
    "GET /", "GET /livez", "HEAD /livez", "GET /ui/login", "POST /ui/login", "POST /ui/language", "GET /ui/setup/{secret}",
    "POST /ui/setup/{secret}", "GET /ui/invite/{secret}", "POST /ui/invite/{secret}",
    "GET /readyz", "HEAD /readyz", "GET /metrics",
}  # fmt: skip
"""Routes that answer strangers; everything else asks who comes. /metrics answers this machine: tests/web/test_server.py."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = make_job(tmp_path, "talk", report_of({"es": [line_result(0, "hola")]}), es_mp4=b"film")
    write_lines(folder, [line_result(0, "hola")])
    with Site(tmp_path) as opened:
        yield opened


def routes(site: Site) -> list[tuple[str, str, str]]:
    """(method, path, whom it asks for) of every route."""
    found: list[tuple[str, str, str]] = []
    for context in iter_route_contexts(app.routes(site.office).routes):
        if isinstance(context.route, APIRoute):
            whom = asked_of(context.dependant)
            found += [(method, context.path, whom) for method in sorted(context.methods or ())]
    return found


def test_only_the_entrance_is_open_to_strangers(site: Site) -> None:
    assert len(routes(site)) > len(OPEN) + 4
    assert {f"{method} {path}" for method, path, whom in routes(site) if whom == "open"} == OPEN


def test_what_changes_something_asks_for_more_than_a_look(site: Site) -> None:
    own = {"POST /ui/logout"}
    weak = {f"{m} {p}" for m, p, whom in routes(site) if m not in ("GET", "HEAD") and whom == "anyone"}
    assert weak <= own


def address(site: Site, path: str) -> str:
    """A real address for a route's path: the job is one of root's."""
    values = {
        "job_id": site.id_of("talk"), "dubbing_id": site.id_of("talk"), "file_name": "talk.es.mp4", "action": "share",
        "language": "es", "format_type": "srt",
    }  # fmt: skip
    values |= {"user_id": site.user("root", "admin").id}
    values |= {"upload_id": upload_of(site)}
    values |= {"tag": "es", "number": "1", "voice_key": "0" * 32}
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda name: values.get(name[1], "x"), path)


def upload_of(site: Site) -> str:
    """An upload of root's."""
    return site.office.store.add_upload(site.user("root", "admin").id, "talk.mp4", 10, room=1000).id


def status(client: Client, method: str, path: str) -> int:
    return client.request(method, path, follow_redirects=False).status_code


def test_a_stranger_gets_nothing_but_the_entrance(site: Site) -> None:
    client = site.client(None)
    for method, path, whom in routes(site):
        if whom != "open":
            assert status(client, method, address(site, path)) in (303, 401), f"{method} {path}"


@pytest.mark.parametrize("kind", ["{job_id}", "{dubbing_id}", "{upload_id}"])
def test_what_belongs_to_others_does_not_exist_for_users_and_viewers(site: Site, kind: str) -> None:
    found = [(method, path) for method, path, _whom in routes(site) if kind in path]
    assert found
    for role in ("user", "viewer"):
        client = site.client(f"some-{role}", role)
        client.headers |= {  # enough for the routes that look at more than who asks
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "0",
            "Content-Type": "application/offset+octet-stream",
        }
        for method, path in found:
            assert status(client, method, address(site, path)) in ((404,) if role == "user" else (404, 403)), path


def test_viewers_change_nothing_and_only_administrators_administer(site: Site) -> None:
    viewer, user = site.client("vera", "viewer"), site.client("uwe", "user")
    for method, path, whom in routes(site):
        if whom in ("writer", "admin") and method not in ("GET", "HEAD"):
            assert status(viewer, method, address(site, path)) == 403, f"{method} {path}"
        if whom == "admin":
            assert status(user, method, address(site, path)) == 403, f"{method} {path}"


def test_api_keys_neither_see_nor_change_how_their_user_gets_in(site: Site) -> None:
    site.office.store.add_key(site.user("root", "admin").id, "dub_secret", name="script", scope="write")
    client = site.client(None)
    client.headers["Authorization"] = "Bearer dub_secret"
    personal = [(method, path) for method, path, whom in routes(site) if whom == "person"]

    assert len(personal) >= 6
    for method, path in personal:
        assert status(client, method, address(site, path)) == 403, f"{method} {path}"
