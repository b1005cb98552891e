"""Who is let in, by what, and what guessing costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing import config
from dubbing.access_errors import BadLoginError, ThrottledError, WeakPasswordError
from dubbing.errors import SettingsError
from dubbing.web import admission
from dubbing.web.identity import COOKIE, Passwords, Throttle
from dubbing.web.office import first_administrator
from tests.web.site import PASSWORD, Client, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "Output") as opened:
        yield opened


@pytest.fixture(scope="module")
def tailnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("tailnet"), REMOTE_ACCESS_MODE="tailscale", HOST="0.0.0.0") as opened:
        yield opened


def log_in(client: Client, name: str, password: str = PASSWORD, **fields: str) -> int:
    answer = client.post("/ui/login", data={"name": name, "password": password, **fields}, follow_redirects=False)
    return answer.status_code


# --- login ------------------------------------------------------------------------------------------------------------


def test_a_stranger_is_led_to_the_login_and_back(site: Site) -> None:
    client = site.client(None)
    site.user("ana")

    answer = client.get("/ui/jobs?q=x", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/login?next=/ui/jobs%3Fq%3Dx")
    assert client.get("/api/v1/nothing").headers["content-type"] == "application/problem+json"
    login = client.post(
        "/ui/login", data={"name": "ana", "password": PASSWORD, "next": "/ui/jobs?q=x"}, follow_redirects=False
    )

    assert (login.status_code, login.headers["location"]) == (303, "/ui/jobs?q=x")
    cookie = login.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=") and "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
    assert client.get("/ui/jobs").status_code == 200


def test_over_https_the_cookie_is_bound_to_the_host(site: Site) -> None:
    site.user("ana")
    client = site.client(None, base="https://127.0.0.1:8000")

    cookie = client.post("/ui/login", data={"name": "ana", "password": PASSWORD}, follow_redirects=False).headers[
        "set-cookie"
    ]

    assert cookie.startswith(f"__Host-{COOKIE}=") and "Secure" in cookie and "Domain" not in cookie


@pytest.mark.parametrize(
    "next_page", ["https://evil.example/", "//evil.example", "/ui//evil.example", "/ui/\\evil", "x"]
)
def test_a_login_leads_to_pages_of_ours_alone(site: Site, next_page: str) -> None:
    site.user("ana")
    answer = site.client(None).post(
        "/ui/login", data={"name": "ana", "password": PASSWORD, "next": next_page}, follow_redirects=False
    )

    assert answer.headers["location"] == "/ui/jobs"


@pytest.mark.parametrize(("name", "password"), [("ana", "wrong horse battery"), ("nobody", PASSWORD), ("", "")])
def test_a_wrong_name_and_a_wrong_password_look_the_same(site: Site, name: str, password: str) -> None:
    site.user("ana")
    answer = site.client(None).post("/ui/login", data={"name": name, "password": password})

    assert answer.status_code == 401
    assert "The user name or the password is wrong" in answer.text
    assert password not in answer.text or not password


def test_a_disabled_user_cannot_log_in(site: Site) -> None:
    ana = site.user("ana")
    site.office.store.change_user(ana.id, role="user", password_hash=ana.password_hash, disabled=True)

    assert log_in(site.client(None), "ana") == 401


def test_guessing_takes_ever_longer_and_the_right_password_is_not_heard_meanwhile(site: Site) -> None:
    site.user("ana")
    client = site.client(None)

    site.office.identity.throttle.clock = lambda: 0.0
    guesses = [log_in(client, "ana", f"guess number {n} of many") for n in range(6)]

    assert guesses[:3] == [401, 401, 401] and 429 in guesses
    refused = client.post("/ui/login", data={"name": "ana", "password": PASSWORD})
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1


def test_the_throttle_doubles_its_wait_forgets_and_spares_other_addresses() -> None:
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0])

    def wait(account: str = "ana", address: str = "a") -> int:
        try:
            throttle.check(account, address)
        except ThrottledError as error:
            return int(error.facts["wait_s"])
        return 0

    waits = []
    for _ in range(8):
        now[0] += wait()
        throttle.failed("ana", "a")
        waits.append(wait())
    assert waits[:2] == [0, 0] and waits[2:] == sorted(waits[2:]) and waits[-1] >= 2 * waits[-3] - 4 > 0
    assert wait(address="b") == 0 and wait(account="bob") == 0
    throttle.succeeded("ana", "a")
    assert wait() == 0


def test_an_address_that_tries_many_accounts_waits_too() -> None:
    throttle = Throttle(clock=lambda: 0.0)
    for n in range(20):
        throttle.failed(f"user{n}", "a")

    with pytest.raises(ThrottledError):
        throttle.check("new", "a")
    throttle.check("new", "b")


def test_passwords_are_argon2id_and_short_ones_are_refused() -> None:
    passwords = Passwords()
    hashed = asyncio.run(passwords.hash(PASSWORD))

    assert hashed.startswith("$argon2id$")
    assert asyncio.run(passwords.right(PASSWORD, hashed)) and not asyncio.run(passwords.right(PASSWORD + "x", hashed))
    assert not asyncio.run(passwords.right(PASSWORD, None))
    for bad in ("short", "x" * 1025):
        with pytest.raises(WeakPasswordError):
            asyncio.run(passwords.hash(bad))


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_logging_out_ends_the_session_at_once_everywhere_it_is_used(site: Site) -> None:
    client, thief = site.client("ana", "user"), site.client(None)
    thief.cookies.set(COOKIE, client.cookies[COOKIE])
    assert thief.get("/ui/jobs").status_code == 200

    client.post("/ui/logout")

    assert thief.get("/ui/jobs", follow_redirects=False).status_code == 303


def test_a_new_login_rotates_the_session(site: Site) -> None:
    client = site.client("ana", "user")
    before = client.cookies[COOKIE]

    assert log_in(client, "ana") == 303

    assert site.office.store.session_user(before) is None
    assert len(site.office.store.sessions(site.user("ana").id)) == 1


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "", "Origin": "http://127.0.0.1:8000"}, False),
        ({"Origin": "http://127.0.0.1:8000"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
)
def test_only_pages_of_ours_change_something(site: Site, headers: dict[str, str], allowed: bool) -> None:
    client = site.client("ana", "user")
    job, _ = site.office.store.submit(site.user("ana").actor, {"source": "a.mp4"})
    del client.headers["Sec-Fetch-Site"]

    answer = client.post(f"/ui/jobs/{job.id}/cancel", headers=headers, follow_redirects=False)

    assert answer.status_code == (303 if allowed else 403)
    assert (site.office.store.job(site.user("ana").actor, job.id).state.value == "cancelled") == allowed


def test_a_login_from_another_site_is_refused(site: Site) -> None:
    site.user("ana")
    client = site.client(None)
    client.headers["Sec-Fetch-Site"] = "cross-site"

    assert log_in(client, "ana") == 403


# --- the first administrator, invitations -----------------------------------------------------------------------------


def test_the_first_start_makes_a_setup_link_that_works_once(site: Site) -> None:
    path = asyncio.run(first_administrator(site.office))
    assert path is not None and path.startswith("/ui/setup/")
    client = site.client(None)

    assert "Set up this server" in client.get(path).text
    weak = client.post(path, data={"name": "root", "password": "short"})
    assert weak.status_code == 422 and "has 5 characters" in weak.text
    joined = client.post(path, data={"name": "root", "password": PASSWORD}, follow_redirects=False)

    assert joined.status_code == 303 and client.get("/ui/jobs").status_code == 200
    assert site.office.store.user_by_name("root").role == "admin"
    assert client.get(path).status_code == 404
    assert asyncio.run(first_administrator(site.office)) is None


def test_the_settings_can_make_the_first_administrator(tmp_path: Path) -> None:
    with Site(tmp_path, ADMIN_USERNAME="boss", ADMIN_PASSWORD=PASSWORD) as site:
        assert asyncio.run(first_administrator(site.office)) is None
        assert log_in(site.client(None), "boss") == 303
    with Site(tmp_path / "2", ADMIN_USERNAME="boss", ADMIN_PASSWORD="short") as site, pytest.raises(WeakPasswordError):
        asyncio.run(first_administrator(site.office))


def test_a_taken_name_is_said_and_the_invitation_stays(site: Site) -> None:
    site.user("ana")
    site.office.store.add_invite("link", "user", by=None)
    client = site.client(None)

    assert client.post("/ui/invite/link", data={"name": "ana", "password": PASSWORD}).status_code == 409
    assert client.post("/ui/invite/link", data={"name": "an a", "password": PASSWORD}).status_code == 400
    assert client.post("/ui/invite/link", data={"name": "anna", "password": PASSWORD}).status_code == 200


# --- API keys ---------------------------------------------------------------------------------------------------------


def test_a_key_acts_without_a_cookie_and_needs_no_origin(site: Site) -> None:
    ana = site.user("ana")
    site.office.store.add_key(ana.id, "secret-key", name="phone", scope="write")
    site.office.store.add_key(ana.id, "look-key", name="tv", scope="read")
    job, _ = site.office.store.submit(ana.actor, {"source": "a.mp4"})
    client = site.client(None)
    client.headers["Sec-Fetch-Site"] = "cross-site"

    def cancel(**headers: str) -> int:
        return client.post(f"/ui/jobs/{job.id}/cancel", headers=headers, follow_redirects=False).status_code

    assert cancel(Authorization="Bearer wrong") == 401
    assert cancel(Authorization="Bearer look-key") == 403
    assert cancel(Authorization="Bearer secret-key") == 303


# --- addresses --------------------------------------------------------------------------------------------------------


def asked(site: Site, peer: str, path: str = "/livez", **headers: str) -> int:
    """The status a peer's request gets."""
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError("the request has no body")

    raw = [
        (b"host", b"box:8000"),
        *((key.lower().replace("_", "-").encode(), value.encode()) for key, value in headers.items()),
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": raw,
        "client": (peer, 5), "server": ("box", 8000),
    }  # fmt: skip
    asyncio.run(site.app(scope, receive, send))  # type: ignore[arg-type]
    status = sent[0]["status"]
    assert isinstance(status, int)
    return status


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("100.64.0.1", True),
        ("100.127.255.254", True),
        ("fd7a:115c:a1e0::1", True),
        ("127.0.0.1", True),
        ("::ffff:100.64.0.9", True),
        ("100.63.255.255", False),
        ("100.128.0.1", False),
        ("192.168.1.5", False),
        ("8.8.8.8", False),
        ("fd00::1", False),
        ("::ffff:8.8.8.8", False),
        ("", False),
    ],
)
def test_tailscale_mode_answers_the_tailnet_alone(tailnet: Site, peer: str, allowed: bool) -> None:
    for path in ("/livez", "/ui/login", "/static/style.css", "/api/v1/jobs"):
        assert (asked(tailnet, peer, path) != 403) == allowed
        assert (asked(tailnet, peer, path, X_Forwarded_For="100.64.0.1", X_Real_IP="127.0.0.1") != 403) == allowed


def test_without_remote_access_only_this_machine_is_answered(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        assert asked(site, "192.168.1.5") == 403
        assert asked(site, "100.64.0.1") == 403
    with Site(tmp_path, HOST="0.0.0.0") as site:
        assert asked(site, "192.168.1.5") == asked(site, "127.0.0.1") == 200
        assert asked(site, "8.8.8.8") == 403


def test_forwarded_headers_are_believed_of_trusted_proxies_alone(tmp_path: Path) -> None:
    seen: list[tuple[object, object, list[str]]] = []

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        names = [name.decode() for name, _ in scope["headers"]]  # type: ignore[attr-defined]
        seen.append((scope["client"], scope["scheme"], names))

    settings = config.load(
        {"REMOTE_ACCESS_MODE": "proxy", "DUBBING_TRUSTED_PROXIES": "10.0.0.5, 10.1.0.0/16"}, env_file=None
    )
    door = admission.Admission(app, admission.policy(settings))  # type: ignore[arg-type]

    def client(peer: str, hops: str) -> object:
        headers = [
            (b"x-forwarded-for", hops.encode()),
            (b"x-forwarded-proto", b"https"),
            (b"tailscale-user-login", b"root"),
        ]
        scope = {
            "type": "http",
            "client": (peer, 1),
            "scheme": "http",
            "headers": headers,
            "path": "/",
            "method": "GET",
        }
        asyncio.run(door(scope, None, None))  # type: ignore[arg-type]
        return seen[-1]

    assert client("10.0.0.5", "8.8.8.8") == (("8.8.8.8", 0), "https", [])
    assert client("10.0.0.5", "1.2.3.4, 8.8.8.8, 10.1.7.7") == (("8.8.8.8", 0), "https", [])
    assert client("10.0.0.5", "nonsense") == (("10.0.0.5", 0), "https", [])
    assert client("127.0.0.1", "8.8.8.8") == (("127.0.0.1", 1), "http", [])


@pytest.mark.parametrize("proxies", ["", "0.0.0.0/0", "::/0", "*", "10.0.0.5,*", "example.org"])
def test_a_proxy_that_would_be_everybody_is_refused_at_the_start(tmp_path: Path, proxies: str) -> None:
    settings = config.load({"REMOTE_ACCESS_MODE": "proxy", "DUBBING_TRUSTED_PROXIES": proxies}, env_file=None)

    with pytest.raises(SettingsError, match="DUBBING_TRUSTED_PROXIES"):
        admission.policy(settings)


def test_identity_headers_let_nobody_in(site: Site) -> None:
    site.user("ana")
    answer = site.client(None).get(
        "/ui/jobs", headers={"Tailscale-User-Login": "ana", "X-Remote-User": "ana"}, follow_redirects=False
    )

    assert answer.status_code == 303


def test_a_bad_login_is_written_down_with_its_address_and_without_its_password(site: Site) -> None:
    log_in(site.client(None), "ana", "wrong horse battery")

    (entry,) = site.office.store.audit_log(site.user("root", "admin").actor)
    assert (entry.action, entry.subject, entry.address) == ("login_failed", "ana", "127.0.0.1")
    assert BadLoginError.code == "bad_login"
