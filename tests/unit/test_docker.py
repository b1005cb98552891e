"""No Docker engine is needed to know that the images and compose files name what exists and run what can be run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from dubbing import cli, config
from dubbing.queue.redis_queue import RedisQueue
from dubbing.web import server as web
from tests.services import RedisServer, free_port, wait_until
from tests.web.conftest import environment

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
GOLDEN = "compose.golden_path.tailscale.yml"
COMPOSE = (GOLDEN, "compose.cluster.yml")
TARGETS = ("cpu", "cuda")
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|_KEY|DATABASE_URL")
WANTED = re.compile(r"\$\{(\w+):\?[^}]+\}")
GIVEN = re.compile(r"\$\{(\w+):-([^}]*)\}")


@dataclass
class Stage:
    """One FROM of the Dockerfile and what follows it."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.steps if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]


def stages() -> dict[str, Stage]:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found: dict[str, Stage] = {}
    for line in filter(None, (part.strip() for part in lines.replace("\\\n", " ").splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(base, name)
        else:
            stage.steps.append((instruction, " ".join(rest.split())))
    return found


STAGES = stages()


def line_of(target: str) -> list[Stage]:
    """A stage and those it is built upon."""
    stage = STAGES[target]
    return [*(line_of(stage.base) if stage.base in STAGES else []), stage]


def services(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))["services"]
    return found


def every_service() -> Iterator[tuple[str, str]]:
    yield from ((file, name) for file in COMPOSE for name in services(file))


def filled(text: str) -> str:
    """A value as compose would hand it on, with a word in place of what the user must set."""
    return GIVEN.sub(r"\2", WANTED.sub("a-long-random-word-0123", str(text)))


# --- the image --------------------------------------------------------------------------------------------------------


def test_bases_are_pinned_by_tag() -> None:
    outside = [stage.base for stage in STAGES.values() if stage.base not in STAGES]
    assert len(outside) == 2
    assert all(re.fullmatch(r"[\w./-]+:\d[\w.-]*", base) for base in outside), outside


def test_every_file_that_is_copied_exists_and_reaches_the_builder() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#"]
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*", "everything stays outside but what is named"
    for stage in STAGES.values():
        for copy in stage.all("COPY"):
            *sources, _target = (word for word in copy.split() if not word.startswith("--"))
            if "--from=" in copy:
                assert copy.split()[0].removeprefix("--from=") in STAGES
                continue
            assert all((ROOT / source).exists() and source.split("/")[0] in kept for source in sources), copy


def test_the_project_can_be_built_from_what_is_copied(tmp_path: Path) -> None:
    for copy in STAGES["packages-cpu"].all("COPY"):
        *sources, target = copy.split()
        for source in sources:
            place = tmp_path / target.removeprefix("/build/")
            path = ROOT / source
            if path.is_dir():
                shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, place)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "out",
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [path.name.split("-")[0] for path in (tmp_path / "out").iterdir()] == ["dubbing_pipeline"]


@pytest.mark.parametrize("target", TARGETS)
def test_python_packages_come_from_a_lock_with_hashes(target: str) -> None:
    stage = STAGES[f"packages-{target}"]
    (source, _target) = next(copy.split() for copy in stage.all("COPY") if "requirements" in copy)
    installs = [run for run in stage.all("RUN") if "pip install" in run]
    assert "--require-hashes" in installs[0] and all("--no-deps" in run for run in installs[1:])
    entries = re.split(r"\n(?=\S)", (ROOT / source).read_text())
    pinned = [entry for entry in entries if re.match(r"[A-Za-z0-9._\[\],-]+==", entry)]
    assert len(pinned) > 80 and all("--hash=sha256:" in entry for entry in pinned)
    assert any(entry.startswith("setuptools==") for entry in pinned), "the build has no isolation"
    assert any(entry.startswith("psycopg==") for entry in pinned), "the cluster's database is PostgreSQL"


@pytest.mark.parametrize("target", TARGETS)
def test_system_packages_are_few_sorted_and_leave_no_lists(target: str) -> None:
    (run,) = (run for stage in line_of(target) for run in stage.all("RUN") if "apt-get" in run)
    assert "--no-install-recommends" in run and run.endswith("rm -rf /var/lib/apt/lists/*")
    packages = run.partition("--no-install-recommends")[2].partition("&&")[0].split()
    assert packages == sorted(packages)
    assert {"apertium", "espeak-ng", "ffmpeg", "tini", "util-linux"} <= set(packages)


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_runs_as_nobody_special_under_an_init(target: str) -> None:
    stage = STAGES[target]
    assert [text for name, text in stage.steps if name == "USER"] == ["dubbing"]
    assert any("useradd --uid 1000" in run for part in line_of(target) for run in part.all("RUN"))
    after = stage.steps[[name for name, _ in stage.steps].index("USER") :]
    assert not [name for name, _ in after if name in ("RUN", "COPY", "ADD")]
    assert json.loads(stage.last("ENTRYPOINT"))[0] == "tini"
    assert check_command(json.loads(stage.last("CMD"))) is None


def test_both_targets_are_the_same_but_for_what_they_must_not_be() -> None:
    def plain(target: str) -> list[tuple[str, str]]:
        config = " DUBBING_SERVE_CONFIG=/opt/dubbing/serve_configs/one_gpu.yaml"
        return [
            (name, text.replace(f"packages-{target}", "packages").replace(config, ""))
            for name, text in STAGES[target].steps
        ]

    assert plain("cpu") == plain("cuda")


def test_no_secret_is_built_in() -> None:
    for stage in STAGES.values():
        for text in (*stage.all("ENV"), *stage.all("ARG")):
            assert not SECRET.search(text), text
        assert not stage.all("ADD")


@pytest.mark.parametrize("target", TARGETS)
def test_the_serve_config_of_the_image_is_there(target: str) -> None:
    for text in STAGES[target].all("ENV"):
        for path in re.findall(r"/opt/dubbing/(serve_configs/\S+)", text):
            assert (ROOT / path).is_file()


def test_the_health_check_tells_a_living_server_from_a_dead_one(tmp_path: Path) -> None:
    checks = {STAGES[target].last("HEALTHCHECK") for target in TARGETS}
    (check,) = checks
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "python3"

    def healthy(port: int) -> bool:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment(PORT=str(port)), capture_output=True, timeout=60).returncode == 0

    port = free_port()
    assert not healthy(port)
    settings = environment(DUBBING_OUTPUT_DIR="Output", PORT=str(port), HOST="0.0.0.0", REMOTE_ACCESS_MODE="tailscale")
    command = [sys.executable, "-m", "dubbing.web.server", "--pages-only"]
    with subprocess.Popen(command, env=settings, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and b"is ready" in process.stdout.readline()
            assert healthy(port)
        finally:
            process.terminate()
            assert process.wait(60) == 0


# --- compose ----------------------------------------------------------------------------------------------------------


def check_command(words: list[str]) -> None:
    """Fails the test when a program would not understand its words."""
    program, *arguments = [filled(word) for word in words]
    if program == "dubbing-web":
        web.parser().parse_args(arguments)
    elif program == "dub":
        cli.parser().parse_args(arguments)
    elif program == "ray":
        check_ray(arguments)
    else:
        assert program in {"redis-server", "redis-cli", "pg_isready"}, words


def check_ray(arguments: list[str]) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    with scripts.cli.make_context("ray", list(arguments)) as context:
        name, command, rest = scripts.cli.resolve_command(context, arguments)
        made = command.make_context(name, list(rest))
    for option in ("resources", "labels"):
        text = made.params.get(option)
        assert not text or (isinstance(json.loads(text), dict) if option == "resources" else "=" in text)


@pytest.mark.parametrize(("file", "name"), list(every_service()))
def test_a_service_names_what_exists_and_runs_what_can_be_run(file: str, name: str) -> None:
    service = services(file)[name]
    assert set(service) <= {
        "build", "image", "init", "restart", "network_mode", "ipc", "environment", "volumes", "ports", "shm_size", "deploy",
        "stop_grace_period", "security_opt", "cap_drop", "depends_on", "command", "healthcheck",
    }  # fmt: skip
    assert re.fullmatch(r"(dubbing-pipeline:(cpu|cuda))|([\w./-]+:\d[\w.-]*)", service["image"])
    if build := service.get("build"):
        context = (DOCKER / build["context"]).resolve()
        assert context == ROOT and (context / build["dockerfile"]).is_file()
        assert build["target"] in TARGETS and service["image"].endswith(build["target"])
    check_command(service.get("command", ["dubbing-web"] if build else ["pg_isready"]))
    health = service.get("healthcheck", {"disable": True})
    if not health.get("disable"):
        assert health["test"][0] == "CMD"
        check_command(health["test"][1:])
    assert "no-new-privileges:true" in service["security_opt"] and not service.get("privileged")


@pytest.mark.parametrize("file", COMPOSE)
def test_services_wait_for_services_that_can_say_they_are_well(file: str) -> None:
    found = services(file)
    for name, service in found.items():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert "test" in found[other]["healthcheck"], other
    volumes = yaml.safe_load((DOCKER / file).read_text())["volumes"]
    mounts = [mount.split(":")[0] for service in found.values() for mount in service.get("volumes", [])]
    assert {mount for mount in mounts if not mount.startswith(".")} == set(volumes)
    assert {mount for mount in mounts if mount.startswith(".")} == {"../Output", "../logs", "../models"}


@pytest.mark.parametrize(("file", "name"), list(every_service()))
def test_secrets_come_from_outside_and_nothing_is_published_to_the_world(file: str, name: str) -> None:
    service = services(file)[name]
    for key, value in service.get("environment", {}).items():
        if SECRET.search(key):
            assert WANTED.search(value), f"{key} must be asked for"
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize(("file", "name"), [(f, n) for f, n in every_service() if "build" in services(f)[n]])
def test_the_settings_of_a_service_are_settings(file: str, name: str) -> None:
    values = {key: filled(value) for key, value in services(file)[name]["environment"].items()}
    settings = config.load(values, env_file=None, secrets_file=None)
    mounted = [mount.split(":")[1] for mount in services(file)[name]["volumes"]]
    for folder in (settings.output_dir, settings.log_dir, settings.models_dir):
        assert str(folder) in mounted
    assert settings.state == settings.output_dir / "_state"
    if settings.serve_config:
        assert (ROOT / "serve_configs" / settings.serve_config.name).is_file()


def test_the_golden_path_lets_in_the_tailnet_alone() -> None:
    web_service = services(GOLDEN)["web"]
    settings = config.load(
        {key: filled(value) for key, value in web_service["environment"].items()}, env_file=None, secrets_file=None
    )
    assert (settings.remote_access, settings.host, settings.port) == ("tailscale", "0.0.0.0", 8000)
    assert web_service["network_mode"] == "host", "behind Docker's bridge every phone would have the bridge's address"
    assert "ports" not in web_service
    assert {"../Output:/data/Output", "../logs:/data/logs"} <= set(web_service["volumes"])
    assert services(GOLDEN)["redis"]["image"] == "redis:7-alpine"


@pytest.mark.parametrize("file", COMPOSE)
def test_the_redis_of_the_file_can_hold_the_queue(
    file: str, tmp_path: Path, require_program: Callable[..., str]
) -> None:
    require_program("redis-server")
    redis = services(file)["redis"]
    assert redis["command"][0] == "redis-server"
    server = RedisServer(tmp_path / "redis")
    command = [*redis["command"], "--port", str(server.port), "--bind", "127.0.0.1", "--dir", str(server.folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(server.answers, what="redis-server")
            queue = RedisQueue(server.url)
            with server.client() as client:
                seconds, micros = client.time()
            assert queue.check_server(seconds * 1000 + micros // 1000) == []
            queue.close()
            program, *words = redis["healthcheck"]["test"][1:]
            done = subprocess.run([program, "-p", str(server.port), *words], capture_output=True, text=True, timeout=30)
            assert done.stdout.strip() == "PONG"
        finally:
            process.terminate()


def test_the_commands_in_the_comments_name_files_that_exist() -> None:
    for file in (*COMPOSE, "Dockerfile"):
        for line in (DOCKER / file).read_text().splitlines():
            if line.startswith("#   "):
                for word in shlex.split(line[4:]):
                    if re.match(r"(docker|scripts)/", word):
                        assert (ROOT / word).is_file(), word
