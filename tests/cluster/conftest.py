"""One private Ray with misbehaving engines for all tests of the cluster; nothing of it may be left afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cluster_doubles
import pytest
import yaml

from cluster import processes
from cluster.local import RaySession
from cluster.road import RayRoad
from dubbing.config import Settings
from dubbing.engines.batching import BatchStats
from tests.services import free_port

# Test modules import ray before the fixture starts it, and Ray decides about its token when it is imported.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))

T = TypeVar("T")

API_KEY = secrets.token_hex(16)
COST = {"base_ms": 93.33, "item_ms": 6.667, "max_batch": 16}
"""100 ms for 1 item, 200 ms for 16."""


def eventually(condition: Callable[[], T], within_s: float = 20.0) -> T:
    """The first true value of the condition; fails when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
    return value


async def eventually_async(condition: Callable[[], Awaitable[bool]], within_s: float = 20.0) -> None:
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
    made = {"proxy_location": "Disabled", "applications": [{**application, "deployments": deployments}]}
    path.write_text(yaml.safe_dump(made, sort_keys=False))
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


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    calls = folder / "calls.jsonl"
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = python_path(plugin)
    costly = {**COST, "calls_log": str(calls)}
    engines = {
        "translate": {
            "fake-translate": {"poison": "poison"},
            "costly-translate": costly,
            "deadly-translate": {},
            "brittle-translate": {},
        },
        "speak": {"fake-speak": {}, **({"espeak-ng": {}} if shutil.which("espeak-ng") else {})},
        "transcribe": {"pocketsphinx": {}, "fake-transcribe": {}},
    }
    port = free_port()
    config = add_api(write_config(folder / "engines.yaml", engines), port, max_upload_mb=4, max_duration_min=1)
    session = RaySession(Settings(serve_config=config, serve_api_key=API_KEY))
    session.http = True
    try:
        session.start({})
        assert session.folder is not None
        yield Cluster(session.address, folder, calls, session, f"http://127.0.0.1:{port}")
        mine = processes.of_folder(session.folder)
        assert len(mine) > 5, "the raylet, its agents and the replicas should have been found"
    finally:
        session.stop()
        os.environ["PYTHONPATH"] = before
    assert [process for process in mine if process.runs()] == []
    assert not session.folder.exists()


async def stats(handle: Any) -> BatchStats:
    told: BatchStats = await handle.stats.remote()
    return told
