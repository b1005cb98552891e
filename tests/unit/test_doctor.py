"""What the doctor says of torch, without loading it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def finding(folder: Path, cuda: str, *, gpu: bool = False, answer: str = "", torchaudio: bytes = b"") -> dict[str, Any]:
    """The finding about a torch that is a stand-in and fails when somebody imports it without having asked for GPUs."""
    torch = folder / "torch"
    (folder / "torch-9.9.dist-info").mkdir()
    (folder / "torch-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    torch.mkdir()
    (torch / "__init__.py").write_text(answer or "raise SystemExit('imported')")
    (torch / "version.py").write_text(
        f"from typing import Optional\n__version__ = '9.9'\ncuda: Optional[str] = {cuda}\n"
    )
    (folder / "torchaudio" / "lib").mkdir(parents=True)
    (folder / "torchaudio" / "__init__.py").touch()
    (folder / "torchaudio" / "lib" / "x.so").write_bytes(torchaudio)
    programs = folder / "bin"
    programs.mkdir()
    if gpu:
        (programs / "nvidia-smi").write_text("#!/bin/sh\n")
        (programs / "nvidia-smi").chmod(0o755)
    env = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "dubbing.cli", "doctor", "--json"],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found: dict[str, Any] = next(f for f in json.loads(done.stdout) if f["name"] == "torch")
    return found


GPUS = (
    "class cuda:\n    device_count = staticmethod(lambda: {n})\n    get_device_name = staticmethod(lambda i: 'Tesla')\n"
)


@pytest.mark.parametrize(
    ("facts", "state", "said"),
    [
        ({"cuda": "None"}, "ok", "9.9 without CUDA"),
        ({"cuda": "None", "torchaudio": b"..libcudart.so.13.."}, "error", "a torchaudio that needs CUDA"),
        ({"cuda": "None", "gpu": True}, "warning", "has no CUDA, though there is a GPU"),
        ({"cuda": "'13.0'"}, "ok", "CUDA 13.0, no GPU on this machine"),
        ({"cuda": "'13.0'", "gpu": True, "answer": GPUS.format(n=2)}, "ok", "CUDA 13.0, ['Tesla', 'Tesla']"),
        ({"cuda": "'13.0'", "gpu": True, "answer": GPUS.format(n=0)}, "warning", "finds no GPU it can use"),
        ({"cuda": "'13.0'", "gpu": True, "answer": "raise OSError('driver')"}, "warning", "finds no GPU it can use"),
    ],
)
def test_the_doctor_says_whether_torch_and_a_gpu_go_together(
    tmp_path: Path, facts: dict[str, Any], state: str, said: str
) -> None:
    found = finding(tmp_path, **facts)
    assert (found["state"], said in found["detail"]) == (state, True), found
    assert bool(found["fix"]) is (state != "ok")
