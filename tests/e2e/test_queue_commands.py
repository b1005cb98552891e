"""The commands over the queue, as a user types them; no Ray is needed to put a job in line, look at it or take it out."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dubbing import config, orders
from dubbing.errors import UsageError
from dubbing.job_options import moment
from dubbing.store import Fence, open_store
from dubbing.types import DubRequest
from tests.services import wait_until
from tests.web.conftest import line_result, make_job, report_of, write_lines

ROOT = Path(__file__).resolve().parents[2]
Dub = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dub(tmp_path: Path) -> Dub:
    """Run `dub` in a folder of its own, with the SQLite queue."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("DUBBING_", "REDIS", "QUEUE"))}

    def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dubbing.cli", *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env={**clean, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True
        )

    return run


@pytest.fixture
def film(tmp_path: Path, require_program: Any) -> Path:
    path = tmp_path / "film.wav"
    wave = "sine=frequency=300:duration=90"
    subprocess.run([require_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", wave, path], check=True)
    return path


def told(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_submitted_job_is_queued_and_can_be_found_by_the_beginning_of_its_id(dub: Dub, film: Path) -> None:
    submitted = dub("submit", film, "--to", "es,ca", "--user", "ana", "--priority", "80")
    job_id = submitted.stdout.strip()
    facts = told(dub("status", job_id[:8], "--json"))

    assert len(job_id) == 32
    assert "SQLite, because REDIS_URL is not set" in submitted.stderr
    assert (facts["id"], facts["state"], facts["user"], facts["priority"]) == (job_id, "queued", "ana", 80)
    assert facts["targets"] == ["es", "ca"]
    assert job_id[:8] in dub("jobs").stdout
    assert "film.wav -> es, ca" in dub("status", job_id).stdout


def test_a_waiting_job_is_cancelled_and_put_back(dub: Dub, film: Path) -> None:
    job_id = dub("submit", film, "--to", "es").stdout.strip()
    assert dub("cancel", job_id).stdout == f"{job_id} cancelled\n"
    watched = dub("watch", job_id)
    again = dub("cancel", job_id)

    assert watched.returncode == 6
    assert again.returncode == 2
    assert f"The job {job_id} is cancelled, so it cannot be cancelled" in again.stderr
    assert told(dub("retry", job_id, "--json"))["state"] == "queued"


def test_a_job_is_paused_and_resumed(dub: Dub, film: Path) -> None:
    job_id = dub("submit", film, "--to", "es").stdout.strip()
    assert dub("pause", job_id).stdout == f"{job_id} paused\n"
    assert dub("resume", job_id).stdout == f"{job_id} queued\n"
    assert dub("resume", job_id).returncode == 2


def test_a_pause_of_one_user_and_of_everybody_is_shown_by_queue(dub: Dub, film: Path) -> None:
    dub("submit", film, "--to", "es", "--user", "ana")
    assert dub("pause", "--user", "ana").returncode == dub("pause").returncode == 0
    paused = told(dub("queue", "--json"))["settings"]
    dub("resume", "--user", "ana")
    dub("resume")

    assert sorted(key.split(":")[0] for key in paused if key.endswith(":paused")) == ["global", "user"]
    assert [key for key in told(dub("queue", "--json"))["settings"] if key.endswith(":paused")] == []
    assert "pending" in dub("queue").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("submit", "absent.mp4", "--to", "es"), 3, "absent.mp4"),
        (("submit", "film.wav", "--to", "spanish!"), 3, "is not a language tag"),
        (("submit", "film.wav", "--to", "es", "--priority", "101"), 2, "The priority must be 0 to 100"),
        (("submit", "film.wav", "--to", "es", "--user", "a b"), 2, "The user name 'a b' must be"),
        (("submit", "film.wav", "--to", "es", "--at", "noon"), 2, "'noon' is not a time"),
        (("status", "deadbeef"), 3, "There is no job deadbeef here"),
        (("cancel", "x"), 3, "There is no job x here"),
        (("pause", "--user", "nobody"), 3, "There is no user nobody here"),
        (("restore", "absent.sqlite3", "--check"), 4, "there is no such file"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(
    dub: Dub, film: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    refused = dub(*arguments)
    assert (refused.returncode, sentence in refused.stderr) == (code, True), refused.stderr
    assert told(dub("jobs", "--json")) == []


def test_the_database_is_copied_checked_and_put_back(dub: Dub, film: Path, tmp_path: Path) -> None:
    kept = dub("submit", film, "--to", "es").stdout.strip()
    saved = told(dub("backup", "copy.sqlite3", "--json"))
    lost = dub("submit", film, "--to", "ca").stdout.strip()

    assert saved["rows"]["job"] == 1
    assert told(dub("restore", "copy.sqlite3", "--check", "--json"))["rows"] == saved["rows"]
    assert len(told(dub("jobs", "--json"))) == 2
    assert dub("restore", "copy.sqlite3").returncode == 0
    assert [job["id"] for job in told(dub("jobs", "--json"))] == [kept] != [lost]
    assert dub("backup", "copy.sqlite3").returncode == 4, "a backup must not overwrite another"


def test_a_damaged_copy_is_not_put_back(dub: Dub, film: Path, tmp_path: Path) -> None:
    dub("submit", film, "--to", "es")
    (tmp_path / "copy.sqlite3").write_bytes(b"not a database" * 100)
    refused = dub("restore", "copy.sqlite3")
    assert refused.returncode == 4
    assert "The backup copy.sqlite3 cannot be used" in refused.stderr
    assert len(told(dub("jobs", "--json"))) == 1


def test_doctor_says_which_queue_is_used_and_why(dub: Dub) -> None:
    def finding(**env: str) -> dict[str, str]:
        return next(f for f in json.loads(dub("doctor", "--json", **env).stdout) if f["name"] == "queue")

    assert finding()["detail"] == "SQLite, because REDIS_URL is not set."
    away = finding(REDIS_URL="redis://127.0.0.1:1/0")
    assert (away["state"], "does not answer" in away["detail"]) == ("warning", True)
    assert finding(QUEUE_MODE="redis", REDIS_URL="redis://127.0.0.1:1/0")["state"] == "error"
    assert finding(QUEUE_MODE="redis")["fix"] == "Set REDIS_URL=redis://host:6379/0."


def test_a_time_of_day_is_the_next_one_and_a_date_is_itself() -> None:
    now = dt.datetime(2030, 1, 31, 22, 0).astimezone()

    def at(text: str) -> dt.datetime:
        return dt.datetime.fromtimestamp(moment(text, now) / 1000).astimezone()

    assert at("22:30") == now + dt.timedelta(minutes=30)
    assert at("21:30") == now + dt.timedelta(hours=23, minutes=30)
    assert at("2030-02-01T06:00") == now + dt.timedelta(hours=8)
    assert (
        moment("2030-02-01T06:00+00:00", now) == dt.datetime(2030, 2, 1, 6, tzinfo=dt.timezone.utc).timestamp() * 1000
    )
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time"):
        moment("25:00", now)


def test_a_request_survives_its_row(tmp_path: Path) -> None:
    request = DubRequest(
        tmp_path / "a film.mp4",
        ("es", "pt-BR"),
        tmp_path,
        translations={"es": tmp_path / "es.srt"},
        start_ms=1500,
        engines={"speak": "espeak-ng"},
        voices={"*": "es"},
    )
    assert orders.from_json(json.loads(json.dumps(orders.to_json(request)))) == request
    with pytest.raises(UsageError, match="source"):
        orders.from_json({"targets": ["es"]})


def test_lines_of_a_finished_dub_are_listed_changed_and_put_back_in_line(dub: Dub, film: Path, tmp_path: Path) -> None:
    job_id = dub("submit", film, "--to", "es").stdout.strip()
    assert "There is no finished dub" in dub("lines", "list", job_id).stderr
    folder = make_job(tmp_path / "Output", "film", report_of({}))
    write_lines(folder, [line_result(i, f"frase {i}", *["late"] * (i == 1)) for i in range(3)])
    settings = config.load({"DUBBING_OUTPUT_DIR": str(tmp_path / "Output")}, env_file=None)
    with contextlib.closing(open_store(settings)) as store:
        fence = Fence(job_id, 1, store.in_charge().backend_epoch)
        assert store.take(fence, owner="test", ttl_ms=60_000)
        assert store.finish(fence, {"report": str(folder / "report.json"), "files": {}, "warnings": []}, warned=False)

    saved = dub("lines", "edit", job_id[:8], "--line", 3, "--text", "la tercera", "--start", "0:05.2", "--lock")
    refused = dub("lines", "edit", job_id, "--to", "es", "--line", 1, "--voice", "nobody")
    nothing = dub("lines", "edit", job_id, "--line", 1)
    listed = dub("lines", "list", job_id)
    late = told(dub("lines", "list", job_id, "--problems", "--json"))["lines"]
    again = told(dub("lines", "redo", job_id, "--line", 1, "--json"))
    changed = told(dub("lines", "list", job_id, "--changed", "--json"))["lines"]

    assert saved.returncode == 0 and "line 3 is saved" in saved.stdout
    assert (refused.returncode, nothing.returncode) == (3, 2) and "there is no voice nobody" in refused.stderr
    assert "   3  0:05.000-0:07.000  S1 (es)  la tercera  [locked, changed]" in listed.stdout
    assert [line["line"] for line in late] == [2]
    assert again["state"] == "queued"
    assert [(line["line"], line["edit"]) for line in changed] == [
        (1, {"redo": 1}),
        (3, {"text": "la tercera", "start_ms": 5200}),
    ]


SERVE = """
import asyncio, sys
from dubbing import cli, queue_commands, roads

class Road:
    async def host_queue(self):
        return {"warnings": [], "slots": {}, "reason": "", "api": "", "said": "ready"}
    async def keep_queue(self):
        await asyncio.sleep(600)
    async def aclose(self):
        print("ending", flush=True)
        await asyncio.sleep(1)
        print("ended", flush=True)

begin = queue_commands._child

def child(*arguments):
    roads.ray_road = lambda *_: Road()
    begin(*arguments)

queue_commands._child = child
if __name__ == "__main__":
    sys.exit(cli.main(["serve", "--json", "--until-eof"]))
"""


def asked_to_serve(folder: Path) -> subprocess.Popen[str]:
    """`dub serve` over a Ray that is none, in a process of its own."""
    (folder / "serve.py").write_text(SERVE)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "serve.py"], cwd=folder, env=env, text=True, **pipes)  # type: ignore


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "signs", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGTERM, signal.SIGINT], []]
)
def test_serve_ends_in_order_however_often_it_is_asked(tmp_path: Path, signs: list[signal.Signals]) -> None:
    """Without signals, its input ends, as when its starter dies."""
    with asked_to_serve(tmp_path) as process:
        try:
            assert process.stdin and process.stdout and process.stderr
            assert '"ready"' in process.stdout.readline()
            for sign in signs[:2]:
                process.send_signal(sign)
            if not signs:
                process.stdin.close()
            assert process.stdout.readline() == "ending\n"
            for sign in signs[2:]:
                process.send_signal(sign)
            assert process.stdout.read() == "ended\n"
            assert process.wait(60) == 0
            assert process.stderr.read() == "dub serve: stopping; running jobs go back in line\n"
        finally:
            process.kill()


@pytest.mark.timeout(120)
def test_serve_ends_too_when_it_is_asked_before_it_began(tmp_path: Path) -> None:
    with asked_to_serve(tmp_path) as process:
        try:
            started = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            wait_until(lambda: len(started.read_text().split()) == 2, 60, "the process that has Ray")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) in (0, 130)
            assert process.stderr and "Traceback" not in process.stderr.read()
        finally:
            process.kill()
