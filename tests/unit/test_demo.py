"""`make demo`: any file name arrives unharmed, and without one a short talk is made."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DUB = """#!/usr/bin/env bash
printf '[%s]\\n' "$@" >&2
echo /results/talk.es.mp4
exit "${DUB_EXIT:-0}"
"""


@pytest.fixture
def project(tmp_path: Path, require_program: Callable[..., str]) -> Path:
    """The Makefile and the demo script in a folder of their own, with stand-ins for what they call."""
    require_program("make")
    folder = tmp_path / "a project"
    (folder / "scripts").mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(ROOT / "scripts" / "demo.sh", folder / "scripts")
    stand_ins = {
        "scripts/setup.sh": "#!/bin/sh\n",
        ".venv/bin/dub": DUB,
        ".venv/bin/python": '#!/bin/sh\necho "made $2" >&2\n',
    }
    for name, body in stand_ins.items():
        (folder / name).write_text(body)
        (folder / name).chmod(0o755)
    return folder


def demo(project: Path, *arguments: str, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "DUB_EXIT": str(exit_code)}
    command = ["make", "demo", *arguments]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_file_name_with_spaces_and_quotes_reaches_dub_whole(project: Path) -> None:
    done = demo(project, 'VIDEO=my friend\'s "talk".mp4', "TO=es,ca")
    assert done.stderr == '[run]\n[my friend\'s "talk".mp4]\n[--to]\n[es,ca]\n'
    assert "\nDubbed:\n/results/talk.es.mp4\n" in done.stdout
    assert 'ffplay "/results/talk.es.mp4"' in done.stdout
    assert done.returncode == 0


def test_without_a_video_one_is_made_and_dubbed_into_spanish(project: Path) -> None:
    talk = project / "Output" / "demo.mp4"
    assert demo(project).stderr == f"made {talk}\n[run]\n[{talk}]\n[--to]\n[es]\n"


def test_a_failing_dub_fails_the_demo_and_promises_no_result(project: Path) -> None:
    done = demo(project, "VIDEO=talk.mp4", exit_code=6)
    assert done.returncode == 2
    assert "Dubbed" not in done.stdout


def test_the_talk_has_speech_and_a_moving_picture(tmp_path: Path, require_program: Callable[..., str]) -> None:
    for program in ("flite", "ffmpeg", "ffprobe", "python3"):
        require_program(program)
    talk = tmp_path / "a talk.mp4"
    subprocess.run(["python3", str(ROOT / "scripts" / "make_demo_video.py"), str(talk)], check=True, timeout=120)
    probe = [
        "ffprobe",
        "-v",
        "error",
        "-show_entries",
        "format=duration:stream=codec_name,width,height",
        "-of",
        "json",
        talk,
    ]
    facts = json.loads(subprocess.run(probe, capture_output=True, text=True, check=True, timeout=30).stdout)
    picture, sound = facts["streams"]
    assert (picture["codec_name"], picture["width"], picture["height"]) == ("h264", 1280, 720)
    assert sound["codec_name"] == "aac"
    assert 15 <= float(facts["format"]["duration"]) <= 30
    silence = ["ffmpeg", "-i", str(talk), "-af", "silencedetect=noise=-40dB:d=1", "-f", "null", "-"]
    heard = subprocess.run(silence, capture_output=True, text=True, check=True, timeout=60).stderr
    assert heard.count("silence_start") >= 3, "sentences are parted by pauses"
    assert [path.name for path in tmp_path.iterdir()] == [talk.name]
