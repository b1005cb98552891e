"""Every serve config, by Ray's own schema and by our own rules."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from ray.serve._private.utils import DEFAULT

from cluster import local, serving
from cluster.app import APP, NAMES, AppArgs, assemble, deployment_names
from cluster.deployments import ReplicaOptions
from cluster.http import ApiArgs

CONFIGS = sorted(serving.LAPTOP.parent.glob("*.yaml"))


SHARES = {0.125, 0.25, 0.5, 1}
"""Of a GPU; with others the autoscaler may wait for a node that would hold them."""


def engines_of(path: Path) -> Any:
    return next(app for app in serving.load_config(path).applications if app.import_path == "cluster.app:build")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_serve_config_is_valid_and_names_what_exists(path: Path) -> None:
    config = serving.load_config(path)
    app = engines_of(path)
    assert (app.name, app.route_prefix) == (APP, None)
    args = AppArgs.model_validate(app.args)
    registered = {entry.name for entry in entry_points(group="dubbing.engines")}
    assert {engine for engines in args.engines.values() for engine in engines} <= registered
    further = {deployment_names(kind, engine)[0] for kind, engines in args.engines.items() for engine in [*engines][1:]}
    names = {deployment.name for deployment in app.deployments}
    assert {NAMES[kind] for kind in args.engines} <= names <= {NAMES[kind] for kind in args.engines} | further
    for deployment in app.deployments:
        ReplicaOptions.model_validate(deployment.user_config)
    assert [other.import_path for other in config.applications if other.name != app.name] in ([], [serving.API_PATH])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_speech_api_listens_on_this_machine_alone_where_it_listens_at_all(path: Path) -> None:
    config = serving.load_config(path)
    for app in config.applications:
        if app.import_path == serving.API_PATH:
            assert (config.proxy_location, config.http_options.host) == ("HeadOnly", "127.0.0.1")
            assert (config.http_options.port, app.name, app.route_prefix) == (8100, "api", "/")
            ApiArgs.model_validate(app.args)
            assert [deployment.name for deployment in app.deployments] == ["SpeechApi"]
    if path == serving.LAPTOP:
        assert (config.proxy_location, len(config.applications)) == ("Disabled", 1)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_models_share_gpus_in_powers_of_two_and_engines_without_a_gpu_ask_for_none(path: Path) -> None:
    app = engines_of(path)
    on_gpu = {
        name
        for kind, engines in app.args["engines"].items()
        for i, (engine, options) in enumerate(engines.items())
        for name in [deployment_names(kind, engine)[0] if i else NAMES[kind]]
        if options.get("device") == "cuda"
    }
    shares = {d.name: d.ray_actor_options.model_dump(exclude_unset=True).get("num_gpus", 0) for d in app.deployments}
    assert {name for name, share in shares.items() if share} == on_gpu
    assert {share for share in shares.values() if share} <= SHARES
    assert sum(shares.values()) <= 1, "one replica of each must fit on one GPU"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_replica_that_is_replaced_has_time_to_end_what_it_began(path: Path) -> None:
    for deployment in engines_of(path).deployments:
        assert deployment.graceful_shutdown_timeout_s >= (5 if path == serving.LAPTOP else 120)
        assert deployment.health_check_timeout_s < deployment.user_config["stuck_s"]


def test_replicas_scale_on_full_batches() -> None:
    path = serving.LAPTOP.with_name("cluster.yaml")
    options = {
        deployment_names(kind, engine)[0] if i else NAMES[kind]: told
        for kind, engines in engines_of(path).args["engines"].items()
        for i, (engine, told) in enumerate(engines.items())
    }
    for deployment in engines_of(path).deployments:
        size = deployment.user_config["max_size"]
        scaling = deployment.autoscaling_config
        assert options[deployment.name].get("max_batch", size) == size
        assert (scaling["min_replicas"], scaling["target_ongoing_requests"]) == (1, 1.25 * size)
        assert deployment.max_ongoing_requests == 2 * size
        assert (scaling["upscale_delay_s"], scaling["downscale_delay_s"], scaling["look_back_period_s"]) == (
            10,
            600,
            12,
        )
        share = deployment.ray_actor_options.num_gpus
        pool = "gpu" if share and share is not DEFAULT.VALUE else "cpu"
        assert deployment.ray_actor_options.label_selector == {"dubbing/pool": pool}


def test_laptop_leaves_two_cores_to_the_coordinator_and_ffmpeg() -> None:
    (app,) = serving.load_config(None).applications
    cpus = [d.ray_actor_options.num_cpus * d.num_replicas for d in app.deployments]
    assert max(cpus) <= 0.1
    assert sum(cpus) + local.JOB_SLOTS * 0.1 <= local.SPARE_CPUS


def test_a_kind_the_config_does_not_list_leaves_the_cores_alone_too() -> None:
    (app,) = serving.load_config(None).applications
    engines = {"speak": {"espeak-ng": {}}, "separate": {"demucs": {}}, "diarize": {"sherpa-onnx-diarize": {}}}
    options = serving.deployment_options(app.deployments, AppArgs.model_validate({"engines": engines}))

    assert options["Separator"]["ray_actor_options"] == options["Diarizer"]["ray_actor_options"] == {"num_cpus": 0.1}
    assert options["Speaker"]["user_config"]["stuck_s"] == 120, "what is listed keeps its own"


def test_several_engines_of_a_kind_are_deployed_side_by_side() -> None:
    engines = {"translate": {"apertium": {}, "nllb": {}}, "speak": {"espeak-ng": {}}}
    app = assemble(AppArgs.model_validate({"engines": engines}), {"Translator": {"num_replicas": 3}})
    last = app._bound_deployment
    peers = [peer._bound_deployment for peer in last.init_args[2]]
    assert [(d.name, d.num_replicas) for d in [*peers, last]] == [
        ("Translator", 3),
        ("Translator-nllb", 3),
        ("Speaker", 1),
    ]


def test_a_config_that_says_nothing_of_http_opens_no_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[dict[str, object]] = []
    monkeypatch.setattr(serving.serve, "start", lambda **options: started.append(options))
    bare = tmp_path / "bare.yaml"
    bare.write_text("applications: [{name: engines, import_path: 'cluster.app:build', args: {}}]\n")
    one = tmp_path / "one.yaml"
    one.write_text(bare.read_text() + "proxy_location: HeadOnly\nhttp_options: {host: 127.0.0.1, port: 0}\n")

    for path in (bare, one):
        serving.start(serving.load_config(path))

    assert started[0] == {"proxy_location": "Disabled"}
    assert started[1]["http_options"] == {"host": "127.0.0.1", "port": 0}
