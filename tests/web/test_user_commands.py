"""`dub user` makes and changes users without a browser; passwords never stand in its arguments."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dubbing import cli, config
from dubbing.passwords import is_right
from dubbing.store import Store, open_store
from tests.web.conftest import environment

SENTENCE = "correct horse battery"
Dub = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dub(tmp_path: Path) -> Dub:
    """Run `dub user ...` in this process's stead, with something piped in."""

    def run(*arguments: str, piped: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dubbing.cli", "user", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(), input=piped, capture_output=True, text=True, timeout=120
        )

    return run


def store_of(folder: Path) -> Store:
    settings = config.load({"DUBBING_OUTPUT_DIR": str(folder / "Output")}, env_file=None, secrets_file=None)
    return open_store(settings)


def told(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_users_are_made_listed_locked_out_and_let_in_again(dub: Dub, tmp_path: Path) -> None:
    assert dub("add", "root", "--admin", piped=f"{SENTENCE}\n").stdout == "root can log in now (admin)\n"
    assert told(dub("add", "vera", "--role", "viewer", "--json", piped=SENTENCE))["role"] == "viewer"
    assert dub("disable", "vera").stdout == "vera is locked out; the sessions have ended\n"
    assert [(u["name"], u["state"]) for u in told(dub("list", "--json"))] == [
        ("root", "can log in"),
        ("vera", "disabled"),
    ]
    assert dub("enable", "vera").returncode == 0

    store = store_of(tmp_path)
    root = store.user_by_name("root")
    assert is_right(SENTENCE, root.password_hash)
    actions = [entry.action for entry in store.audit_log(root.actor)]
    assert actions == ["user_enabled", "user_disabled", "user_added", "user_added"]
    store.close()


def test_a_user_is_given_the_login_of_a_tailnet_and_loses_it(dub: Dub, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    ana, ben = store.add_user("ana"), store.add_user("ben")
    assert dub("tailscale", "ana", "ana@example.com").stdout == "ana comes in as ana@example.com\n"
    taken = dub("tailscale", "ben", "ana@example.com")
    assert taken.returncode == 2 and "The name ana@example.com is taken." in taken.stderr
    assert (store.user(ana.id).tailscale_login, store.user(ben.id).tailscale_login) == ("ana@example.com", None)
    assert told(dub("tailscale", "ana", "--json"))["tailscale_login"] is None
    store.close()


def test_what_cannot_be_done_is_said_and_leaves_nothing(dub: Dub) -> None:
    assert "12 are needed" in dub("add", "ana", piped="short\n").stderr
    assert dub("add", "root", "--admin", piped=SENTENCE).returncode == 0
    last = dub("disable", "root")
    assert last.returncode == 2
    assert "root is the last administrator who can log in" in last.stderr
    assert "There is no user nobody" in dub("password", "nobody", piped=SENTENCE).stderr
    assert [user["name"] for user in told(dub("list", "--json"))] == ["root"]


def test_a_new_password_ends_sessions_and_an_invitation_makes_a_user(dub: Dub, tmp_path: Path) -> None:
    dub("add", "root", "--admin", piped=SENTENCE)
    store = store_of(tmp_path)
    root = store.user_by_name("root")
    store.open_session(root.id, "browser")

    assert dub("password", "root", piped="another long sentence\n").returncode == 0
    assert store.session_user("browser") is None
    assert is_right("another long sentence", store.user(root.id).password_hash)

    path = told(dub("invite", "--role", "viewer", "--json"))["path"]
    secret = path.rpartition("/")[2]
    assert store.accept_invite(secret, "vera", "hash").role == "viewer"
    store.close()


def test_there_is_no_argument_for_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["user", "add", "ana", SENTENCE])
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["user", "add", "ana", "--password", SENTENCE])
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(("second", "differs"), [(SENTENCE, False), ("another one", True)])
def test_at_a_terminal_the_password_is_typed_twice_and_not_shown(second: str, differs: bool, tmp_path: Path) -> None:
    """In a terminal of its own, where getpass finds one."""
    main, end = pty.openpty()
    command = [sys.executable, "-m", "dubbing.cli", "user", "add", "ana"]
    done = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdin=end, stdout=end, stderr=end, start_new_session=True
    )
    os.close(end)
    shown, typed = b"", [SENTENCE, second]
    try:
        while chunk := read(main):
            shown += chunk
            if typed and shown.count(b": ") == 3 - len(typed):
                os.write(main, typed.pop(0).encode() + b"\n")
        code = done.wait(timeout=120)
    finally:
        done.kill()
        os.close(main)
    assert SENTENCE.encode() not in shown
    assert code == (2 if differs else 0), shown


def read(terminal: int) -> bytes:
    """What came next; empty at the end, which Linux tells as an error."""
    try:
        return os.read(terminal, 1024)
    except OSError:
        return b""
