"""A running `dub serve` in a process of its own, jobs through the store, ends read from the rows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_support import eventually, write_config

from dubbing import config, orders
from dubbing.config import Settings
from dubbing.intake import Intake
from dubbing.jobs import TERMINAL, Actor, Job, State
from dubbing.queue.choose import Choice, choose_queue
from dubbing.store import Store, open_store
from dubbing.types import DubRequest
from tests.e2e import jobs as media

ROOT = Path(__file__).resolve().parents[2]
FAKES = {kind: name for kind, name in media.FAKES.items() if kind != "align"}
LINE_MS = 150
"""What fake-speak takes for a line."""
ROOT_USER = Actor("test", "admin")
FAKE_ENGINES: dict[str, dict[str, Any]] = {"transcribe": {"fake-transcribe": {}}, "translate": {"fake-translate": {}}}


@dataclass
class Served:
    """A running `dub serve`, and the same store and queue from outside."""

    settings: Settings
    env: dict[str, str]
    store: Store
    intake: Intake
    choice: Choice
    calls: Path
    folder: Path
    process: subprocess.Popen[str]

    def user(self, name: str) -> Actor:
        return self.store.add_user(name).actor

    def submit(self, actor: Actor, source: Path, **options: Any) -> Job:
        translations = options.pop("translations", {})
        engines = options.pop("engines", FAKES)
        request = DubRequest(source, ("es",), self.settings.output_dir, engines=engines, translations=translations)
        return self.intake.submit(actor, orders.to_json(request), targets=["es"], **options)[0]

    def talk(self, actor: Actor, name: str, lines: int, **options: Any) -> Job:
        """A job of that many lines, `LINE_MS` each, whose words are given."""
        source, subtitles = tone(self.folder / f"{name}.wav", lines + 1), self.folder / f"{name}.srt"
        cues = [(1000 * n, 1000 * n + 900, f"{name} line {n}") for n in range(lines)]
        subtitles.write_text(media.srt(cues))
        return self.submit(actor, source, translations={"es": subtitles}, **options)

    def state(self, job: Job) -> State:
        return self.store.job(ROOT_USER, job.id).state

    def ended(self, *jobs: Job, within_s: float = 60.0) -> list[State]:
        eventually(lambda: all(self.state(job) in TERMINAL for job in jobs), within_s)
        return [self.state(job) for job in jobs]

    def done_lines(self, name: str) -> list[str]:
        manifest = self.settings.output_dir / name / ".work" / "es" / "speak.jsonl"
        return manifest.read_text().splitlines() if manifest.exists() else []

    @contextmanager
    def speechless(self) -> Iterator[None]:
        """While the body runs nothing new is said, so no job can end before it is looked at."""
        self.silence.touch()
        yield
        self.silence.unlink()

    @property
    def silence(self) -> Path:
        """While there is this file, fake-speak says nothing."""
        return self.folder / "silence"

    def kept(self, name: str) -> set[str]:
        """The words of a job's lines that are finished for good."""
        return {json.loads(line)[1]["text"] for line in self.done_lines(name)}

    def spoken(self, name: str) -> Counter[str]:
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        return Counter(text for call in calls if (text := json.loads(call)["text"]).startswith(f"{name} "))

    def events(self, *jobs: Job) -> list[tuple[str, str]]:
        """(job id, kind) of what happened to these jobs, in order."""
        ids = {job.id for job in jobs}
        found = self.store.events(ROOT_USER, limit=100_000)
        return [(event.job_id, event.kind) for event in found if event.job_id in ids]

    def ends(self, *jobs: Job) -> Counter[str]:
        """How often each of these jobs ended."""
        return Counter(job_id for job_id, kind in self.events(*jobs) if kind in {state.value for state in TERMINAL})

    def close(self) -> None:
        """Let go of the store; end the server if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.choice.close()
        self.store.close()

    def dispatcher_pid(self) -> int:
        found = re.search(r"-(\d+)-[0-9a-f]{8}$", self.store.in_charge().holder)
        assert found
        return int(found[1])

    def dub(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dubbing.cli", *map(str, arguments)]
        return subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=120)


def tone(path: Path, seconds: float) -> Path:
    """A tone whose pitch differs by name, so that every file is a source of its own."""
    hertz = 200 + sum(path.stem.encode()) * 7 % 601 + len(path.stem)
    wave = f"sine=frequency={hertz}:duration={seconds}"
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", wave, "-ar", "16000", path], check=True)
    return path


def begin(
    folder: Path, more_env: Mapping[str, str], more_engines: Mapping[str, dict[str, Any]] | None = None
) -> tuple[Served, str]:
    """`dub serve` with fast fakes in `folder`, which may have served before, and the line it said when ready."""
    calls = folder / "calls.jsonl"
    voice = {"item_ms": LINE_MS, "max_batch": 1, "calls_log": str(calls), "waits_for": str(folder / "silence")}
    engines = {**FAKE_ENGINES, "speak": {"fake-speak": voice}}
    for kind, more in (more_engines or {}).items():
        engines[kind] = {**engines[kind], **more}
    ours = {
        "DUBBING_OUTPUT_DIR": str(folder / "Output"),
        "DUBBING_LOG_DIR": str(folder / "logs"),
        "DUBBING_SERVE_CONFIG": str(write_config(folder / "engines.yaml", engines)),
        "QUEUE_MODE": "fallback",
        **more_env,
    }
    env = {**os.environ, **ours, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with (folder / "serve.log").open("a") as log:
        command = [sys.executable, "-m", "dubbing.cli", "serve"]
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        told = said.readline()
    assert "ready" in told, (folder / "serve.log").read_text()
    settings = config.load(ours, None, None)
    store = open_store(settings)
    choice = choose_queue(settings, now_ms=store.clock_ms())
    return Served(settings, env, store, Intake(store, choice.queue), choice, calls, folder, process), told
