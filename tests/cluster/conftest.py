"""One private Ray with misbehaving engines for all tests of the cluster; nothing of it may be left afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_support import API_KEY, COST, Cluster, add_api, install_plugin, python_path, write_config

from cluster import processes
from cluster.local import RaySession
from dubbing.config import Settings
from tests.services import free_port

# Test modules import ray before the fixture starts it, and Ray decides about its token when it is imported.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


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
