"""Submitted jobs on a real Ray: `dub serve` in a process of its own, jobs through the store, ends read from the rows."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_support import BUSY_S, eventually
from served import ROOT_USER, Served, begin, tone

from dubbing import voicebook
from dubbing.jobs import State
from dubbing.media import wav
from tests.e2e import jobs as media

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DRAFT: dict[str, dict[str, Any]] = {
    "transcribe": {"pocketsphinx": {}},
    "translate": {"apertium": {}},
    "speak": {"espeak-ng": {}},
}
CHAOS = os.environ.get("DUBBING_TEST_CHAOS") == "1"
RUNNING_S, ENGINE_FREE_S, FFMPEG_GONE_S = (1.0, 2.0, 3.0) if CHAOS else (BUSY_S, BUSY_S, BUSY_S)
"""What holds on a machine that does nothing else, which only the long profile asks for."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, require_program: Any) -> Iterator[Served]:
    for program in ("flite", "apertium", "espeak-ng", "ffmpeg"):
        require_program(program)
    served, told = begin(tmp_path_factory.mktemp("served"), {}, DRAFT)
    store, process = served.store, served.process
    try:
        assert "ready, 2 jobs at once" in told
        yield served
        assert process.poll() is None, "dub serve ended by itself"
        unfinished = served.talk(served.user("last"), "unfinished", 100)
        eventually(lambda: len(served.done_lines("unfinished")) >= 2)
        mine = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(BUSY_S) == 0
        _, alive = psutil.wait_procs(mine, timeout=BUSY_S)
        assert alive == []
        row = store.job(ROOT_USER, unfinished.id)
        assert (row.state.shown, row.attempt, row.crash_count) == ("queued", 0, 0), "a stop should cost the job nothing"
    finally:
        served.close()


def test_a_draft_dub_goes_through_the_queue_from_submit_to_its_file(served: Served) -> None:
    voice = media.spoken_wav(served.folder / "bread.wav", "Good morning, and welcome. Today we will make some bread.")

    submitted = served.dub("submit", voice, "--to", "es", "--user", "baker", "--priority", 70)
    job_id = submitted.stdout.strip()
    watched = served.dub("watch", job_id[:8])
    told = json.loads(served.dub("status", job_id, "--json").stdout)

    assert submitted.returncode == watched.returncode == 0, submitted.stderr + watched.stderr
    assert Path(watched.stdout.strip()).is_file()
    assert (told["state"], told["user"], told["priority"]) == ("done", "baker", 70)
    assert {stage["stage"] for stage in told["progress"]["stages"]} >= {"ingest", "translate", "speak", "mix"}
    report = json.loads(Path(told["result"]["report"]).read_text())
    assert report["targets"]["es"]["spoken"] == report["targets"]["es"]["lines"] >= 1


def test_the_voices_of_its_engines_are_told_and_spoken_when_somebody_wants_to_hear_them(served: Served) -> None:
    state = served.settings.state
    eventually(lambda: "es" in voicebook.read(state).voices, 60)
    voices = voicebook.read(state).voices["es"]
    assert {voice.engine for voice in voices} == {"espeak-ng", "fake-speak"}
    voice = next(voice for voice in voices if voice.engine == "espeak-ng")

    assert voicebook.wish(state, voice)
    eventually(lambda: not voicebook.is_wished(state, voice), 60)

    audio, rate = wav.read_wav(voicebook.sample_of(state, voice))
    assert 1 < len(audio) / rate < 10 and int(abs(audio).max()) > 1000


def test_a_submitted_job_runs_soon(served: Served) -> None:
    ana = served.user("quick")
    waits = []
    for n in range(20):
        job = served.talk(ana, f"quick{n}", 1)
        assert served.ended(job) == [State.DONE]
        began = (served.settings.output_dir / f"quick{n}" / ".work" / "lock").stat().st_mtime
        waits.append(began - job.created_ms / 1000)
    print("submit to coordinator at work, s:", sorted(round(wait, 2) for wait in waits))
    assert statistics.median(waits) < RUNNING_S


def test_a_cancel_reaches_the_engine(served: Served) -> None:
    job = served.talk(served.user("speaker"), "chatter", 200)
    eventually(lambda: sum(served.spoken("chatter").values()) >= 3)
    eventually(lambda: "folder" in (served.store.job(ROOT_USER, job.id).progress or {}))
    where = served.store.job(ROOT_USER, job.id).progress
    assert (Path(where["folder"]) / "job.log").is_file(), "a running job tells its folder"
    assert re.fullmatch("[0-9a-f]{8}/[0-9a-f]{48}", where["task"])

    began = time.monotonic()
    served.intake.cancel(ROOT_USER, job.id)
    assert served.ended(job) == [State.CANCELLED]
    assert served.store.job(ROOT_USER, job.id).progress["folder"] == where["folder"]
    last = sum(served.spoken("chatter").values())
    took = time.monotonic() - began

    other = served.talk(served.user("next"), "after", 3)
    assert served.ended(other) == [State.DONE]
    # a call under way cannot be broken off, so the line it was on may still be spoken
    assert sum(served.spoken("chatter").values()) <= last + 1, "the engine went on with lines of a cancelled job"
    assert took < ENGINE_FREE_S


def test_a_cancel_ends_ffmpeg(served: Served) -> None:
    source = served.folder / "endless.flac"
    silence = ["-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "14000", "-c:a", "flac"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *silence, source], check=True)

    def decoders() -> list[int]:
        found = psutil.process_iter(["name", "cmdline"])
        return [p.pid for p in found if p.info["name"] == "ffmpeg" and str(source) in " ".join(p.info["cmdline"] or [])]

    job = served.submit(served.user("listener"), source)
    eventually(decoders)
    began = time.monotonic()
    served.intake.cancel(ROOT_USER, job.id)
    eventually(lambda: not decoders())
    took = time.monotonic() - began

    assert served.ended(job) == [State.CANCELLED]
    assert took < FFMPEG_GONE_S


def test_a_paused_job_stops_and_goes_on_where_it_was(served: Served) -> None:
    job = served.talk(served.user("pauser"), "patience", 25)
    eventually(lambda: len(served.done_lines("patience")) >= 3)

    with served.speechless():
        assert served.dub("pause", job.id).returncode == 0
        eventually(lambda: served.state(job) is State.PAUSED)
    kept = len(served.done_lines("patience"))
    assert 3 <= kept < 25
    assert served.dub("resume", job.id).returncode == 0

    assert served.ended(job) == [State.DONE]
    spoken = served.spoken("patience")
    assert len(spoken) == len(served.done_lines("patience")) == 25
    assert sum(count - 1 for count in spoken.values()) <= 25 - kept, "a finished line was spoken again"


def test_nothing_starts_while_the_queue_is_paused(served: Served) -> None:
    cat = served.user("waiter")
    assert served.dub("pause").returncode == 0
    paused = served.talk(cat, "held", 1)
    free = json.loads(served.dub("queue", "--json").stdout)
    assert free["settings"]["global::paused"] == 1
    assert "SQLite" in free["reason"]
    # the loop has ticked at least once since: a tick moves the job out of the outbox, or finds it there
    eventually(lambda: not served.store.outbox(10))
    assert served.state(paused) is State.PENDING

    assert served.dub("resume").returncode == 0
    assert served.ended(paused) == [State.DONE]


def test_two_submissions_of_one_source_take_turns_and_both_end(served: Served) -> None:
    twin = served.user("twin")
    first = served.talk(twin, "same", 10)
    second = served.talk(twin, "same", 10)
    assert served.ended(first, second) == [State.DONE, State.DONE]
    assert served.spoken("same") == Counter({f"same line {n}": 1 for n in range(10)})
    rows = [served.store.job(ROOT_USER, job.id) for job in (first, second)]
    assert [(row.attempt, row.crash_count) for row in rows] == [(0, 0), (0, 0)]


def test_a_killed_dispatcher_loses_no_job_and_no_finished_line(served: Served) -> None:
    names = ("left", "right")
    running = [served.talk(served.user(f"of-{name}"), name, 20) for name in names]
    waiting = served.talk(served.user("of-third"), "third", 2)
    eventually(lambda: all(len(served.done_lines(name)) >= 3 for name in names))

    killed = served.dispatcher_pid()
    os.kill(killed, signal.SIGKILL)
    kept = {name: len(served.done_lines(name)) for name in names}

    assert served.ended(*running, waiting) == [State.DONE] * 3
    assert served.dispatcher_pid() != killed
    assert served.ends(*running, waiting) == {job.id: 1 for job in (*running, waiting)}, (
        "every job should have ended exactly once"
    )
    for name in names:
        assert len(served.done_lines(name)) == len(set(served.done_lines(name))) == 20, "a line was committed twice"
        again = sum(count - 1 for count in served.spoken(name).values())
        print(f"{name}: {kept[name]} lines kept, {again} spoken again")
        assert again <= 20 - kept[name], "a finished line was spoken again"


def test_two_users_take_turns_within_their_caps(served: Served) -> None:
    ana, ben = served.user("ana"), served.user("ben")
    served.intake.configure(ROOT_USER, "global", "", "paused", 1)
    for actor in (ana, ben):
        served.intake.configure(ROOT_USER, "user", actor.user_id, "cap", 1)
    submitted = [served.talk(ana, f"ana{n}", 2) for n in range(3)] + [served.talk(ben, f"ben{n}", 2) for n in range(2)]
    urgent = served.talk(ben, "ben-urgent", 2, priority=95)
    served.intake.configure(ROOT_USER, "global", "", "paused", None)

    everything = [*submitted, urgent]
    assert served.ended(*everything) == [State.DONE] * 6

    owner = {job.id: job.user_id for job in everything}
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    starts: dict[str, list[str]] = {ana.user_id: [], ben.user_id: []}
    together = 0
    for job_id, kind in served.events(*everything):
        if kind == "running":
            running[owner[job_id]] += 1
            starts[owner[job_id]].append(job_id)
        elif kind == "done":
            running[owner[job_id]] -= 1
        most |= running
        together = max(together, sum(running.values()))
    assert most == {ana.user_id: 1, ben.user_id: 1}
    assert together == 2, "both users should have run at the same time"
    assert starts[ana.user_id] == [job.id for job in submitted[:3]]
    assert starts[ben.user_id] == [urgent.id, submitted[3].id, submitted[4].id]


def test_a_job_whose_process_is_killed_runs_again_from_where_it_was(served: Served) -> None:
    job = served.talk(served.user("unlucky"), "struck", 20)
    eventually(lambda: len(served.done_lines("struck")) >= 3)
    found = psutil.process_iter(["cmdline"])
    (runner,) = [p for p in found if "".join(p.info["cmdline"] or []).startswith(f"ray::job:{job.id}")]

    runner.kill()
    kept = len(served.done_lines("struck"))

    assert served.ended(job) == [State.DONE]
    assert served.store.job(ROOT_USER, job.id).crash_count == 1
    assert sum(count - 1 for count in served.spoken("struck").values()) <= 20 - kept, "a finished line was spoken again"


def test_a_job_that_cannot_be_dubbed_fails_once_and_says_why(served: Served) -> None:
    job = served.submit(served.user("mute"), tone(served.folder / "mute.wav", 2), engines={"speak": "xtts"})
    assert served.ended(job) == [State.FAILED]
    row = served.store.job(ROOT_USER, job.id)
    watched = served.dub("watch", job.id)

    assert row.attempt == 1 and row.error is not None
    assert row.error["message"] in watched.stderr
    assert "There is no speak engine named xtts; there are: espeak-ng" in watched.stderr
    assert watched.returncode == 6


def test_a_second_dispatcher_over_the_same_queue_is_refused_with_its_reason(served: Served) -> None:
    refused = served.dub("serve")
    assert refused.returncode == 75, refused.stderr
    assert f"(pid {served.dispatcher_pid()})" in refused.stderr
    assert "Only one dispatcher may run without Redis" in refused.stderr
    job = served.talk(served.user("unmoved"), "unmoved", 1)
    assert served.ended(job) == [State.DONE]


def test_dub_run_is_handed_to_the_server_and_resumes_there_after_ctrl_c(served: Served) -> None:
    tone(served.folder / "handed.wav", 21)
    subtitles = served.folder / "handed.srt"
    subtitles.write_text(media.srt([(1000 * n, 1000 * n + 900, f"handed line {n}") for n in range(20)]))
    options = ["--to", "es", "--translation", subtitles, "--engine", "speak=fake-speak", "--user", "shell"]
    command = [sys.executable, "-m", "dubbing.cli", "run", "handed.wav", *map(str, options)]
    with subprocess.Popen(
        command, env=served.env, cwd=served.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: len(served.done_lines("handed")) >= 3)
        with served.speechless():
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=BUSY_S)
    kept = len(served.done_lines("handed"))
    (job,) = served.store.jobs(served.store.user_by_name("shell").actor)

    assert (process.returncode, job.state) == (130, State.PAUSED), errors
    assert "handed to the running server" in errors
    assert 3 <= kept < 20
    again = served.dub("run", "handed.wav", *options, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["id"] == job.id
    assert served.state(job) is State.DONE
    assert sum(count - 1 for count in served.spoken("handed").values()) <= 20 - kept, "a finished line was spoken again"
    times = json.loads(Path(json.loads(again.stdout)["report"]).read_text())["time"]["command"]
    assert "ray.init" not in times["steps_s"]
