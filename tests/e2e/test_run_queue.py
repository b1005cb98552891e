"""`dub run` beside a running server: handed over, found again, stopped, lost. The server is a dispatcher without Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dubbing import config
from dubbing.dispatcher import Dispatcher
from dubbing.errors import NoSpeechError
from dubbing.jobs import Actor, Job, State
from dubbing.launching import Report
from dubbing.queue.choose import choose_queue
from dubbing.store import open_store
from tests.queue.workshop import FakeLauncher
from tests.services import wait_until

ROOT = Path(__file__).resolve().parents[2]
ADMIN = Actor("test", "admin")
ENGINES = {"transcribe": ["pocketsphinx"], "translate": ["apertium"], "speak": ["espeak-ng"]}
LOOK = """
import json, sys
from sqlalchemy import Engine, event
begun, looks = {"BEGIN": 0, "BEGIN IMMEDIATE": 0}, 0
seen = open("seen", "a", buffering=1)

@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *_):
    global looks
    begun[statement] = begun.get(statement, 0) + 1
    looks += "FROM event" in statement
    if "FROM dispatcher" in statement:
        seen.write("who is there\\n")

from dubbing import cli
status = cli.main(sys.argv[1:])
facts = {"ray": "ray" in sys.modules, "writes": begun["BEGIN IMMEDIATE"], "reads": begun["BEGIN"] - looks}
sys.stderr.write("\\nfacts " + json.dumps(facts) + "\\n")
sys.exit(status)
"""


class Server:
    """A dispatcher over the folder's database; `work` decides what becomes of a job that is launched."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.settings = config.load({**env, "DUBBING_STATE_DIR": str(folder / "Output" / "_state")}, None, None)
        self.folder = folder
        self.store = open_store(self.settings)
        self.choice = choose_queue(self.settings, now_ms=self.store.clock_ms())
        self.launcher = FakeLauncher(on_launch=self._launch)
        self.dispatcher = Dispatcher(self.store, self.choice, self.launcher, name="server", facts={"engines": ENGINES})
        self.work: Callable[[Job], Report | None] = self.done
        self.end_of_stopped: Callable[[Job], Report] = lambda job: Report(job.id, job.epoch, "stopped")
        self.running: list[Job] = []
        self.stopped = threading.Event()
        self.dispatcher.start()
        self.thread = threading.Thread(target=self.dispatcher.go_on)
        self.thread.start()
        self.beating = threading.Thread(target=self._heartbeats)
        self.beating.start()

    def _launch(self, job: Job) -> None:
        report = self.work(job)
        if report is None:
            self.running.append(job)
        else:
            self.dispatcher.report(report)

    def _heartbeats(self) -> None:
        """What a launcher does: each running job reports, and stops when it is told to."""
        while not self.stopped.wait(0.05):
            for job in list(self.running):
                progress = {
                    "stages": [{"stage": "speak", "target": "es", "done": 1, "total": 3, "eta_s": None, "note": ""}]
                }
                if self.dispatcher.heartbeat(job.id, job.epoch, progress) != "go on":
                    self.running.remove(job)
                    self.dispatcher.report(self.end_of_stopped(job))

    def done(self, job: Job) -> Report:
        report, film = self.folder / "report.json", self.folder / "film.es.mp4"
        report.write_text(json.dumps({"time": {"stages_s": 0.1}}))
        files = {"es": [str(film)]}
        result = {"state": "done", "files": files, "report": str(report), "warnings": ["look here"]}
        return Report(job.id, job.epoch, "finished", result)

    def jobs(self) -> list[Job]:
        return self.store.jobs(ADMIN)

    def end(self) -> None:
        if not self.stopped.is_set():
            self.stopped.set()
            self.dispatcher.stop()
            self.thread.join()
            self.beating.join()
            self.choice.close()

    def close(self) -> None:
        self.end()
        self.store.close()


class Shell:
    """Runs `dub` in a folder, with the SQLite queue."""

    def __init__(self, folder: Path) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("DUBBING_", "RAY_", "REDIS"))}
        self.folder, self.env = folder, {**clean, "PYTHONPATH": str(ROOT), "QUEUE_MODE": "fallback"}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object, code: str = LOOK, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=self.folder, env={**self.env, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def seen(self) -> int:
        """How often commands have looked who is there."""
        return (self.folder / "seen").read_text().count("\n")

    def dub(self, *arguments: object, **options: Any) -> tuple[int, str, str]:
        process = self.start(*arguments, **options)
        out, errors = process.communicate(timeout=120)
        return process.returncode, out, errors


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


@pytest.fixture
def server(shell: Shell) -> Iterator[Server]:
    made = Server(shell.folder, {"QUEUE_MODE": "fallback"})
    yield made
    made.close()


@pytest.fixture
def film(tmp_path: Path, require_program: Any) -> Path:
    require_program("espeak-ng"), require_program("apertium")
    path = tmp_path / "film.wav"
    wave = "sine=frequency=300:duration=90"
    subprocess.run([require_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", wave, path], check=True)
    return path


def until_said(process: subprocess.Popen[str], words: str) -> None:
    """Read what it says up to these words."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return
    raise AssertionError(said)


def ask_to_stop(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=120)


def test_a_job_is_handed_to_the_server_without_ray_and_in_few_transactions(
    shell: Shell, server: Server, film: Path
) -> None:
    status, out, errors = shell.dub("run", film, "--to", "es", "--user", "ana", "--json")

    assert status == 0, errors
    (job,) = server.jobs()
    answer = json.loads(out)
    assert (answer["id"], answer["state"], answer["warnings"]) == (job.id, "done", ["look here"])
    assert answer["files"] == {"es": [str(server.folder / "film.es.mp4")]}
    assert server.store.user(job.user_id).name == "ana"
    assert f"handed to the running server as job {job.id[:8]}, next in line" in errors
    assert "espeak-ng speaks es" in errors
    assert json.loads((server.folder / "report.json").read_text())["time"]["command"]["outside_stages_s"] > 0
    facts = json.loads(errors.partition("facts ")[2])
    assert facts["ray"] is False
    assert facts["writes"] <= 4, "open, add the user, submit, mark as known to the queue"
    assert facts["reads"] <= 12, "besides the looks at the job's events"


def test_it_is_told_what_is_before_it_and_what_holds_it(shell: Shell, server: Server, film: Path) -> None:
    server.work = lambda job: None
    assert shell.dub("pause")[0] == 0
    first = shell.dub("submit", film, "--to", "ca")[1].strip()
    process = shell.start("run", film, "--to", "es")
    wait_until(lambda: len(server.jobs()) == 2, 60, "the second job")
    _, errors = ask_to_stop(process)

    assert process.returncode == 130, errors
    assert "1 job before it" in errors
    assert "the queue is paused; `dub resume` lets its jobs start" in errors
    assert {job.state for job in server.jobs() if job.id != first} == {State.PAUSED}


def test_ctrl_c_pauses_the_job_and_the_same_command_goes_on_with_it(shell: Shell, server: Server, film: Path) -> None:
    server.work = lambda job: None
    process = shell.start("run", film, "--to", "es")
    wait_until(lambda: server.running, 60, "the job's start")
    out, errors = ask_to_stop(process)

    assert (process.returncode, out) == (130, ""), errors
    assert "The same command resumes the job" in errors
    (job,) = server.jobs()
    assert job.state is State.PAUSED
    server.work = server.done
    status, out, errors = shell.dub("run", film, "--to", "es")
    assert (status, out) == (0, f"{server.folder / 'film.es.mp4'}\n"), errors
    assert f"goes on with job {job.id[:8]}, which was paused" in errors
    assert [(one.id, one.state) for one in server.jobs()] == [(job.id, State.DONE)]


def test_ctrl_c_as_the_job_ends_still_gives_the_dub(shell: Shell, server: Server, film: Path) -> None:
    server.work, server.end_of_stopped = (lambda job: None), server.done
    command = shell.start("run", film, "--to", "es", "--json")
    assert command.stderr is not None
    heard = next(line for line in command.stderr if line.startswith("speak"))
    command.send_signal(signal.SIGINT)
    out, errors = command.communicate(timeout=120)

    assert command.returncode == 0, heard + errors
    assert json.loads(out)["files"] == {"es": [str(server.folder / "film.es.mp4")]}
    assert [job.state for job in server.jobs()] == [State.DONE]


def test_the_same_command_twice_follows_one_job(shell: Shell, server: Server, film: Path) -> None:
    server.work = lambda job: None
    first = shell.start("run", film, "--to", "es")
    wait_until(lambda: server.running, 60, "the job's start")
    second = shell.start("run", film, "--to", "es")
    until_said(second, "is running already: following it")
    job = server.running.pop()
    server.dispatcher.report(server.done(job))

    for process in (first, second):
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert len(server.jobs()) == 1


def test_the_error_of_a_job_is_the_commands_own(shell: Shell, server: Server, film: Path) -> None:
    error = NoSpeechError(name="a {strange} film.wav")
    server.work = lambda job: Report(job.id, job.epoch, "failed", error.as_dict())
    status, out, errors = shell.dub("run", film, "--to", "es", "--json")

    assert status == 3
    assert json.loads(out)["error"] == error.as_dict()
    assert "dub: No speech was found in a {strange} film.wav." in errors
    assert f"Details: {server.folder / 'Output' / 'film' / 'job.log'}" in errors


@pytest.mark.parametrize(("what", "state"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_job_that_somebody_else_stops_ends_the_command(
    shell: Shell, server: Server, film: Path, what: str, state: str
) -> None:
    server.work = lambda job: None
    process = shell.start("run", film, "--to", "es")
    wait_until(lambda: server.running, 60, "the job's start")
    (job,) = server.jobs()
    assert shell.dub(what, job.id)[0] == 0
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 6
    assert f"The job {job.id[:8]} was {state} by somebody else" in errors


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("absent.wav", "--to", "es"), 3, "There is no file absent.wav"),
        (("film.wav", "--to", "en"), 3, "is taken for en; say what is spoken"),
        (("film.wav", "--to", "es", "--engine", "speak=fake-speak"), 2, "There is no speak engine named fake-speak"),
        (("film.wav", "--to", "es", "--user", "a b"), 2, "The user name 'a b' must be"),
    ],
)
def test_bad_input_is_found_before_anything_is_handed_over(
    shell: Shell, server: Server, film: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    status, _, errors = shell.dub("run", *arguments)
    assert (status, sentence in errors) == (code, True), errors
    assert server.jobs() == []


def test_a_server_that_ends_while_it_has_the_job_is_reported_and_the_job_kept(
    shell: Shell, server: Server, film: Path
) -> None:
    server.work = lambda job: None
    short = "import dubbing.queued_run as q; q.LOST_S = 3.0; q.PRESENCE_S = 0.2\n" + LOOK
    process = shell.start("run", film, "--to", "es", code=short)
    until_said(process, "speak es")
    wait_until(lambda: server.store.job(ADMIN, server.running[0].id).progress, what="its progress")
    server.dispatcher._beat_at = -1e9  # a beat that is newer than the hand-over, whatever the machine's pace
    wait_until(lambda: server.dispatcher._beat_at > 0, what="a beat")
    seen = shell.seen()
    wait_until(lambda: shell.seen() > seen + 1, what="a look of the command at who is there")
    server.end()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 5, errors
    assert "The server that was handed the job has not been heard of for" in errors
    assert "Jobs stay in the queue" in errors
    (job,) = server.jobs()
    assert job.state.shown == "queued"


def test_a_server_that_died_before_is_no_server(shell: Shell, server: Server, film: Path) -> None:
    assert json.loads(shell.dub("queue", "--json")[1])["alive"] == ["server"]
    server.end()
    assert "alive: no dispatcher; `dub serve` starts one" in shell.dub("queue")[1]
    server.store.beat("dead", {})
    with server.store.write() as connection:
        connection.exec_driver_sql("UPDATE dispatcher SET beat_ms = beat_ms - 11000")
    status, _, errors = shell.dub("run", film, "--to", "es", RAY_ADDRESS="127.0.0.1:9")

    assert status == 4
    assert "no server runs" in errors and "dubbing on the Ray at 127.0.0.1:9" in errors
    assert "nothing answers at 127.0.0.1:9" in errors
    assert [job.state for job in server.jobs()] == [State.CANCELLED], "nobody waits for it any more"


def test_a_server_that_dies_as_the_job_arrives_is_replaced_by_the_command_itself(
    shell: Shell, server: Server, film: Path
) -> None:
    server.end()
    server.store.beat("dying", {"engines": ENGINES})
    with server.store.write() as connection:
        connection.exec_driver_sql("UPDATE dispatcher SET beat_ms = beat_ms + 60000")  # the command may start slowly
    process = shell.start("run", film, "--to", "es", RAY_ADDRESS="127.0.0.1:9")
    until_said(process, "handed to the running server")
    server.store.leave("dying")
    _, errors = process.communicate(timeout=120)

    assert "it has gone silent" in errors
    assert (process.returncode, "nothing answers at 127.0.0.1:9" in errors) == (4, True)
