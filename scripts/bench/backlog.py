"""Nodes that come because jobs wait: what the autoscaler makes of what the dispatcher asks it for.

    python scripts/bench/backlog.py [--short] [--chart docs/backlog.svg] [--json FILE]

The cluster begins without a single job slot. Jobs are submitted, the dispatcher asks Ray's own autoscaler for slots, nodes
that offer two each start (they are processes of this machine), the jobs run on them, and the nodes end when they idle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dubbing import orders  # noqa: E402 - the tree of this script comes first, installed or not
from dubbing.config import Settings  # noqa: E402
from dubbing.intake import Intake  # noqa: E402
from dubbing.jobs import TERMINAL, Actor, State  # noqa: E402
from dubbing.queue.choose import choose_queue  # noqa: E402
from dubbing.store import Store, open_store  # noqa: E402
from dubbing.types import DubRequest  # noqa: E402
from scripts.fake_nodes import FakeCluster  # noqa: E402
from scripts.timeline import Panel, chart  # noqa: E402

NODES, SLOTS, JOBS = 2, 2, 4
LINE_MS = 1000
"""What the engine takes for a line, one after the other."""
LOOK_S = 0.5
STEP_S = 300.0
ADMIN = Actor("bench", "admin")


@dataclass(frozen=True)
class Look:
    """The state at one moment."""

    at_s: float
    nodes: int
    waiting: int
    running: int
    done: int


class Run:
    """One run, from no jobs to no nodes."""

    def __init__(self, fake: FakeCluster, settings: Settings, store: Store, intake: Intake, lines: int) -> None:
        self._fake, self._settings, self._store, self._intake, self._lines = fake, settings, store, intake, lines
        self.looks: list[Look] = []
        self.events: list[tuple[float, str]] = []
        self._start = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Submit, and look on until all is at rest."""
        self._until(lambda look: look.at_s > 2)
        assert self.looks[-1].nodes == 0, "it should begin without nodes"
        owner = self._store.add_user("ana").actor
        self._intake.configure(ADMIN, "user", "*", "cap", JOBS)
        self._event(f"{JOBS} jobs submitted")
        for number in range(JOBS):
            self._submit(owner, number)
        self._until(lambda look: look.nodes == NODES)
        self._until(lambda look: look.waiting == 0)
        self._event("none waits")
        self._until(lambda look: look.waiting + look.running == 0)
        self._event("all done")
        self._until(lambda look: look.nodes == 0)
        self._event("at rest")
        self._until(lambda look: look.at_s > self.events[-1][0] + 2)
        return {"most_nodes": max(look.nodes for look in self.looks), "counts": self._store.counts()}

    def _submit(self, owner: Actor, number: int) -> None:
        source = self._fake.folder / f"talk{number}.wav"
        wave = f"sine=frequency={300 + 37 * number}:duration={self._lines + 1}"
        subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", wave, source], check=True)
        subtitles = source.with_suffix(".srt")
        cues = (f"{n + 1}\n00:00:{n:02},000 --> 00:00:{n:02},900\nLine {n}.\n" for n in range(self._lines))
        subtitles.write_text("\n".join(cues), encoding="utf-8")
        request = DubRequest(
            source, ("es",), self._settings.output_dir, engines={"speak": "fake-speak"}, translations={"es": subtitles}
        )
        self._intake.submit(owner, orders.to_json(request), targets=["es"])

    def _until(self, condition: Callable[[Look], bool]) -> None:
        deadline = time.monotonic() + STEP_S
        while not (self._look() and condition(self.looks[-1])):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {STEP_S:.0f} s; the last look: {self.looks[-1]}")
            time.sleep(LOOK_S)

    def _look(self) -> bool:
        counts = self._store.counts()
        running, done = counts.get(State.RUNNING, 0), sum(counts.get(state, 0) for state in TERMINAL)
        waiting = sum(counts.values()) - running - done
        self.looks.append(Look(time.monotonic() - self._start, self._fake.nodes(), waiting, running, done))
        return True

    def _event(self, what: str) -> None:
        self.events.append((time.monotonic() - self._start, what))
        print(f"{self.events[-1][0]:6.1f} s  {what}", file=sys.stderr, flush=True)


def svg(run: Run) -> str:
    """The chart of a run."""
    names = {"waiting": "jobs that wait", "nodes": "nodes with slots", "running": "jobs that run", "done": "jobs done"}
    panels = [
        Panel(text, [(look.at_s, float(getattr(look, name))) for look in run.looks], steps=True)
        for name, text in names.items()
    ]
    return chart(f"Waiting jobs bring nodes: {NODES} nodes of {SLOTS} slots each for {JOBS} jobs", panels, run.events)


def settings_of(fake: FakeCluster) -> Settings:
    """Settings that keep everything in the folder of the cluster, with one engine that needs no model."""
    app = {
        "name": "engines",
        "route_prefix": None,
        "import_path": "cluster.app:build",
        "args": {"engines": {"speak": {"fake-speak": {"item_ms": LINE_MS, "max_batch": 1}}}},
        "deployments": [{"name": "Speaker", "max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": 0.1}}],
    }
    path = fake.folder / "serve.yaml"
    path.write_text(json.dumps({"proxy_location": "Disabled", "applications": [app]}))  # JSON is YAML
    output = fake.folder / "Output"
    return Settings(ray_address=fake.address, serve_config=path, output_dir=output, log_dir=fake.folder / "kept")


async def measure(fake: FakeCluster, lines: int) -> tuple[Run, dict[str, Any]]:
    """A run with a dispatcher on the head."""
    from cluster.road import RayRoad  # noqa: PLC0415 - ray's environment is set by then

    settings = settings_of(fake)
    store = open_store(settings)
    async with RayRoad(settings, log_dir=settings.log_dir, engine_args={}) as road:
        await road.host_queue()
        choice = choose_queue(settings, now_ms=store.clock_ms())
        try:
            run = Run(fake, settings, store, Intake(store, choice.queue), lines)
            return run, await asyncio.to_thread(run.run)
        finally:
            choice.close()
            store.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="shorter jobs, as the test does")
    parser.add_argument("--chart", type=Path, help="write the chart (SVG) here")
    parser.add_argument("--json", type=Path, help="write what was seen here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an end by `finally`, which leaves nothing running
    fake = FakeCluster({"CPU": 2}, {"slots": ({"CPU": 2, "job_slot": SLOTS}, NODES)})
    try:
        fake.start()
        run, result = asyncio.run(measure(fake, 6 if arguments.short else 8))
    finally:
        fake.stop()
    if arguments.json:
        seen = {**result, "events": run.events, "looks": [asdict(look) for look in run.looks]}
        arguments.json.write_text(json.dumps(seen))
    if arguments.chart:
        arguments.chart.write_text(svg(run), encoding="utf-8")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
