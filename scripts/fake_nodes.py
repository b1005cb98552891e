"""A private Ray on this machine whose autoscaler is real and whose machines are not.

Nodes are real raylets that claim resources this machine need not have, GPUs say. Ray's monitor starts and ends them by
demand, as it would rent machines, through Ray's own fake provider. (`ray.cluster_utils.AutoscalingCluster` needs a file
that Ray's wheel lacks, and ends with `ray stop`, which ends every Ray of the machine.)
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import processes

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
HEAD_ID = "f" * 51 + "00000"
"""The fake provider knows the head by it."""
STORE_BYTES = 80 * 2**20
START_S = 300.0
END_S = 10.0


class FakeCluster:
    """A head, and nodes that come and go."""

    def __init__(
        self,
        head: Mapping[str, float],
        nodes: Mapping[str, tuple[Mapping[str, float], int]],
        *,
        idle_s: float = 5.0,
        workers: int = 8,
    ) -> None:
        """`head`: its resources; `nodes`: type -> (resources of a node, most nodes); idle nodes end after `idle_s`.

        A node keeps up to so many `workers` for the tasks to come.

        Sets the environment of this process, so it must come before ray is imported.
        """
        self._head = dict(head)
        # Socket paths below it may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix=f"dub-fake-{os.getpid()}-", dir="/tmp"))
        self.address = f"{HOST}:{free_port()}"
        self._config = self._autoscaler(nodes, idle_s)
        self._head_process: subprocess.Popen[bytes] | None = None
        os.environ.update(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(32),
            RAY_USAGE_STATS_ENABLED="0",
            RAY_ENABLE_AUTO_CONNECT="0",
            RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S="1",
            RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S="1",
            RAY_num_workers_soft_limit=str(workers),
            # Workers would run at a lower priority than other programs of this machine, which a cluster does not have.
            RAY_worker_niceness="0",
            # Serve asks a replica how long its line is and takes no answer in 0.1 s for a full one: too strict for two cores.
            RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S="2",
            RAY_SERVE_MAX_QUEUE_LENGTH_RESPONSE_DEADLINE_S="5",
            PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        )
        os.environ.pop("RAY_ADDRESS", None)

    def start(self) -> None:
        """Start the head and connect this process to it."""
        config = self.folder / "autoscaler.json"
        config.write_text(json.dumps(self._config))
        log = self.folder / "start.log"
        own = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
        own |= {"RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID}
        with log.open("wb") as out:
            self._head_process = subprocess.Popen(
                self._command(config), env={**os.environ, **own}, stdout=out, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            if self._head_process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the head did not start:\n{log.read_text()}")
            time.sleep(0.05)
        import ray  # noqa: PLC0415 - reads its environment when it is imported

        ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", _node_ip_address=HOST)

    def nodes(self) -> int:
        """Nodes that are alive, the head not counted."""
        import ray  # noqa: PLC0415 - as above

        return sum(node["Alive"] and "node:__internal_head__" not in node["Resources"] for node in ray.nodes())

    def stop(self) -> int:
        """End all its processes; how many there were."""
        import ray  # noqa: PLC0415 - as above

        mine = processes.of_folder(self.folder)
        ray.shutdown()
        if self._head_process is not None:
            self._head_process.terminate()
            # Once it is gone, its children would be nobody's; so all were listed before.
            processes.end(mine, END_S)
            self._head_process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        return len(mine)

    def _command(self, config: Path) -> list[str]:
        resources = dict(self._head)
        host, port = self.address.split(":")
        options = {
            "autoscaling-config": config,
            "node-ip-address": host,
            "port": port,
            "temp-dir": self.folder,
            "num-cpus": round(resources.pop("CPU", 1)),
            "num-gpus": round(resources.pop("GPU", 0)),
            "resources": json.dumps(resources),
            "object-store-memory": STORE_BYTES,
            "ray-client-server-port": free_port(),
            "dashboard-agent-listen-port": 0,
            "include-dashboard": "false",
        }
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        return start + [f"--{name}={value}" for name, value in options.items()]

    def _autoscaler(self, nodes: Mapping[str, tuple[Mapping[str, float], int]], idle_s: float) -> dict[str, Any]:
        types: dict[str, Any] = {
            name: {
                "resources": {**resources, "object_store_memory": STORE_BYTES},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            }
            for name, (resources, most) in nodes.items()
        }
        types["ray.head.default"] = {"resources": self._head, "node_config": {}, "max_workers": 0}
        lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        return {
            "cluster_name": "fake",
            "max_workers": sum(most for _, most in nodes.values()),
            "provider": {
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "gcs_address": self.address,
                "launch_multiple": True,
                "head_node_id": HEAD_ID,
            },
            "available_node_types": types,
            "head_node_type": "ray.head.default",
            "idle_timeout_minutes": idle_s / 60,
            "upscaling_speed": 10,
            "auth": {},
            "docker": {},
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "rsync_exclude": [],
            "rsync_filter": [],
            **{f"{name}_commands": [] for name in lists},
        }


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
