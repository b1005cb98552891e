"""Every serve config, by Ray's own schema and by our own rules."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from cluster import local, serving
from cluster.app import APP, NAMES, AppArgs, assemble
from cluster.deployments import ReplicaOptions

CONFIGS = sorted(serving.LAPTOP.parent.glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_serve_config_is_valid_and_names_what_exists(path: Path) -> None:
    config = serving.load_config(path)
    (app,) = config.applications
    assert (app.name, app.import_path, app.route_prefix) == (APP, "cluster.app:build", None)
    args = AppArgs.model_validate(app.args)
    registered = {entry.name for entry in entry_points(group="dubbing.engines")}
    assert {engine for engines in args.engines.values() for engine in engines} <= registered
    assert {deployment.name for deployment in app.deployments} == {NAMES[kind] for kind in args.engines}
    for deployment in app.deployments:
        ReplicaOptions.model_validate(deployment.user_config)


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
