"""The unix socket of `tailscale serve`: whom it lets in, and that nobody else's word counts. A real server answers."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dubbing.config import load
from dubbing.errors import SettingsError
from dubbing.web import tailnet
from dubbing.web.identity import COOKIE
from tests.security.test_routes import address, routes
from tests.web.conftest import environment, line_result, make_job, report_of, write_lines
from tests.web.server import Running, served
from tests.web.site import Site

BOX = "http://box.tail1234.ts.net"
"""What the browser asks for, https there: tailscaled ends it and passes the name on."""
HOST_COOKIE = f"__Host-{COOKIE}"
SERVED = {"X-Forwarded-For": "100.101.102.103", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "box.tail1234.ts.net"}
ROLES = {"ana": "user", "vera": "viewer", "root": "admin"}


def own(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tailnet")


@contextmanager
def serving(folder: Path, believes: bool) -> Iterator[tuple[Site, Running]]:
    output, path = folder / "Output", own(folder / "run") / "web.sock"
    if not output.exists():
        made = make_job(output, "talk", report_of({"es": [line_result(0, "hola")]}), es_mp4=b"film")
        write_lines(made, [line_result(0, "hola")])
    settings = {"DUBBING_WEB_SOCKET": str(path), "DUBBING_TAILSCALE_LOGIN": str(believes).lower()}
    with Site(output, **settings) as site, served(site) as running:
        root = site.user("root", "admin")
        for name, role in ROLES.items():
            site.office.store.set_tailscale_login(root.actor, site.user(name, role).id, f"{name}@example.com")
        yield site, running


@pytest.fixture(scope="module")
def town(folder: Path) -> Iterator[tuple[Site, Running]]:
    """A server that believes the headers, on its socket and on TCP."""
    with serving(folder, True) as made:
        yield made


@pytest.fixture
def site(town: tuple[Site, Running]) -> Site:
    return town[0]


@contextmanager
def caller(site: Site, login: str | None = None, cookie: str | None = None) -> Iterator[httpx.Client]:
    """A browser of the tailnet, as tailscaled passes it on."""
    path = str(site.office.settings.web_socket)
    headers = SERVED | {"Sec-Fetch-Site": "same-origin", "User-Agent": "Firefox/1 (iPhone)"}
    headers |= {"Tailscale-User-Login": login, "Tailscale-User-Name": "Somebody"} if login else {}
    headers |= {"Cookie": f"{HOST_COOKIE}={cookie}"} if cookie else {}
    with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url=BOX, headers=headers, timeout=60) as client:
        yield client


def go_in(client: httpx.Client, page: str = "/ui/settings") -> httpx.Response:
    """What a browser without a cookie does: it asks for a page, and is led to the entrance."""
    first = client.get(page)
    assert (first.status_code, first.headers["location"]) == (303, f"/ui/login?next={page}")
    return client.get(first.headers["location"])


def secret_of(answer: httpx.Response) -> str:
    found = re.match(rf"{HOST_COOKIE}=([^;]+);", answer.headers["set-cookie"])
    assert found, answer.headers
    return found[1]


def test_whom_the_tailnet_names_is_in_with_a_cookie_for_https_alone(site: Site) -> None:
    with caller(site, "ana@example.com") as browser:
        answer = go_in(browser)
        cookie = answer.headers["set-cookie"].lower()
        secret = secret_of(answer)

    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/settings")
    assert all(part in cookie for part in ("; secure", "; httponly", "; samesite=lax", "; path=/"))
    assert site.office.store.session_user(secret) == site.user("ana")
    with caller(site, None, secret) as browser:
        page = browser.get("/ui/settings")
    assert page.status_code == 200 and "ana" in page.text and "from 100.101.102.103" in page.text
    latest = site.office.store.audit_log(site.user("root", "admin").actor)[0]
    assert (latest.action, latest.subject, latest.address) == ("login", "Tailscale: ana@example.com", "100.101.102.103")


@pytest.mark.parametrize("login", [None, "eve@example.com", "ANA@example.com", "ana", "root", "", "ana@example.com,x"])
def test_whom_no_user_is_like_meets_the_login_page(site: Site, login: str | None) -> None:
    with caller(site, login) as browser:
        answer = go_in(browser)
        assert browser.get("/api/v1/me").status_code == 401

    assert answer.status_code == 200 and "set-cookie" not in answer.headers
    assert 'name="password"' in answer.text and "Go in as" not in answer.text


def test_two_names_at_once_are_none(site: Site) -> None:
    twice = [("Tailscale-User-Login", "ana@example.com"), ("Tailscale-User-Login", "root@example.com")]
    with caller(site) as browser:
        answer = browser.get("/ui/login", headers=[*browser.headers.multi_items(), *twice])
    assert answer.status_code == 200 and "set-cookie" not in answer.headers


def test_who_is_locked_out_stays_out(site: Site) -> None:
    store, root = site.office.store, site.user("root", "admin").actor
    zoe = site.user("zoe")
    store.set_tailscale_login(root, zoe.id, "zoe@example.com")
    with caller(site, "zoe@example.com") as browser:
        secret = secret_of(go_in(browser))
        store.change_account(root, zoe.id, disabled=True)
        assert go_in(browser).status_code == 200
    with caller(site, None, secret) as browser:
        assert browser.get("/ui/jobs").status_code == 303


def test_the_name_opens_no_page_by_itself_and_pictures_of_other_sites_open_no_session(site: Site) -> None:
    before = len(site.office.store.sessions(site.user("ana").id))
    with caller(site, "ana@example.com") as browser:
        assert browser.get("/ui/jobs").status_code == 303
        assert browser.get("/api/v1/jobs").status_code == 401
        for dest in ("image", "iframe", "empty"):
            answer = browser.get("/ui/login", headers={"Sec-Fetch-Dest": dest, "Sec-Fetch-Site": "cross-site"})
            assert answer.status_code == 200 and "set-cookie" not in answer.headers
    assert len(site.office.store.sessions(site.user("ana").id)) == before


def test_who_logs_out_is_out_until_he_asks_to_go_in_again(site: Site) -> None:
    with caller(site, "ana@example.com") as browser:
        secret = secret_of(go_in(browser))
    with caller(site, "ana@example.com", secret) as browser:
        left = browser.post("/ui/logout")
    assert (left.status_code, left.headers["location"]) == (303, "/ui/login?left=true")
    with caller(site, "ana@example.com") as browser:
        page = browser.get(left.headers["location"])
        assert page.status_code == 200 and "Go in as ana" in page.text
        assert secret_of(browser.get("/ui/login?next=/ui/jobs"))
    assert site.office.store.session_user(secret) is None


def test_a_password_opens_the_socket_too(site: Site) -> None:
    with caller(site) as browser:
        answer = browser.post("/ui/login", data={"name": "ana", "password": "correct horse battery"})
    assert answer.status_code == 303 and site.office.store.session_user(secret_of(answer)) == site.user("ana")


def test_a_session_of_the_socket_obeys_requests_of_its_own_pages_alone(site: Site) -> None:
    with caller(site, "ana@example.com") as browser:
        secret = secret_of(go_in(browser))
    with caller(site, "ana@example.com", secret) as browser:
        refusals = [
            browser.post("/ui/settings/sessions/end-others", headers={"Sec-Fetch-Site": "cross-site"}),
            browser.post("/ui/login", headers={"Sec-Fetch-Site": "cross-site"}, data={"name": "ana", "password": "x"}),
        ]
        del browser.headers["sec-fetch-site"]
        refusals += [
            browser.post("/ui/settings/sessions/end-others", headers={"Origin": "https://evil.example"}),
            browser.post("/ui/settings/sessions/end-others"),
        ]
        allowed = browser.post("/ui/settings/sessions/end-others", headers={"Origin": "https://box.tail1234.ts.net"})
    assert [answer.status_code for answer in refusals] == [403] * 4
    assert allowed.status_code == 303


def test_roles_mean_on_the_socket_what_they_mean_elsewhere(site: Site) -> None:
    secrets = {}
    for name in ("ana", "vera"):
        with caller(site, f"{name}@example.com") as browser:
            secrets[name] = secret_of(go_in(browser, "/ui/jobs"))
    with (
        caller(site, "vera@example.com", secrets["vera"]) as viewer,
        caller(site, "ana@example.com", secrets["ana"]) as user,
        caller(site, "root@example.com") as stranger,
    ):
        for method, path, whom in routes(site):
            where, what = address(site, path), f"{method} {path}"
            if whom != "open":
                assert stranger.request(method, where).status_code in (303, 401), what
            if whom in ("writer", "admin") and method not in ("GET", "HEAD"):
                assert viewer.request(method, where).status_code == 403, what
            if whom == "admin":
                assert user.request(method, where).status_code == 403, what
            if "{job_id}" in path and method == "GET":
                assert user.request(method, where).status_code == 404, what


def test_over_tcp_nobodys_word_about_himself_counts(town: tuple[Site, Running]) -> None:
    site, running = town
    spoofed = SERVED | {"Tailscale-User-Login": "root@example.com", "Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=running.address, headers=spoofed, timeout=60) as client:
        login = client.get("/ui/login")
        assert login.status_code == 200 and "set-cookie" not in login.headers and "Go in as" not in login.text
        assert client.get("/ui/admin").status_code == 303 and client.get("/api/v1/me").status_code == 401
        answer = client.post("/ui/login", data={"name": "ana", "password": "correct horse battery"})
    cookie = answer.headers["set-cookie"]  # X-Forwarded-Proto counts as little
    assert cookie.startswith(f"{COOKIE}=") and "secure" not in cookie.lower()
    assert site.office.store.audit_log(site.user("root", "admin").actor)[0].address == "127.0.0.1"


@pytest.mark.parametrize("mode", [{}, {"REMOTE_ACCESS_MODE": "tailscale"},
                                  {"REMOTE_ACCESS_MODE": "proxy", "DUBBING_TRUSTED_PROXIES": "127.0.0.1"}])  # fmt: skip
def test_no_mode_believes_identity_headers_over_tcp(tmp_path: Path, mode: dict[str, str]) -> None:
    path = str(own(tmp_path / "run") / "web.sock")
    settings = {"DUBBING_WEB_SOCKET": path, "DUBBING_TAILSCALE_LOGIN": "true"} | mode
    with Site(tmp_path / "Output", **settings) as site:
        root = site.user("root", "admin")
        site.office.store.set_tailscale_login(root.actor, root.id, "root@example.com")
        with site.client(None, base="http://127.0.0.1") as client:
            answer = client.get("/ui/login", headers=SERVED | {"Tailscale-User-Login": "root@example.com"})
    assert answer.status_code == 200 and "set-cookie" not in answer.headers and 'name="password"' in answer.text


def test_requests_of_the_internet_are_turned_away_from_the_socket(site: Site) -> None:
    with caller(site, "ana@example.com") as browser:
        funnel = browser.get("/ui/login", headers={"Tailscale-Funnel-Request": "?1"})
        others = [browser.get("/ui/login", headers={"X-Forwarded-For": hop}) for hop in ("8.8.8.8", "192.168.1.5", "x")]
        behind = browser.get("/livez", headers={"X-Forwarded-For": "8.8.8.8, 100.64.0.1"})
    assert [answer.status_code for answer in (funnel, *others, behind)] == [403, 403, 403, 403, 200]


def test_switched_off_the_header_is_ignored_and_the_socket_still_serves(tmp_path: Path) -> None:
    with serving(tmp_path, False) as (site, _), caller(site, "ana@example.com") as browser:
        answer = go_in(browser)
        assert answer.status_code == 200 and "Go in as" not in answer.text and "set-cookie" not in answer.headers
        entered = browser.post("/ui/login", data={"name": "ana", "password": "correct horse battery"})
        assert entered.status_code == 303 and entered.headers["set-cookie"].startswith(HOST_COOKIE)


def test_administrators_set_the_login_where_it_counts(site: Site, tmp_path: Path) -> None:
    root, max_ = site.client(), site.user("max")
    assert f'id="tailscale-{max_.id}"' in root.get("/ui/admin").text
    fields = {"role": "user", "active": "true", "tailscale": " max@example.com ", "tailscale_shown": "true"}
    assert root.post(f"/ui/admin/users/{max_.id}", data=fields, follow_redirects=False).status_code == 303
    with caller(site, "max@example.com") as browser:
        assert secret_of(go_in(browser))

    taken = root.post(f"/ui/admin/users/{max_.id}", data=fields | {"role": "admin", "tailscale": "ana@example.com"})
    assert taken.status_code == 409 and site.user("max").role == "user"
    root.post(f"/ui/admin/users/{max_.id}", data={"role": "user", "active": "true"})  # a form without the field
    assert site.user("max").tailscale_login == "max@example.com"
    root.post(f"/ui/admin/users/{max_.id}", data=fields | {"tailscale": ""})
    with caller(site, "max@example.com") as browser:
        assert go_in(browser).status_code == 200
    assert site.office.store.sessions(max_.id) == []
    with Site(tmp_path / "Output") as other:
        assert "tailscale" not in other.client().get("/ui/admin").text


# --- the socket itself --------------------------------------------------------------------------------------------------


def settings_of(path: Path, **more: str):  # type: ignore[no-untyped-def]
    return load({"DUBBING_WEB_SOCKET": str(path)} | more, env_file=None, secrets_file=None)


def refusal(path: Path) -> str:
    with pytest.raises(SettingsError) as refused, tailnet.listening(settings_of(path)):
        pass
    return f"{refused.value.message} {refused.value.advice}"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o600])
def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    folder = own(tmp_path / "run")
    folder.chmod(mode)
    try:
        said = refusal(folder / "web.sock")
    finally:
        folder.chmod(0o700)
    if os.geteuid() == 0 or mode != 0o600:
        assert f"must have mode 0700, not {mode:04o}" in said and f"chmod 700 {folder}" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = own(tmp_path / "run")
    os.chown(folder, 65534, -1)
    assert "must belong to the user that runs the server" in refusal(folder / "web.sock")


def test_a_folder_that_is_missing_or_a_link_and_a_name_that_is_taken_are_refused(tmp_path: Path) -> None:
    assert f"install -d -m 700 {tmp_path}/no" in refusal(tmp_path / "no" / "web.sock")
    folder = own(tmp_path / "run")
    (tmp_path / "link").symlink_to(folder)
    assert "cannot be opened" in refusal(tmp_path / "link" / "web.sock")
    (folder / "web.sock").write_text("mine")
    assert "something that is no socket" in refusal(folder / "web.sock")
    assert (folder / "web.sock").read_text() == "mine"
    assert "cannot be listened on" in refusal(folder / ("x" * 120))


def test_a_socket_that_nobody_listens_on_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = own(tmp_path / "run") / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    old = path.stat().st_ino
    with tailnet.listening(settings_of(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "another server listens there" in refusal(path)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
    assert not path.exists() and old


def test_of_two_servers_that_start_at_once_one_listens(tmp_path: Path) -> None:
    path, told, end = own(tmp_path / "run") / "web.sock", [], threading.Event()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    both, done = threading.Barrier(6), threading.Barrier(7)

    def start() -> None:
        both.wait(60)
        try:
            with tailnet.listening(settings_of(path)):
                told.append("listens")
                done.wait(60)
                end.wait(60)
        except SettingsError:
            told.append("refused")
            done.wait(60)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    done.wait(60)
    try:
        assert sorted(told) == ["listens", *["refused"] * 5]
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
    finally:
        end.set()
        for thread in threads:
            thread.join(60)


def test_the_program_says_what_is_wrong_and_listens_on_both(tmp_path: Path) -> None:
    base = {"DUBBING_OUTPUT_DIR": str(tmp_path / "Output"), "PORT": "0", "QUEUE_MODE": "fallback"}
    command = [sys.executable, "-m", "dubbing.web.server", "--pages-only"]

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=environment(**base, **more), cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    (tmp_path / "open").mkdir(mode=0o755)
    wrong = run(DUBBING_WEB_SOCKET=str(tmp_path / "open" / "web.sock"))
    alone = run(DUBBING_TAILSCALE_LOGIN="true")
    assert wrong.returncode == 2 and "must have mode 0700" in wrong.stderr and "Traceback" not in wrong.stderr
    assert alone.returncode == 2 and "Set DUBBING_WEB_SOCKET, too." in alone.stderr

    path = own(tmp_path / "run") / "web.sock"
    values = environment(**base, DUBBING_WEB_SOCKET=str(path))
    with subprocess.Popen(command, env=values, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            first, second = process.stdout.readline(), process.stdout.readline()
            assert "is ready" in first and f"{path} is ready; everybody logs in" in second
            found = re.search(r"http://\S+?/", first)
            assert found and httpx.get(f"{found[0]}livez", timeout=60).text == "ok\n"
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=60) as client:
                assert client.get(f"{BOX}/livez").text == "ok\n"
        finally:
            process.terminate()
            process.wait(60)
    assert not path.exists()
