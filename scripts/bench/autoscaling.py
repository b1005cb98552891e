"""Replicas and GPU nodes that come with the load and go with it: what happens when, and what a second node brings.

    python scripts/bench/autoscaling.py [--short] [--chart docs/autoscaling.svg] [--json FILE]

Ray's own autoscaler starts and ends the nodes; they are processes of this machine that claim a GPU each, of which a
replica takes half. The engine is a double whose batch of n lines costs a + b * n, really slept, so that the cores of this
machine do not matter. Callers ask for lines in a closed loop: rest, as many as keep one node busy, twice as many, rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.fake_nodes import FakeCluster  # noqa: E402 - the tree of this script comes first, installed or not
from scripts.timeline import Panel, chart  # noqa: E402

MAX_BATCH = 4
SHARE = 0.5
"""Of a GPU, for a replica."""
REPLICAS_PER_NODE = 2
NODES = 2
CALLERS_PER_REPLICA = 3 * MAX_BATCH
"""One batch runs, one waits, and one more because they are not spread evenly: with less some batches would not be full."""
LOOK_S = 0.5
STEP_S = 600.0
"""What any step may take on a busy machine."""


@dataclass(frozen=True)
class Look:
    """The state at one moment."""

    at_s: float
    nodes: int
    replicas: int
    in_flight: int
    """Lines asked for and not answered yet."""
    done: int
    """Lines answered so far."""


class Load:
    """Callers that ask for one line after the other."""

    def __init__(self, client: Any) -> None:
        self.done_at: list[float] = []
        self.in_flight = 0
        self._client = client
        self._wanted = 0
        self._callers: dict[int, asyncio.Task[None]] = {}

    def set(self, callers: int) -> None:
        """So many from now on; who is too many ends after the line that is under way."""
        self._wanted = callers
        for number in range(callers):
            if number not in self._callers:
                self._callers[number] = asyncio.create_task(self._call(number))

    def failed(self) -> None:
        """Raises what a caller raised."""
        for task in self._callers.values():
            if task.done():
                task.result()

    async def _call(self, number: int) -> None:
        from dubbing.engines.base import TranslateItem  # noqa: PLC0415

        while number < self._wanted:
            self.in_flight += 1
            try:
                await self._client(TranslateItem("A line.", "en", "es"), lane=f"job {number % 8}")
            finally:
                self.in_flight -= 1
            self.done_at.append(time.monotonic())
        del self._callers[number]


def serve_config(folder: Path, batch_s: float) -> Path:
    """The config of one autoscaled engine whose full batch takes `batch_s`."""
    scaling = {
        "min_replicas": 0,
        "initial_replicas": 0,
        "max_replicas": NODES * REPLICAS_PER_NODE,
        # Half a line more than there is: a whole number of replicas never looks like a little more than that.
        "target_ongoing_requests": CALLERS_PER_REPLICA + 0.5,
        "upscale_delay_s": 1,
        "downscale_delay_s": 2,
        "downscale_to_zero_delay_s": 2,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 1,
    }
    deployment = {
        "name": "Translator",
        "max_ongoing_requests": 2 * CALLERS_PER_REPLICA,
        "autoscaling_config": scaling,
        "ray_actor_options": {"num_cpus": 0.1, "num_gpus": SHARE},
        "graceful_shutdown_wait_loop_s": 0.1,
    }
    cost = {"base_ms": 800 * batch_s, "item_ms": 200 * batch_s / MAX_BATCH, "max_batch": MAX_BATCH}
    app = {
        "name": "engines",
        "route_prefix": None,
        "import_path": "cluster.app:build",
        "args": {"engines": {"translate": {"fake-translate": cost}}},
        "deployments": [deployment],
    }
    path = folder / "serve.yaml"
    path.write_text(json.dumps({"proxy_location": "Disabled", "applications": [app]}))  # JSON is YAML
    return path


class Run:
    """One run, from rest to rest."""

    def __init__(self, fake: FakeCluster, rounds: int, batch_s: float) -> None:
        from ray import serve  # noqa: PLC0415 - ray's environment is set by then

        from cluster.clients import ServeClient  # noqa: PLC0415
        from dubbing.engines import registry  # noqa: PLC0415

        info = registry.spec("fake-translate").load({}).info
        self._fake, self._rounds, self.batch_s = fake, rounds, batch_s
        self._status: Callable[[], Any] = serve.status
        self._handle = serve.get_deployment_handle("Translator", "engines")
        self.load = Load(ServeClient(self._handle, info, timeout_s=STEP_S))
        self.looks: list[Look] = []
        self.events: list[tuple[float, str]] = []
        self.start = time.monotonic()

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    async def run(self) -> dict[str, Any]:
        """Load, more load, none; what was measured."""
        self._looking = asyncio.create_task(self._look())
        try:
            await self._until(lambda look: look.at_s > 1)
            assert (self.looks[-1].nodes, self.looks[-1].replicas) == (0, 0), "it should begin without nodes"
            rates = []
            for nodes in range(1, NODES + 1):
                rates.append(await self._with_nodes(nodes))
            self._event("no load")
            self.load.set(0)
            await self._until(lambda look: look.replicas == 0)
            await self._until(lambda look: look.nodes == 0)
            self._event("at rest")
            await self._until(lambda look: look.at_s > self.events[-1][0] + 1)
        finally:
            self._looking.cancel()
            self._handle.shutdown()  # it would go on to tell Serve of its line
        return {"rates": rates, "ratio": rates[-1] / rates[0], "most_nodes": max(look.nodes for look in self.looks)}

    async def _with_nodes(self, nodes: int) -> float:
        """Lines per second with load for so many nodes, once they are there."""
        replicas = nodes * REPLICAS_PER_NODE
        self._event(f"load for {nodes} node" + "s" * (nodes > 1))
        self.load.set(replicas * CALLERS_PER_REPLICA)
        await self._until(lambda look: (look.nodes, look.replicas) == (nodes, replicas))
        self._event(f"{replicas} replicas run")
        # Everybody who waited at the old replicas has been answered, and asks all of them now.
        await self._answers(self.load.in_flight)
        begin = len(self.load.done_at)
        in_round = replicas * MAX_BATCH
        await self._answers((self._rounds + 1) * in_round)
        assert (self.looks[-1].nodes, self.looks[-1].replicas) == (nodes, replicas), "nothing should have moved"
        return rate(self.load.done_at[begin : begin + (self._rounds + 1) * in_round], in_round)

    async def _answers(self, count: int) -> None:
        goal = len(self.load.done_at) + count
        await self._until(lambda look: look.done >= goal)

    async def _until(self, condition: Callable[[Look], bool]) -> None:
        deadline = time.monotonic() + STEP_S
        seen = len(self.looks)
        while not (len(self.looks) > seen and condition(self.looks[-1])):
            self.load.failed()
            if self._looking.done():
                self._looking.result()
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {STEP_S:.0f} s; the last look: {self.looks[-1:]}")
            await asyncio.sleep(0.05)

    async def _look(self) -> None:
        while True:
            nodes, replicas = await asyncio.to_thread(self._seen)
            self.looks.append(Look(self.now(), nodes, replicas, self.load.in_flight, len(self.load.done_at)))
            await asyncio.sleep(LOOK_S)

    def _seen(self) -> tuple[int, int]:
        states = self._status().applications["engines"].deployments["Translator"].replica_states
        return self._fake.nodes(), states.get("RUNNING", 0)

    def _event(self, what: str) -> None:
        self.events.append((self.now(), what))
        print(f"{self.now():6.1f} s  {what}", file=sys.stderr, flush=True)


def rate(times: list[float], in_round: int) -> float:
    """Lines per second. Compares each line of the first round with the one at its place in the last.

    Lines are answered a batch at a time, so a plain count depends on where its window cuts the first and the last batch.
    """
    apart = len(times) - in_round
    return apart * in_round / sum(times[i + apart] - times[i] for i in range(in_round))


def svg(run: Run, result: dict[str, Any]) -> str:
    """The chart of a run."""
    looks = run.looks
    done = [at - run.start for at in run.load.done_at]
    window = 2 * run.batch_s  # whole batches, or the line would swing with them
    rates = [(look.at_s, sum(look.at_s - window < at <= look.at_s for at in done) / window) for look in looks]
    panels = [
        Panel("lines in flight", [(look.at_s, float(look.in_flight)) for look in looks], steps=True),
        Panel("GPU nodes", [(look.at_s, float(look.nodes)) for look in looks], steps=True),
        Panel("replicas that run", [(look.at_s, float(look.replicas)) for look in looks], steps=True),
        Panel("lines per second", rates, steps=False),
    ]
    one, two = result["rates"]
    title = (
        f"Load brings nodes, and idleness takes them: {one:.1f} lines/s on one, {two:.1f} on two ({two / one:.2f} x)"
    )
    return chart(title, panels, run.events)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="cheaper batches and fewer of them, as the test does")
    parser.add_argument("--chart", type=Path, help="write the chart (SVG) here")
    parser.add_argument("--json", type=Path, help="write what was seen here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an end by `finally`, which leaves nothing running
    node = {"CPU": 1, "GPU": 1}
    fake = FakeCluster({"CPU": 2}, {"gpu": (node, NODES)}, idle_s=3 if arguments.short else 5)
    try:
        fake.start()
        from cluster import serving  # noqa: PLC0415 - imports ray

        serving.start()
        batch_s, rounds = (1.0, 4) if arguments.short else (2.0, 10)
        config = serving.load_config(serve_config(fake.folder, batch_s))
        serving.wait_until_healthy(serving.deploy(config, {}), ours=True)
        run = Run(fake, rounds, batch_s)
        result = asyncio.run(run.run())
    finally:
        fake.stop()
    if arguments.json:
        seen = {**result, "events": run.events, "looks": [asdict(look) for look in run.looks]}
        arguments.json.write_text(json.dumps(seen))
    if arguments.chart:
        arguments.chart.write_text(svg(run, result), encoding="utf-8")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
