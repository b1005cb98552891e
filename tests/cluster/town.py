"""A Ray of several nodes on one machine, each with processes of its own that can be killed as a machine dies."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster

T = TypeVar("T")
STORE_BYTES = 80 * 2**20


class Town:
    """A head without job slots, and nodes with some."""

    def __init__(self, nodes: int, slots: int) -> None:
        self.slots = slots
        # sockets below it may have 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="dub-town-", dir="/tmp"))
        head = {"num_cpus": 3, "include_dashboard": False, "temp_dir": str(self.folder)}
        head["object_store_memory"] = STORE_BYTES
        # Otherwise every ray.init() on this machine would join it.
        with mock.patch("ray._private.utils.write_ray_address"):
            self._cluster = _started(lambda: Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False))
        self.address = str(self._cluster.address)
        self.nodes: list[Any] = []
        for _ in range(nodes):
            self.add_node()

    def add_node(self) -> None:
        has = {"num_cpus": 2, "resources": {"job_slot": self.slots}, "object_store_memory": STORE_BYTES}
        self.nodes.append(_started(lambda: self._cluster.add_node(**has, wait=True)))

    def runners(self, node: Any) -> set[str]:
        """Ids of the jobs whose coordinators are on a node."""
        names = ["".join(_command(process)) for process in _family(node)]
        return {name.removeprefix("ray::job:")[:32] for name in names if name.startswith("ray::job:")}

    def lose(self, node: Any) -> None:
        """All processes of a node end at once, as when its machine loses power."""
        _kill(node)
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def lose_head(self) -> None:
        """The head's machine loses power; the nodes stay behind."""
        head = self._cluster.head_node
        _kill(head)
        head.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        self._cluster.head_node = None

    def wanted(self) -> list[dict[str, float]] | None:
        """What the autoscaler was asked for last; None when it never was."""
        client = GcsClient(address=self.address)
        said = client.internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL)
        return list(json.loads(said)) if said else None

    def close(self) -> None:
        for node in [*self.nodes, self._cluster.head_node]:
            if node is not None:
                _kill(node)
                node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _started(start: Callable[[], T]) -> T:
    """What `start` answers; tried again where a busy machine took longer than the half minute Ray gives a node."""
    us = psutil.Process()
    for tries_left in (2, 1, 0):
        before = set(us.children(recursive=True))
        try:
            return start()
        except Exception as error:
            late = set(us.children(recursive=True)) - before
            for process in late:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(list(late), timeout=30)
            if "timed out during startup" not in str(error) or not tries_left:
                raise
    raise AssertionError


def _kill(node: Any) -> None:
    for process in _family(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _family(node: Any) -> list[psutil.Process]:
    """The processes of a node, with what they started, the elders first."""
    found: list[psutil.Process] = []
    for infos in node.all_processes.values():
        for info in infos:
            with contextlib.suppress(psutil.NoSuchProcess):
                elder = psutil.Process(info.process.pid)
                found += [elder, *elder.children(recursive=True)]
    return found


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
