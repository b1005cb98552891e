"""What the tests of the cluster share; a module of its own, for every folder's conftest has the same name."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cluster_doubles
import yaml

from cluster.local import RaySession
from cluster.road import RayRoad
from dubbing.config import Settings
from dubbing.engines.batching import BatchStats

T = TypeVar("T")

API_KEY = secrets.token_hex(16)
BUSY_S = 90.0
"""A limit for a machine that has much else to do; no wait lasts longer than its condition."""
COST = {"base_ms": 93.33, "item_ms": 6.667, "max_batch": 16}
"""100 ms for 1 item, 200 ms for 16."""


def eventually(condition: Callable[[], T], within_s: float = BUSY_S) -> T:
    """The first true value of the condition; fails when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
    return value


async def eventually_async(condition: Callable[[], Awaitable[bool]], within_s: float = BUSY_S) -> None:
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


def install_plugin(folder: Path) -> Path:
    """A folder that, on sys.path, offers the engines of cluster_doubles as an installed package would."""
    info = folder / "cluster_doubles-1.dist-info"
    info.mkdir(parents=True)
    attributes = [name.partition("-")[0].upper() for name in cluster_doubles.PLUGINS]
    lines = [f"{n} = cluster_doubles:{a}" for n, a in zip(cluster_doubles.PLUGINS, attributes, strict=True)]
    (info / "entry_points.txt").write_text("[dubbing.engines]\n" + "\n".join(lines) + "\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cluster-doubles\nVersion: 1\n")
    return folder


def write_config(path: Path, engines: dict[str, Any], *, app: str = "engines", **options: Any) -> Path:
    """A serve config with these engines; `options` go to every deployment."""
    numbers = {"max_ongoing_requests": 256, "health_check_period_s": 0.5, "ray_actor_options": {"num_cpus": 0.05}}
    deployments = [{"name": name, **numbers, **options} for name in ("Transcriber", "Aligner", "Translator", "Speaker")]
    application = {"name": app, "route_prefix": None, "import_path": "cluster.app:build", "args": {"engines": engines}}
    path.write_text(yaml.safe_dump({"applications": [{**application, "deployments": deployments}]}, sort_keys=False))
    return path


def add_api(path: Path, port: int, **limits: Any) -> Path:
    """The same serve config with the speech API at a port of this machine."""
    config = yaml.safe_load(path.read_text())
    config |= {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": port}}
    api = {"name": "api", "route_prefix": "/", "import_path": "cluster.http:build", "args": limits}
    deployment = {"name": "SpeechApi", "ray_actor_options": {"num_cpus": 0.05}}
    config["applications"].append({**api, "deployments": [deployment]})
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@dataclass(frozen=True)
class Cluster:
    address: str
    folder: Path
    calls: Path
    """Calls of costly-translate."""
    session: RaySession
    api: str
    """Address of the speech API."""

    def road(self, entry: str) -> RayRoad:
        settings = Settings(ray_address=self.address)
        return RayRoad(settings, log_dir=self.folder / "logs", engine_args={}, entry=f"cluster_doubles:{entry}")

    def calls_made(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []


def python_path(plugin: Path) -> str:
    """PYTHONPATH for Ray's workers: this project, these doubles, the plug-in."""
    here = Path(__file__).resolve().parent
    return os.pathsep.join([str(here.parents[1]), str(here), str(plugin), os.environ.get("PYTHONPATH", "")])


async def stats(handle: Any) -> BatchStats:
    told: BatchStats = await handle.stats.remote()
    return told
