"""The files that grow a cluster, by Ray's own schema, by the names that KubeRay knows, and by our own rules."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.label_utils import validate_label_key
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts
from ray.serve.schema import ServeDeploySchema

from cluster import serving
from cluster.http_gate import HEALTH

LAUNCH = Path(serving.__file__).parent / "launch"
RAY_UP = sorted(LAUNCH.glob("[!k]*.yaml"))
CLOUDS = [path for path in RAY_UP if path.name != "on_premises.yaml"]
CLUSTER = yaml.safe_load(serving.LAPTOP.with_name("cluster.yaml").read_text())

KUBERAY = {
    "RayServiceSpec": "deploymentUnhealthySecondThreshold excludeHeadPodFromServeSvc managedBy rayClusterConfig "
    "rayClusterDeletionDelaySeconds serveConfigV2 serveService serviceUnhealthySecondThreshold suspend upgradeStrategy",
    "RayClusterSpec": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
    "headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions upgradeStrategy "
    "workerGroupSpecs",
    "HeadGroupSpec": "enableIngress headService ingressOptions labels rayStartParams resources serviceType template",
    "WorkerGroupSpec": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams "
    "replicas resources scaleStrategy suspend template",
    "AutoscalerOptions": "args command env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext "
    "upscalingMode version volumeMounts",
    "AuthOptions": "enableK8sTokenAuth mode secretName",
}
"""Fields of the resources of KubeRay 1.6, API ray.io/v1."""


def load(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load(path.read_text())
    return told


def kuberay(kind: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((LAUNCH / "kuberay.yaml").read_text())
    (found,) = [document for document in documents if document["kind"] == kind]
    return dict(found)


def test_there_are_files_for_every_place() -> None:
    assert [path.name for path in RAY_UP] == ["aws.yaml", "gcp.yaml", "on_premises.yaml"]


# --- ray up -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_ray_takes_the_file(path: Path) -> None:
    prepared = prepare_config(load(path))
    validate_config(prepared)


def test_ray_would_not_take_just_anything() -> None:
    config = load(CLOUDS[0])
    config["available_node_types"]["gpu"]["idle_timeout_min"] = 5
    with pytest.raises(Exception, match="idle_timeout_min"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)
def test_user_work_stays_off_the_head_and_every_label_a_replica_wants_is_on_some_node(path: Path) -> None:
    types = load(path)["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["cpu"]["resources"]["job_slot"] >= 1
    assert types["cpu"]["min_workers"] >= 1, "a cluster without a job slot is refused"
    assert (types["gpu"]["min_workers"], types["gpu"]["resources"]["GPU"]) == (0, 1)
    check_labels({name: told["labels"] for name, told in types.items()})


def check_labels(labels: dict[str, dict[str, str]]) -> None:
    for told in labels.values():
        assert list(told) == ["dubbing/pool"]
        assert validate_label_key("dubbing/pool") is None
    wanted = {
        deployment["ray_actor_options"]["label_selector"]["dubbing/pool"]
        for app in CLUSTER["applications"]
        for deployment in app["deployments"]
    }
    assert wanted == {told["dubbing/pool"] for name, told in labels.items() if name != "head"}


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_what_is_for_the_user_to_fill_in_is_in_capitals_and_said_so(path: Path) -> None:
    text = path.read_text()
    assert "Words in CAPITALS are yours to fill in." in text
    assert re.search(r"[:\[/ ][A-Z]{2,}(_[A-Z0-9]+)+", text)


# --- start.sh -----------------------------------------------------------------------------------------------------


def start(tmp_path: Path, *arguments: str, token: bool = True, **environment: str) -> tuple[int, list[list[str]], str]:
    """Run start.sh with a ray that only notes what it is told; answers (exit code, calls, stderr)."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    if token:
        (home / ".ray" / "auth_token").write_text("secret")
    ray = tmp_path / "ray"
    ray.write_text(
        '#!/bin/sh\nprintf "%s\\037" "$RAY_AUTH_MODE" "$DUBBING_MODELS_DIR" "$@" >>"$CALLS"; echo >>"$CALLS"\n'
    )
    ray.chmod(0o755)
    calls = tmp_path / "calls"
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "DUBBING_RAY": str(ray), "CALLS": str(calls), **environment}
    done = subprocess.run(
        [LAUNCH / "start.sh", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    lines = calls.read_text().splitlines() if calls.exists() else []
    return done.returncode, [line.split("\037")[:-1] for line in lines], done.stderr


def understood(arguments: list[str]) -> dict[str, Any]:
    """The options as `ray start` itself reads them."""
    return dict(scripts.start.make_context("ray start", arguments).params)


def test_the_head_offers_no_cpu_and_its_dashboard_listens_on_loopback(tmp_path: Path) -> None:
    code, calls, _ = start(tmp_path, "head", "--autoscaling-config=/x.yaml")
    assert code == 0
    assert [call[:3] for call in calls] == [
        ["token", "/mnt/dubbing/models", "stop"],
        ["token", "/mnt/dubbing/models", "start"],
    ]
    options = understood(calls[1][3:])
    assert (options["head"], options["num_cpus"], options["dashboard_host"]) == (True, 0, "127.0.0.1")
    assert (options["labels"], options["autoscaling_config"]) == ("dubbing/pool=head", "/x.yaml")


def test_a_worker_of_ones_own_says_what_it_has(tmp_path: Path) -> None:
    nvidia = tmp_path / "nvidia-smi"
    nvidia.write_text("#!/bin/sh\nexit $NVIDIA\n")
    nvidia.chmod(0o755)
    told = {"RAY_HEAD_IP": "10.0.0.1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    code, calls, _ = start(tmp_path / "cpu", "worker", NVIDIA="9", **told)
    options = understood(calls[1][3:])
    assert (code, options["address"], options["labels"]) == (0, "10.0.0.1:6379", "dubbing/pool=cpu")
    assert yaml.safe_load(options["resources"])["job_slot"] >= 1
    _, calls, _ = start(tmp_path / "gpu", "worker", NVIDIA="0", **told)
    assert understood(calls[1][3:])["labels"] == "dubbing/pool=gpu"


def test_a_worker_that_the_autoscaler_started_leaves_that_to_it(tmp_path: Path) -> None:
    told = {"RAY_HEAD_IP": "10.0.0.1", "RAY_OVERRIDE_RESOURCES": '{"CPU": 8}', "DUBBING_SHARED": "/data"}
    _, calls, _ = start(tmp_path, "worker", **told)
    assert calls[1] == ["token", "/data/models", "start", "--address=10.0.0.1:6379"]


def test_without_a_token_nothing_is_started(tmp_path: Path) -> None:
    code, calls, said = start(tmp_path, "head", token=False)
    assert (code, calls) == (4, [])
    assert "ray get-auth-token --generate" in said


# --- KubeRay ------------------------------------------------------------------------------------------------------


def test_kuberay_knows_every_field(tmp_path: Path) -> None:
    service = kuberay("RayService")
    spec = service["spec"]
    cluster = spec["rayClusterConfig"]
    parts = {
        "RayServiceSpec": [spec],
        "RayClusterSpec": [cluster],
        "HeadGroupSpec": [cluster["headGroupSpec"]],
        "WorkerGroupSpec": cluster["workerGroupSpecs"],
        "AutoscalerOptions": [cluster["autoscalerOptions"]],
        "AuthOptions": [cluster["authOptions"]],
    }
    assert service["apiVersion"] == "ray.io/v1"
    for kind, resources in parts.items():
        for resource in resources:
            assert set(resource) <= set(KUBERAY[kind].split())
    assert cluster["authOptions"]["mode"] == "token"
    assert all(isinstance(value, str) for group in groups() for value in group["resources"].values())


def groups() -> list[dict[str, Any]]:
    cluster = kuberay("RayService")["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_kuberay_serves_what_the_config_for_clusters_says() -> None:
    served = yaml.safe_load(kuberay("RayService")["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(served)
    assert served["http_options"] == {"host": "0.0.0.0", "port": 8100}
    assert {**served, "http_options": CLUSTER["http_options"]} == CLUSTER


def test_the_pools_of_kuberay_are_those_of_the_other_places() -> None:
    head, *workers = groups()
    assert (head["resources"], head["rayStartParams"]["num-cpus"], head["serviceType"]) == (
        {"CPU": "0"},
        "0",
        "ClusterIP",
    )
    check_labels({"head": head["labels"], **{group["groupName"]: group["labels"] for group in workers}})
    cpu, gpu = workers
    assert (cpu["minReplicas"], gpu["minReplicas"]) == (1, 0)
    assert int(cpu["resources"]["job_slot"]) >= 1
    for group in workers:
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == group["resources"].get("GPU")
        assert container["resources"]["limits"]["cpu"] == group["resources"]["CPU"]


def test_jobs_run_on_the_engines_of_the_operator_and_on_no_others() -> None:
    _, dub_serve = groups()[0]["template"]["spec"]["containers"]
    wait, run = dub_serve["command"][-1].splitlines()
    served = yaml.safe_load(kuberay("RayService")["spec"]["serveConfigV2"])
    assert f"http://127.0.0.1:{served['http_options']['port']}{HEALTH}" in wait
    assert run == "until dub serve; do sleep 5; done"
    shell = subprocess.run(["sh", "-n", "-c", dub_serve["command"][-1]], capture_output=True, timeout=60, check=False)
    assert shell.returncode == 0


def test_only_those_who_need_it_reach_the_pods() -> None:
    policy = kuberay("NetworkPolicy")["spec"]
    pods = [group["template"]["metadata"]["labels"] for group in groups()]
    assert all(labels == policy["podSelector"]["matchLabels"] for labels in pods)
    own, operator, clients = policy["ingress"]
    assert "ports" not in own
    assert own["from"] == [{"podSelector": policy["podSelector"]}]
    assert {rule["port"] for rule in operator["ports"]} == {8265, 8100}
    assert {rule["port"] for rule in clients["ports"]} == {8100}


def test_every_mount_has_its_volume_and_secrets_come_from_one_place() -> None:
    for group in groups():
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            secrets = [entry["valueFrom"]["secretKeyRef"]["name"] for entry in container["env"] if "valueFrom" in entry]
            assert set(secrets) == {"dubbing"}
