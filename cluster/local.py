"""Start a private Ray or join one, with the engines of a serve config on it, and leave nothing of it behind.

This module sets Ray's environment, which Ray reads when it is imported: so ray, and whatever imports it, is imported in
the functions here.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import folders, processes
from dubbing.config import Settings
from dubbing.errors import ClusterError, ClusterLostError

JOB_SLOTS = 2
"""Jobs that run side by side on a private Ray."""
SPARE_CPUS = 1
"""A private Ray is told of one CPU more than there is: coordinators and replicas ask for a little and mostly wait, and
without the spare one a leaf task that asks for all cores would never start beside them."""
OBJECT_STORE_BYTES = 128 * 2**20
"""Audio of lines only; files go by path."""
CONNECT_S = 3.0
END_S = 5.0
WATCH_S = 1.0
MISSES = 3
"""So many looks in vain, one after the other, mean that it is gone."""

_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise a call that comes after the end of the session, a late cancel say, silently starts another Ray.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
_PRIVATE = {
    # A Ray that starts itself listens on the address of the machine even when told 127.0.0.1, so only who knows the
    # token may talk to it. Left unset, Ray would write a token file into the home directory.
    "RAY_AUTH_MODE": "token",
    # The raylet looks for its object store once, and when that is not up yet, again after this time (default 1000 ms):
    # ray.init 3.6 -> 2.6 s on 2 quiet cores.
    "RAY_raylet_client_connect_timeout_milliseconds": "20",
    "RAY_raylet_client_num_connect_attempts": "500",
    # As many workers start at a time, instead of one per core: four replicas 3.2 -> 2.2 s.
    "RAY_worker_maximum_startup_concurrency": "6",
    # Nobody collects metrics of a Ray that lives as long as a command.
    "RAY_enable_metrics_collection": "0",
}


log = logging.getLogger(__name__)


class RaySession:
    """A Ray this process started or joined. Blocking: the caller gives it a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.owned = settings.ray_address in (None, "local")
        """Whether this is a private Ray, which ends with the session."""
        self.timings: dict[str, float] = {}
        """Seconds of each step of the start."""
        self.folder: Path | None = None
        """Where a private Ray keeps sockets and logs; None when joined."""
        self.lost = False
        """Whether its head is gone, so that there is nobody to say goodbye to."""
        self.address = ""
        """host:port where others may join it, once started."""
        self.http = False
        """Whether the speech API of the serve config is wanted, and with it Serve's HTTP proxies."""
        self.api = ""
        """A sentence about the speech API; empty where the config has none."""
        self.notice = ""
        """A sentence about what jobs will wait for; empty when they can begin."""
        self._connected = False
        self._seen: list[processes.Process] = []
        self._before: dict[str, str | None] = {}

    def start(self, engine_args: Mapping[str, Mapping[str, Any]], *, entry: str = "") -> None:
        """Start or join Ray, and deploy the engines unless they are deployed. `entry` is the pipeline to warm up.

        Raises ClusterError, SettingsError, or the error of an engine that cannot be loaded.
        """
        self._set(_ALWAYS)
        if self.owned:
            self._prepare()
        with self._clock("import"):
            import ray  # noqa: PLC0415
        # 0.5 s of imports while ray.init waits for its processes.
        imports = threading.Thread(target=importlib.import_module, args=["cluster.coordinator"], name="import-serve")
        imports.start()
        try:
            with self._clock("ray.init"):
                if self.owned:
                    self._init_private()
                elif not ray.is_initialized():
                    self._join(str(self._settings.ray_address))
        finally:
            imports.join()
        self.address = ray.get_runtime_context().gcs_address
        from cluster import app, coordinator, serving  # noqa: PLC0415

        config = serving.load_config(self._settings.serve_config) if self.http else None
        with self._clock("serve.start"):
            serving.start(config, ours=self.owned)
        with self._clock("deploy"):
            ours = serving.deploy_unless_deployed(self._settings.serve_config, engine_args)
        if self.owned and entry:
            coordinator.warm_up(entry)
        with self._clock("health"):
            serving.wait_until_healthy(app.APP, ours=ours, within_s=60.0 * self._settings.engine_start_min)
        if config is not None:
            with self._clock("api"):
                self.api = serving.deploy_api(config, self._settings)

    def look(self) -> str:
        """Join Ray and start nothing; answers `notice`. Raises ClusterError."""
        self._set(_ALWAYS)
        self._join(str(self._settings.ray_address))
        return self.notice

    def stop(self, keep_logs: Path | None = None) -> Path | None:
        """End a private Ray and everything it started, or leave a joined one. Returns where the logs were kept."""
        import ray  # noqa: PLC0415

        mine = [*self._seen, *(processes.of_folder(self.folder) if self.folder else [])]
        if self.lost:
            processes.end(mine, 0)  # what is left of it would go on for a minute, and so would our own goodbye
        if self.owned or self._connected:
            ray.shutdown()
        processes.end(mine, END_S)
        kept = None
        if self.folder is not None:
            # a worker that began after the look at `mine` is nobody's child by now
            processes.end(processes.of_ray_in(self.folder), 0)
            kept = _keep_logs(self.folder, keep_logs) if keep_logs else None
            shutil.rmtree(self.folder, ignore_errors=True)
        for key, value in self._before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        return kept

    async def until_lost(self) -> None:
        """Return never. Raises ClusterLostError once Ray's head, or the node of this process, is gone."""
        misses = 0
        while misses < MISSES:
            await asyncio.sleep(WATCH_S)
            misses = 0 if await asyncio.to_thread(self._answers) else misses + 1
        self.lost = True
        raise ClusterLostError(address=self.address)

    def _answers(self) -> bool:
        import ray  # noqa: PLC0415

        try:
            _check_reachable(self.address)
        except ClusterError:
            return False
        me = ray.get_runtime_context().get_node_id()
        if not any(node["NodeID"] == me and node["Alive"] for node in ray.nodes()):
            return False
        # Remembered, for when the raylet has died its workers are no children of ours any more.
        self._seen = processes.of_folder(self.folder) if self.folder else []
        return True

    def _prepare(self) -> None:
        if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
            raise ClusterError(
                detail="ray was imported before its environment was prepared, so it would not know the token"
            )
        # Socket paths may have 107 bytes and Ray's own part of them has 75.
        base = tempfile.gettempdir() if len(tempfile.gettempdir()) <= 16 else "/tmp"  # noqa: S108
        self.folder = folders.make(folders.RAY, Path(base))
        token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
        self._set({**_PRIVATE, "RAY_AUTH_TOKEN": token})

    def _set(self, environment: Mapping[str, str]) -> None:
        for key, value in environment.items():
            self._before[key] = os.environ.get(key)
            os.environ[key] = value

    def _init_private(self) -> None:
        _init_ray(
            "the private Ray did not start",
            address="local",
            num_cpus=(os.cpu_count() or 1) + SPARE_CPUS,
            resources={"job_slot": JOB_SLOTS},
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(self.folder),
        )

    def _join(self, address: str) -> None:

        _check_reachable(address)
        _init_ray(f"Ray at {address} refused us", address=address)
        self._connected = True
        from cluster import slots  # noqa: PLC0415 - imports ray

        self.notice = slots.lacking(address)
        if self.notice:
            log.warning("%s", self.notice)

    @contextmanager
    def _clock(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[step] = round(time.perf_counter() - start, 3)


def _init_ray(failure: str, **options: Any) -> None:
    import ray  # noqa: PLC0415

    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # a node that takes more than 30 s to start is a bare Exception of Ray's
        raise ClusterError(detail=f"{failure}: {_one_line(error)}") from error


def _check_reachable(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        raise ClusterError(detail=f"{address!r} is not an address of the form host:port")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterError(detail=f"nothing answers at {address} ({error.strerror or error})") from error


def _keep_logs(folder: Path, keep: Path) -> Path | None:
    logs = folder / "session_latest" / "logs"
    if not logs.is_dir():
        return None
    kept = keep / f"ray-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    shutil.copytree(logs, kept, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    return kept


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
