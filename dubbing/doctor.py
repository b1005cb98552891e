"""Is this machine ready? Each finding says what is wrong and names the command that fixes it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dubbing import roads
from dubbing.config import Settings
from dubbing.engines import registry
from dubbing.engines.base import KINDS, OPTIONAL
from dubbing.errors import DubbingError
from dubbing.queue import redis_queue
from dubbing.queue.choose import decide

NEEDED_MB = 2000
"""Free disk under which even a short film may not fit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    name: str
    state: Literal["ok", "warning", "error"]
    detail: str
    fix: str = ""
    """The command that mends it; empty when all is well."""


def examine(settings: Settings) -> list[Finding]:
    """Check everything a job needs; starts nothing and writes nothing but a probe file in the output folder."""
    machine = [*_python(), *_programs(), *_folders(settings), *_engines(), *_torch(), *_ray()]
    return [*machine, *_joined(settings), *_queue(settings)]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding("python", "ok" if good else "error", version, "" if good else "Use Python 3.10 to 3.13.")


def _programs() -> Iterator[Finding]:
    for program, package in (("ffmpeg", "ffmpeg"), ("ffprobe", "ffmpeg"), ("prlimit", "util-linux")):
        path = shutil.which(program)
        fix = "" if path else f"apt-get install -y {package}"
        yield Finding(program, "ok" if path else "error", path or "not found", fix)


def _folders(settings: Settings) -> Iterator[Finding]:
    folder = settings.output_dir.resolve()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(existing, os.W_OK):
        yield Finding("output folder", "error", f"{folder} cannot be written", f"sudo chown -R $USER {existing}")
        return
    free = shutil.disk_usage(existing).free // 2**20
    low = free < NEEDED_MB
    fix = f"Free some space in {existing}, or set DUBBING_OUTPUT_DIR." if low else ""
    yield Finding("output folder", "warning" if low else "ok", f"{folder}, {free} MB free", fix)


def _engines() -> Iterator[Finding]:
    for broken in registry.broken():
        yield Finding("engine plug-in", "error", broken.message, broken.advice)
    for kind in KINDS:
        candidates = [c for c in registry.survey(kind) if not c.spec.hidden]
        usable = kind in OPTIONAL or any(c.located.ok for c in candidates)
        for candidate in candidates:
            located, name = candidate.located, f"{kind}: {candidate.spec.name}"
            if located.ok:
                yield Finding(name, "ok", f"{candidate.spec.quality} quality")
            else:
                yield Finding(name, "warning" if usable else "error", located.reason, located.install)


_ASK_TORCH = "import torch; print([torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())])"


def _torch() -> Iterator[Finding]:
    """Torch, where the studio engines are installed. Its import takes seconds, so it is looked at from outside, and only
    a build with CUDA beside a GPU is asked, in a process of its own.
    """
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return
    version = importlib.metadata.version("torch")
    facts = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    cuda = re.search(r"^cuda\b[^=]*= *'([\d.]+)'", facts, re.MULTILINE)
    gpu = shutil.which("nvidia-smi") is not None
    if cuda is None and gpu:
        fix = "pip install --force-reinstall torch -c requirements/constraints.txt"
        yield Finding("torch", "warning", f"{version} has no CUDA, though there is a GPU", fix)
    elif cuda is None:
        fix = "" if _torchaudio_loads() else f"{sys.executable} scripts/repair_torchaudio.py"
        detail = f"{version} without CUDA" + (", beside a torchaudio that needs CUDA" if fix else "")
        yield Finding("torch", "error" if fix else "ok", detail, fix)
    elif gpu:
        command = [sys.executable, "-W", "ignore", "-c", _ASK_TORCH]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        usable = done.returncode == 0 and done.stdout.strip() != "[]"
        detail = f"{version}, CUDA {cuda[1]}, " + (done.stdout.strip() if usable else "but it finds no GPU it can use")
        yield Finding("torch", "ok" if usable else "warning", detail, "" if usable else "nvidia-smi")
    else:
        yield Finding("torch", "ok", f"{version}, CUDA {cuda[1]}, no GPU on this machine")


def _torchaudio_loads() -> bool:
    """Whether torchaudio's extensions do without CUDA's libraries."""
    found = importlib.util.find_spec("torchaudio")
    extensions = (Path(found.origin).parent / "lib").glob("*.so") if found and found.origin else ()
    return not any(b"libcudart" in path.read_bytes() for path in extensions)


def _ray() -> Iterator[Finding]:
    found = importlib.util.find_spec("ray") is not None
    fix = "" if found else "pip install 'ray[serve]'"
    yield Finding("ray", "ok" if found else "error", "installed" if found else "not installed", fix)


def _joined(settings: Settings) -> Iterator[Finding]:
    """The Ray that jobs will join, where one is named: whether it answers, and whether it can run a job now."""
    if settings.ray_address in (None, "local") or importlib.util.find_spec("ray") is None:
        return
    try:
        lacks = roads.look_at_ray(settings)
    except DubbingError as error:
        yield Finding("cluster", "error", error.message, "docs/cluster.md says what a cluster must be like.")
        return
    fix = "Start a node with --resources='{\"job_slot\": 4}', or let the autoscaler of the cluster bring one."
    yield Finding("cluster", "warning" if lacks else "ok", lacks or f"{settings.ray_address}", fix if lacks else "")


def _queue(settings: Settings) -> Iterator[Finding]:
    """Which queue `dub submit` and `dub serve` use, and why; opens no file."""
    trouble: DubbingError | None = None
    warnings: list[str] = []
    if settings.redis_url and settings.queue_mode != "fallback":
        redis = redis_queue.RedisQueue(settings.redis_url)
        try:
            warnings = redis.check_server(time.time_ns() // 1_000_000)
        except DubbingError as error:
            trouble = error
        finally:
            redis.close()
    try:
        _, reason = decide(settings.queue_mode, bool(settings.redis_url), trouble)
    except DubbingError as error:
        yield Finding("queue", "error", error.message, error.advice)
        return
    if trouble is not None:
        yield Finding("queue", "error" if settings.queue_mode == "redis" else "warning", reason, trouble.advice)
    else:
        yield Finding("queue", "ok", reason)
    for warning in warnings:
        yield Finding("queue", "warning", warning, "docs/queue.md says what Redis must be like.")
