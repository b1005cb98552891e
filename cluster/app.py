"""The Serve application of all engines: the `import_path` of serve_configs/*.yaml.

One application with a deployment per engine starts 2-3 s sooner than an application per engine. No numbers here:
replicas, CPUs and batch sizes are in the `deployments` section of the config.
"""

# Without `from __future__ import annotations`: Serve looks at the class in build's signature to validate the args.

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from cluster.deployments import EngineReplica
from dubbing.engines.base import Kind

APP = "engines"
"""Name of the application; coordinators find the deployments by it."""
NAMES: Mapping[str, str] = {
    "transcribe": "Transcriber",
    "align": "Aligner",
    "translate": "Translator",
    "speak": "Speaker",
    "separate": "Separator",
    "diarize": "Diarizer",
}


class AppArgs(BaseModel):
    """`args` of the application in a serve config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engines: dict[Kind, dict[str, dict[str, Any]]] = Field(min_length=1)
    """Kind -> engine name -> options of its `load`; at least one engine in all."""


def deployment_names(kind: str, engine: str) -> tuple[str, str]:
    """Where to look for an engine: under its own name, else under the name of its kind."""
    return f"{NAMES[kind]}-{engine}", NAMES[kind]


def build(args: AppArgs) -> Application:
    """The application of a serve config; Serve itself lays the `deployments` section over it."""
    return assemble(args, {})


def assemble(args: AppArgs, overrides: Mapping[str, Mapping[str, Any]]) -> Application:
    """The application with deployment options by deployment name, as `Deployment.options` takes them.

    The first engine of a kind is deployed under the name of the kind (`Translator`), further ones get their own name
    behind it (`Translator-nllb`) and, where nothing else is said, the options of their kind.
    """
    parts: list[Application] = []
    wanted = [(kind, engine, options) for kind, engines in args.engines.items() for engine, options in engines.items()]
    seen: set[str] = set()
    for kind, engine, options in wanted:
        own, general = deployment_names(kind, engine)
        name = own if kind in seen else general
        seen.add(kind)
        deployment = serve.deployment(EngineReplica).options(
            name=name, **overrides.get(name, overrides.get(general, {}))
        )
        # Serve wants one deployment that reaches all others. The last engine is that one: a root of its own would be
        # one more process (140 MB, 0.6 s of CPU at start).
        peers = parts if (kind, engine, options) == wanted[-1] else []
        parts.append(deployment.bind(engine, options, list(peers)))
    return parts[-1]
