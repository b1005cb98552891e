"""A user sees and ends his own logins, keys and password, and nobody else's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.store import Session
from dubbing.web.account import device
from tests.web.site import PASSWORD, Client, Site

NEW = "a sentence that nobody guesses"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as opened:
        yield opened


@pytest.fixture
def ana(site: Site) -> Client:
    return site.client("ana", "user")


def sessions(site: Site, name: str = "ana") -> list[Session]:
    return site.office.store.sessions(site.user(name).id)


def audited(site: Site) -> list[str]:
    return [entry.action for entry in site.office.store.audit_log(site.user("root", "admin").actor)]


def works(client: Client) -> bool:
    return client.get("/ui/jobs", follow_redirects=False).status_code == 200


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
            " Version/17.5 Mobile/15E148 Safari/604.1",
            "Safari on an iPhone",
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Mobile"
            " Safari/537.36",
            "Chrome on Android",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0"
            " Safari/537.36 Edg/126.0",
            "Edge on Windows",
        ),
        ("curl/8.5.0", "curl"),
        ("", "An unknown browser"),
    ],
)
def test_browsers_are_named_in_words(agent: str, words: str) -> None:
    assert device(agent) == words


def test_the_page_lists_the_own_browsers_and_marks_this_one(site: Site, ana: Client) -> None:
    site.client("ana")
    site.client("ben", "user")
    page = ana.get("/ui/settings").text

    assert page.count("this browser") == 1
    assert len(re.findall(r"/ui/settings/sessions/[0-9a-f]{16}/end", page)) == 1
    assert "Log all other browsers out" in page


def test_one_browser_is_logged_out_at_once(site: Site, ana: Client) -> None:
    other = site.client("ana")
    assert works(other)
    page = ana.get("/ui/settings").text
    (address,) = re.findall(r"/ui/settings/sessions/[0-9a-f]{16}/end", page)

    answer = ana.post(address)

    assert "That browser is logged out." in answer.text
    assert not works(other)
    assert works(ana)
    assert audited(site)[0] == "session_ended"


def test_the_sessions_of_others_cannot_be_ended(site: Site, ana: Client) -> None:
    ben = site.client("ben", "user")
    theirs = sessions(site, "ben")[0].id

    assert ana.post(f"/ui/settings/sessions/{theirs}/end").status_code == 404
    assert works(ben)


def test_all_other_browsers_are_logged_out_but_nobody_elses(site: Site, ana: Client) -> None:
    others, ben = [site.client("ana"), site.client("ana")], site.client("ben", "user")

    ana.post("/ui/settings/sessions/end-others")

    assert [works(other) for other in others] == [False, False]
    assert works(ana)
    assert works(ben)


def test_a_key_is_shown_once_and_works_until_it_is_revoked(site: Site, ana: Client) -> None:
    answer = ana.post("/ui/settings/keys", data={"name": "nightly <b>", "scope": "read", "days": "30"})
    secret = re.findall(r"dub_[\w-]{40,}", answer.text)
    assert len(secret) == 1
    assert answer.headers["cache-control"] == "no-store"

    page = ana.get("/ui/settings").text
    assert secret[0] not in page
    assert "nightly &lt;b&gt;" in page
    user, scope = site.office.store.key_user(secret[0]) or (None, None)
    assert (user and user.name, scope) == ("ana", "read")
    (key,) = site.office.store.keys(site.user("ana").id)
    assert key.expires_ms - key.created_ms == pytest.approx(30 * 86_400_000, abs=60_000)

    assert "The key is revoked." in ana.post(f"/ui/settings/keys/{key.id}/revoke").text
    assert site.office.store.key_user(secret[0]) is None
    assert audited(site)[:2] == ["key_revoked", "key_added"]
    assert secret[0] not in str(site.office.store.audit_log(site.user("root", "admin").actor))


def test_the_keys_of_others_cannot_be_revoked(site: Site, ana: Client) -> None:
    key = site.office.store.add_key(site.user("ben").id, "secret", name="x", scope="read")

    assert ana.post(f"/ui/settings/keys/{key.id}/revoke").status_code == 404
    assert site.office.store.key_user("secret") is not None


def test_a_viewer_makes_no_key_that_writes(site: Site) -> None:
    vera = site.client("vera", "viewer")

    assert vera.post("/ui/settings/keys", data={"name": "x", "scope": "write"}).status_code == 403
    assert vera.post("/ui/settings/keys", data={"name": "x", "scope": "read"}).status_code == 200


@pytest.mark.parametrize(
    "fields", [{"name": "  "}, {"name": "x", "scope": "all"}, {"name": "x", "days": "9999"}, {"name": "x" * 81}]
)
def test_a_key_with_wrong_fields_is_not_made(site: Site, ana: Client, fields: dict[str, str]) -> None:
    assert ana.post("/ui/settings/keys", data=fields).status_code == 400
    assert site.office.store.keys(site.user("ana").id) == []


def test_a_new_password_ends_the_other_sessions_and_replaces_the_old_one(site: Site, ana: Client) -> None:
    other = site.client("ana")

    answer = ana.post("/ui/settings/password", data={"old": PASSWORD, "new": NEW})

    assert "Your password is changed" in answer.text
    assert not works(other)
    assert works(ana)
    stranger = site.client(None)
    assert stranger.post("/ui/login", data={"name": "ana", "password": PASSWORD}).status_code == 401
    site.office.identity.throttle.succeeded("ana", "127.0.0.1")
    assert stranger.post("/ui/login", data={"name": "ana", "password": NEW}).status_code == 200
    assert "password_changed" in audited(site)


def test_the_old_password_is_asked_and_guessing_it_takes_ever_longer(site: Site, ana: Client) -> None:
    site.office.identity.throttle.clock = lambda: 0.0
    answers = [ana.post("/ui/settings/password", data={"old": "guess", "new": NEW}) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [403, 403, 403, 429]
    assert "The present password is another one" in answers[0].text
    assert int(answers[3].headers["retry-after"]) >= 1
    assert audited(site).count("password_failed") == 3
    assert ana.post("/ui/settings/password", data={"old": PASSWORD, "new": NEW}).status_code == 429


def test_a_short_password_is_refused_and_nothing_changes(site: Site, ana: Client) -> None:
    other = site.client("ana")
    answer = ana.post("/ui/settings/password", data={"old": PASSWORD, "new": "short"})

    assert answer.status_code == 422
    assert "5 characters" in answer.text
    assert works(other)
