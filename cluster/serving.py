"""The engines of a serve config on a running Ray: deployed, and waited for until they are healthy."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.schema import DeploymentSchema, ServeDeploySchema, ServeStatus

from cluster.app import APP, NAMES, AppArgs, assemble
from cluster.awaiting import PATIENCE_S
from cluster.deployments import load_error
from dubbing.config import Settings
from dubbing.errors import ClusterError, DubbingError, SettingsError

_HERE = Path(__file__).resolve().parent
_CONFIGS = next(folder for folder in (_HERE / "serve_configs", _HERE.parent / "serve_configs") if folder.is_dir())
"""Inside the package when installed from a wheel, beside it in a checkout."""
LAPTOP = _CONFIGS / "laptop.yaml"
API_PATH = "cluster.http:build"
POLL_S = 0.05


def start(config: ServeDeploySchema | None = None, *, ours: bool = False) -> None:
    """Start Serve with the HTTP proxies that `config` asks for, without any otherwise, or connect to the Serve that runs.

    `ours`: Ray is this machine's and new. Raises SettingsError when the port of `config` is taken here.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    # Serve's own default is a proxy on every address of the machine: a config that does not say where gets none.
    if (
        config is None
        or "http_options" not in config.model_fields_set
        or config.proxy_location == ProxyLocation.Disabled
    ):
        serve.start(proxy_location="Disabled")
        return
    if ours:
        # Serve would start its proxy again and again, and say so in its log alone.
        _require_free(config.http_options.host, config.http_options.port)
    serve.start(proxy_location=config.proxy_location, http_options=config.http_options.model_dump(exclude_unset=True))


def deploy_api(config: ServeDeploySchema, settings: Settings) -> str:
    """Deploy the speech API of the config, unless it is deployed; answers a sentence about it, empty without one."""
    app = next((app for app in config.applications if app.import_path == API_PATH), None)
    if app is None:
        return ""
    if settings.serve_api_key is None:
        return "The speech API is off: it wants DUBBING_SERVE_API_KEY, the key that its callers send."
    deployed = serve.status().applications.get(app.name)
    if deployed is None or deployed.status in ("DEPLOY_FAILED", "NOT_STARTED"):
        from cluster import http  # noqa: PLC0415 - FastAPI, 0.3 s that only this needs

        try:
            args = http.ApiArgs.model_validate(app.args)
        except ValidationError as error:
            raise _config_error("args", _one_line(error)) from error
        overrides = {
            key: value
            for d in app.deployments
            for key, value in d.model_dump(exclude_unset=True, exclude={"name"}).items()
        }
        target = serve.RunTarget(
            http.assemble(args, settings, overrides),
            name=app.name,
            route_prefix=app.route_prefix,
            logging_config=app.logging_config,
        )
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        wait_until_healthy(app.name, ours=True)
    if not serve.status().proxies:
        return "The speech API is deployed, but Serve was started here before and without HTTP: nobody can reach it."
    return f"The speech API answers at http://{config.http_options.host}:{config.http_options.port}/v1."


def deploy_unless_deployed(config: Path | None, engine_args: Mapping[str, Mapping[str, Any]]) -> bool:
    """`deploy` the serve config at `config` and return True, unless the engines of somebody else are deployed."""
    deployed = serve.status().applications.get(APP)
    if deployed is None or deployed.status in ("DEPLOY_FAILED", "NOT_STARTED"):
        deploy(load_config(config), engine_args)
        return True
    return False


def load_config(path: Path | None) -> ServeDeploySchema:
    """The serve config at `path` (default: laptop.yaml), checked with Ray's own schema. Raises SettingsError."""
    path = path or LAPTOP
    try:
        return ServeDeploySchema.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise _config_error(str(path), _one_line(error)) from error


def _require_free(host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise SettingsError(
            key="http_options",
            value=f"{host}:{port}",
            expected=f"it cannot be listened on ({error.strerror})",
            fix="End the program that has the port, or name another in the serve config.",
        ) from error


def deploy(config: ServeDeploySchema, engine_args: Mapping[str, Mapping[str, Any]]) -> str:
    """Hand the application of engines to Serve, without waiting for it, and return its name.

    `engine_args` (kind -> engine -> options) replaces the engines of the config. Raises SettingsError.
    """
    app = next((app for app in config.applications if app.import_path == "cluster.app:build"), None)
    try:
        args = AppArgs.model_validate({"engines": engine_args} if engine_args else app.args if app else {})
    except ValidationError as error:
        raise _config_error("args", _one_line(error)) from error
    if app is None:
        raise _config_error("applications", "one of them must have the import_path cluster.app:build")
    overrides = deployment_options(app.deployments, args)
    # Built in this process: the REST way starts a worker for `build` alone.
    target = serve.RunTarget(
        assemble(args, overrides), name=app.name, route_prefix=app.route_prefix, logging_config=app.logging_config
    )
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    return str(app.name)


def deployment_options(deployments: Sequence[DeploymentSchema], args: AppArgs) -> dict[str, dict[str, Any]]:
    """Options by deployment name, as `assemble` takes them.

    A job may bring a kind of engine that the config does not list; it gets the options of the first that is listed. With
    Ray's own defaults each such replica would hold a whole CPU, and on two cores nothing would be left to mix with.
    """
    found = {d.name: d.model_dump(exclude_unset=True, exclude={"name"}) for d in deployments}
    common: dict[str, Any] = next(iter(found.values()), {})
    return {NAMES[kind]: common for kind in args.engines} | found


def wait_until_healthy(app: str, *, ours: bool, within_s: float = PATIENCE_S) -> None:
    """Return once all deployments run. Raises the error of an engine that cannot be loaded, or ClusterError.

    `ours`: take an application that failed away again, so that Serve does not go on trying.
    """
    deadline = time.monotonic() + within_s
    while True:
        status = serve.status()
        overview = status.applications.get(app)
        if overview is not None and overview.status == "RUNNING":
            return
        if (error := _failure(status, app)) is not None:
            if ours:
                serve.delete(app, _blocking=False)
            raise error
        if time.monotonic() > deadline:
            raise ClusterError(
                detail=f"the engines were not ready within {within_s / 60:.0f} min: {_state(status, app)}"
            )
        time.sleep(POLL_S)


def _failure(status: ServeStatus, app: str) -> DubbingError | None:
    overview = status.applications.get(app)
    if overview is None:
        return None
    # An engine's own error is certain at the first try; Serve would make two more, with pauses.
    for deployment in overview.deployments.values():
        if (error := load_error(deployment.message)) is not None:
            return error
    if overview.status == "DEPLOY_FAILED":
        return ClusterError(detail=f"an engine did not start: {_state(status, app)}")
    return None


def _state(status: ServeStatus, app: str) -> str:
    overview = status.applications.get(app)
    if overview is None:
        return "nothing is deployed"
    said = [
        f"{name} {d.status.value}: {_last_line(d.message)}" for name, d in overview.deployments.items() if d.message
    ]
    return "; ".join(said) or _last_line(overview.message)


def _config_error(value: str, problem: str) -> SettingsError:
    return SettingsError(
        key="DUBBING_SERVE_CONFIG",
        value=value,
        expected=f"it must be a Serve config ({problem})",
        fix="Correct the file, or unset DUBBING_SERVE_CONFIG for serve_configs/laptop.yaml.",
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _last_line(message: str) -> str:
    return (message.strip().splitlines() or [""])[-1][:300]
