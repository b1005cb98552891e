"""Prove on this machine that submitted jobs of two users run side by side, in turns and within their caps.

Starts `dub serve` in a folder of its own with engines that need no model, submits jobs of two users, and reads the event
log. Uses REDIS_URL if set, else SQLite. Prints one line; exit code 0 when all is well, else 1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml

from dubbing import config, orders
from dubbing.errors import DubbingError
from dubbing.intake import Intake
from dubbing.jobs import TERMINAL, Actor, Job
from dubbing.queue.choose import choose_queue
from dubbing.store import Store, open_store
from dubbing.types import DubRequest

ROOT = Path(__file__).resolve().parents[1]
JOBS_EACH = 4
CAP = 1
READY_S = 120
END_S = 180
ENGINES = {
    "transcribe": {"fake-transcribe": {}},
    "translate": {"fake-translate": {}},
    "speak": {"fake-speak": {"item_ms": 100, "max_batch": 1}},
}
ADMIN = Actor("e2e", "admin")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dub-e2e-") as name:
        folder = Path(name)
        ours = {
            "DUBBING_OUTPUT_DIR": str(folder / "Output"),
            "DUBBING_LOG_DIR": str(folder / "logs"),
            "DUBBING_SERVE_CONFIG": str(serve_config(folder)),
        }
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, **ours, "PYTHONPATH": paths}
        command = [sys.executable, "-m", "dubbing.cli", "serve"]
        with subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                ready = server.stdout.readline()
                wrong = check(config.load(environment, None, None), folder) if ready else "dub serve did not start"
            except DubbingError as error:
                wrong = error.message
            finally:
                server.send_signal(signal.SIGINT)
    if wrong:
        print(f"FAIL: two users could not work side by side: {wrong}")
        return 1
    queue = ready.partition("The queue is ")[2].strip()
    print(
        f"OK: two users ran {JOBS_EACH} jobs each, side by side, in order, never more than {CAP} at once. Queue: {queue}"
    )
    return 0


def serve_config(folder: Path) -> Path:
    """The laptop's config with engines that need no model and are slow enough to be seen side by side."""
    laptop = yaml.safe_load((ROOT / "serve_configs" / "laptop.yaml").read_text(encoding="utf-8"))
    laptop["applications"][0]["args"]["engines"] = ENGINES
    laptop["applications"][0]["deployments"] = [
        one for one in laptop["applications"][0]["deployments"] if one["name"] != "Aligner"
    ]
    path = folder / "engines.yaml"
    path.write_text(yaml.safe_dump(laptop), encoding="utf-8")
    return path


def check(settings: config.Settings, folder: Path) -> str | None:
    """Submit the jobs while the queue is paused, let them run, and read the events; what is wrong, or None."""
    store = open_store(settings)
    choice = choose_queue(settings, now_ms=store.clock_ms())
    try:
        intake = Intake(store, choice.queue)
        users = {store.add_user(name).id: name for name in ("ana", "ben")}
        intake.configure(ADMIN, "user", "*", "cap", CAP)
        intake.configure(ADMIN, "global", "", "paused", 1)
        jobs = [submit(intake, settings, folder, owner, n) for n in range(JOBS_EACH) for owner in users]
        intake.configure(ADMIN, "global", "", "paused", None)
        end = time.monotonic() + END_S
        while any(store.job(ADMIN, job.id).state not in TERMINAL for job in jobs):
            if time.monotonic() > end:
                return f"after {END_S} s the jobs are {store.counts()}"
            time.sleep(0.2)
        return verdict(store, jobs, users)
    finally:
        choice.close()
        store.close()


def submit(intake: Intake, settings: config.Settings, folder: Path, owner: str, number: int) -> Job:
    """A tone with two given lines; the later ones are more urgent."""
    source, subtitles = folder / f"{owner[:6]}-{number}.wav", folder / "lines.srt"
    hertz = 300 + 37 * number + int(owner[:2], 16)
    wave = f"sine=frequency={hertz}:duration=6"
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", wave, source], check=True)
    cues = (f"{n + 1}\n00:00:0{n},000 --> 00:00:0{n},900\nline {n}\n" for n in range(5))
    subtitles.write_text("\n".join(cues), encoding="utf-8")
    engines = {kind: name for kind, names in ENGINES.items() for name in names}
    request = DubRequest(source, ("es",), settings.output_dir, engines=engines, translations={"es": subtitles})
    job, _ = intake.submit(Actor(owner), orders.to_json(request), targets=["es"], priority=10 * number)
    return job


def verdict(store: Store, jobs: list[Job], users: Mapping[str, str]) -> str | None:
    """What the event log says against it, or None."""
    owner = {job.id: job.user_id for job in jobs}
    running: Counter[str] = Counter()
    starts: dict[str, list[str]] = {user: [] for user in users}
    ends: Counter[str] = Counter()
    side_by_side = False
    for event in store.events(ADMIN, limit=100_000):
        user = owner.get(event.job_id)
        if user is None:
            continue
        if event.kind == "running":
            running[user] += 1
            starts[user].append(event.job_id)
            if running[user] > CAP:
                return f"{users[user]} ran {running[user]} jobs at once, more than {CAP}"
            side_by_side = side_by_side or len(+running) == len(users)
        elif event.kind in {state.value for state in TERMINAL}:
            running[user] -= 1
            ends[event.kind] += 1
    if ends != {"done": len(jobs)}:
        return f"the jobs ended as {dict(ends)}"
    for user, started in starts.items():
        by_priority = [job.id for job in sorted(jobs, key=lambda job: -job.priority) if job.user_id == user]
        if started != by_priority:
            return f"the jobs of {users[user]} did not start by priority"
    return None if side_by_side else "the two users never ran at the same time"


if __name__ == "__main__":
    sys.exit(main())
