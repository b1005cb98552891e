"""`dub` and servers that are not what they should be, breaks in the middle of files, and settings that cannot be."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dubbing import config
from dubbing.remote.downloads import Fetcher
from dubbing.remote.server import Server
from dubbing.remote_errors import ServerUnreachableError
from tests.web.conftest import environment
from tests.web.far import PROBLEM, Asked, Far, Reply, double
from tests.web.served import free_port

FILM = b"film" * 100_000


def listing(*names: str, body: bytes = FILM) -> list[dict[str, object]]:
    return [{"name": name, "size": len(body), "changed_ms": 1_700_000_000_000} for name in names]


def job_facts(**more: object) -> dict[str, object]:
    facts: dict[str, object] = dict.fromkeys(("asked", "result", "error", "started_ms", "finished_ms"))
    facts |= dict.fromkeys(("priority", "attempt", "crash_count", "created_ms", "run_at_ms"), 0)
    return (
        facts
        | {"id": "a" * 32, "progress": [], "state": "done", "user_id": "u", "source": "x.mp4", "targets": ["es"]}
        | more
    )


def of_server(
    files: list[dict[str, object]], names: list[str], film: Callable[[Asked], Reply]
) -> Callable[[Asked], Reply]:
    """A server with one job, whose results it calls so."""
    result = {"report": "report.json", "files": {"es": names}, "warnings": []}

    def answer(asked: Asked) -> Reply:
        path = asked.path.removeprefix("/api/v1")
        if path == "/me":
            return Reply.of({"id": "u", "name": "ana", "role": "user"})
        if path == f"/jobs/{'a' * 32}":
            return Reply.of(job_facts(result=result))
        return Reply.of({"files": files}) if path.endswith("/files") else film(asked)

    return answer


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "..", "", ".ssh", "a\\b", "a\0b", "a\nb", "x" * 300])
def test_a_name_from_the_server_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    served_names = [name.rpartition("/")[2] or name]

    with double(of_server(listing(name, "report.json"), [name], lambda _: Reply(body=FILM))) as (address, _):
        refused = Far(tmp_path / "home", address, "k")("fetch", "a" * 32)

    assert served_names and refused.code in (3, 5), refused.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "Output" in path.parts]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_connection_that_breaks_in_the_middle_of_a_file_costs_only_the_rest(tmp_path: Path) -> None:
    def film(asked: Asked) -> Reply:
        begin = int(re.sub(r"\D", "", asked.headers.get("Range", "0")))
        if begin == 0:
            return Reply(200, {}, FILM, cut_after=100_000)
        return Reply(206, {"Content-Range": f"bytes {begin}-{len(FILM) - 1}/{len(FILM)}"}, FILM[begin:])

    with double(of_server(listing("x.es.mp4", "report.json"), ["x.es.mp4"], film)) as (address, seen):
        done = Far(tmp_path, address, "k")("fetch", "a" * 32)

    assert done.code == 0, done.err
    assert (tmp_path / "Output" / "x-aaaaaaaa" / "x.es.mp4").read_bytes() == FILM
    ranges = [asked.headers.get("Range") for asked in seen if asked.path.endswith("x.es.mp4")]
    assert ranges == [None, "bytes=100000-"]


def test_a_server_that_sends_no_more_of_a_file_is_given_up_and_the_rest_kept(tmp_path: Path) -> None:
    def film(asked: Asked) -> Reply:
        begin = int(re.sub(r"\D", "", asked.headers.get("Range", "0")))
        if begin == 0:
            return Reply(200, {}, FILM, cut_after=100_000)
        return Reply(206, {"Content-Range": f"bytes {begin}-{len(FILM) - 1}/{len(FILM)}"}, FILM[begin:], cut_after=0)

    waits: list[float] = []
    told: list[int] = []
    answers = of_server(listing("x.es.mp4"), ["x.es.mp4"], film)
    with double(answers) as (address, _), contextlib.closing(Server(address, "k")) as server:
        fetcher = Fetcher(server, lambda _name, done, _all: told.append(done), sleep=waits.append)
        with pytest.raises(ServerUnreachableError):
            fetcher.fetch("a" * 32, ["x.es.mp4"], tmp_path)

    assert max(told) == 100_000 and 0 < len(waits) <= 10
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [100_000]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with double(of_server(listing("x.es.mp4", "report.json"), ["x.es.mp4"], lambda _: Reply(body=FILM))) as (there, _):
        refused = Far(tmp_path, there, "k")("fetch", "a" * 32, "--output-dir", "file")
    assert (refused.code, "cannot be made (Not a directory)" in refused.err) == (2, True), refused.err


def test_a_file_that_changes_while_it_is_fetched_is_not_put_together_from_two(tmp_path: Path) -> None:
    with double(of_server(listing("x.es.mp4", "report.json"), ["x.es.mp4"], lambda _: Reply(body=b"other"))) as (
        there,
        _,
    ):
        refused = Far(tmp_path, there, "k")("fetch", "a" * 32)

    assert refused.code == 5 and "was changed while it was fetched" in refused.err
    assert not list(tmp_path.rglob("x.es.mp4"))


# --- servers that are not what they should be ---------------------------------------------------------------------------


def html(_: Asked) -> Reply:
    return Reply(200, {"Content-Type": "text/html; charset=utf-8"}, b"<h1>Welcome</h1>")


STRANGE = {
    "a page": (html, 5, "server_foreign", "it answers 200 with text/html"),
    "another API": (lambda _: Reply.of({"hello": 1}), 5, "server_foreign", "its answer lacks jobs"),
    "an older server": (
        lambda _: Reply.of({"title": "There is no such page here", "code": "not_found"}, 404, PROBLEM),
        5, "server_foreign", "it has no /api/v1/jobs",
    ),
    "an older route": (
        lambda _: Reply.of({"title": "Method Not Allowed", "code": "method_not_allowed"}, 405, PROBLEM),
        5, "server_foreign", "it has no /api/v1/jobs",
    ),
    "a login of its own": (lambda _: Reply(401, {"Content-Type": "text/html"}, b"no"), 5, "server_foreign", "answers 401"),
    "a door in front": (
        lambda _: Reply(400, {"Content-Type": "text/plain"}, b"Invalid host header"),
        5, "server_foreign", "it answers 400 with text/plain, 'Invalid host header'",
    ),
    "a proxy without a server": (lambda _: Reply(502, {}, b"Bad Gateway"), 5, "server_unreachable", "a proxy before it"),
    "a problem of its own": (
        lambda _: Reply.of({"title": "It {is} full", "detail": "Wait.", "code": "disk_full", "retryable": True}, 507, PROBLEM),
        4, "disk_full", "It {is} full",
    ),
    "an unknown problem": (
        lambda _: Reply.of({"title": "New", "code": "of_the_future"}, 418, PROBLEM), 1, "internal", "New",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRANGE)
def test_what_a_strange_server_says_is_told_as_what_it_is(tmp_path: Path, kind: str) -> None:
    answer, code, name, sentence = STRANGE[kind]
    with double(answer) as (address, _):
        there = Far(tmp_path, address, "k")
        refused, told = there("jobs"), there("jobs", "--json").told["error"]

    assert (refused.code, sentence in refused.err) == (code, True), refused.err
    assert told["code"] == name
    assert 1 <= len(refused.err.splitlines()) <= 3


def test_a_redirect_is_told_and_never_followed_and_the_key_stays_here(tmp_path: Path) -> None:
    with double(html) as (elsewhere, reached):
        for status in (301, 302, 303, 307, 308):
            moved = Reply(status, {"Location": f"{elsewhere}/api/v1/jobs?limit=20"})
            with double(lambda _, moved=moved: moved) as (address, seen):
                refused = Far(tmp_path, address, "dub_secret")("jobs")
            assert (refused.code, f"sends elsewhere, to {elsewhere}/api/v1/jobs." in refused.err) == (5, True), (
                refused.err
            )
            assert [asked.headers["Authorization"] for asked in seen] == ["Bearer dub_secret"]
            assert "dub_secret" not in refused.err + refused.out and "dub_secret" not in seen[0].path
    assert reached == []


def test_a_server_that_is_not_there_or_speaks_something_else_is_told(tmp_path: Path) -> None:
    nobody = Far(tmp_path, f"http://127.0.0.1:{free_port()}", "k")("jobs")
    unknown = Far(tmp_path, "http://no-such-host.invalid", "k")("jobs")
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=_shout, args=(other,)).start()
        strange = Far(tmp_path, f"http://127.0.0.1:{other.getsockname()[1]}", "k")("jobs")

    assert nobody.code == unknown.code == strange.code == 5
    assert "cannot be reached: Connection refused" in nobody.err
    assert "cannot be reached" in unknown.err
    assert "it does not speak HTTP" in strange.err


def _shout(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"220 mail.example.net ESMTP\r\n")


def test_a_server_whose_certificate_is_not_trusted_is_sent_nothing(
    tmp_path: Path, require_program: Callable[..., str]
) -> None:
    command = [
        require_program("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]
    command += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with double(lambda _: Reply.of({"jobs": [], "cursor": None}), tls=tmp_path) as (address, seen):
        refused = Far(tmp_path, address, "k")("jobs")
        unheard = list(seen)
        trusted = Far(tmp_path, address, "k")("jobs", SSL_CERT_FILE=str(tmp_path / "cert.pem"))
    with double(html) as (plain, _):
        not_tls = Far(tmp_path, plain.replace("http:", "https:"), "k")("jobs")

    assert (refused.code, "does not prove that it is the one it says: self" in refused.err) == (5, True), refused.err
    assert unheard == [] and trusted.code == 0
    assert (not_tls.code, "does not prove" in not_tls.err) == (5, True), not_tls.err


def test_a_question_is_asked_again_while_a_server_starts_anew_but_a_change_is_not(tmp_path: Path) -> None:
    away = Reply(503, {"Content-Type": "text/html"}, b"starting")
    asked_before: list[str] = []

    def answer(asked: Asked) -> Reply:
        asked_before.append(asked.method)
        if asked.path.endswith("/me"):
            return Reply.of({"id": "u", "name": "ana", "role": "user"})
        if asked.method == "POST" or asked_before.count("GET") in (2, 3):
            return away
        return Reply.of(job_facts(state="queued"))

    with double(answer) as (address, _), contextlib.closing(Server(address, "k", sleep=lambda _: None)) as server:
        server.json("GET", f"/jobs/{'a' * 32}")
        server.json("GET", f"/jobs/{'a' * 32}")
        with pytest.raises(ServerUnreachableError):
            server.json("POST", f"/jobs/{'a' * 32}/cancel")

    assert asked_before == ["GET"] * 4 + ["POST"]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("serve",), ("backup", "copy"), ("restore", "copy", "--check"), ("doctor",), ("languages",), ("engines",),
        ("voices", "es"), ("models", "list"), ("models", "verify"), ("models", "fetch", "x"), ("user", "list"),
        ("user", "add", "x"), ("user", "invite"), ("user", "disable", "x"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_of_this_machine_alone_says_so(tmp_path: Path, words: tuple[str, ...]) -> None:
    refused = Far(tmp_path, "http://127.0.0.1:1", "k")(*words)
    name = " ".join(word for word in words[:2] if words[0] in ("models", "user")) or words[0]
    assert (refused.code, refused.err.splitlines()[0]) == (
        2, f"dub: `dub {name}` works on this machine alone, and DUBBING_URL names a server.",
    )  # fmt: skip


def test_the_server_itself_does_not_start_under_the_address_of_another(tmp_path: Path) -> None:
    env = environment(DUBBING_URL="http://127.0.0.1:1", DUBBING_OUTPUT_DIR=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "dubbing.web.server", "--pages-only"],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2 and "`dubbing-web` works on this machine alone" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("DUBBING_URL", "dub.example.net", "dub.example.net"),
        ("DUBBING_URL", "ftp://dub.example.net", "ftp:"),
        ("DUBBING_URL", "https://ana:secret@dub.example.net", ""),
        ("DUBBING_URL", "https://dub.example.net/?key=dub_secret", ""),
        ("DUBBING_URL", "http://127.0.0.1:99999", "99999"),
        ("DUBBING_API_KEY", "dub_secret with a space", "***"),
    ],
)
def test_addresses_and_keys_that_cannot_be_are_refused_and_secrets_not_repeated(
    tmp_path: Path, name: str, value: str, shown: str
) -> None:
    refused = Far(tmp_path, "http://127.0.0.1:1", "k")("jobs", **{name: value})
    assert (refused.code, name in refused.err, shown in refused.err) == (2, True, True), refused.err
    assert "secret" not in refused.err.replace(".env.secrets", "")


def test_the_key_is_a_secret_that_only_the_client_has(tmp_path: Path) -> None:
    secrets = tmp_path / ".env.secrets"
    secrets.write_text("DUBBING_API_KEY=dub_from_file\n")
    settings = config.load({"DUBBING_URL": "https://dub.example.net"}, env_file=None, secrets_file=secrets)

    assert settings.api_key == "dub_from_file" and settings.without_secrets().api_key is None
    assert "dub_from_file" not in repr(settings)
    assert ("DUBBING_API_KEY", "***", True) in config.shown(settings)


def test_commands_load_only_what_their_side_needs(tmp_path: Path) -> None:
    code = (
        "import sys; from dubbing import cli\n"
        "cli.main(['jobs'])\n"
        "print([name for name in ('dubbing.remote', 'sqlalchemy', 'dubbing.store', 'fastapi', 'ray') if name in sys.modules])"
    )

    def loaded(**more: str) -> str:
        env = environment(DUBBING_OUTPUT_DIR=str(tmp_path / "Output"), **more)
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        return done.stdout.splitlines()[-1]

    assert loaded() == "['sqlalchemy', 'dubbing.store']"
    assert loaded(DUBBING_URL="http://127.0.0.1:1", DUBBING_API_KEY="k") == "['dubbing.remote']"
