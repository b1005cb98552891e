"""What every test may ask for: real media, outside programs, and settings that touch nothing of the user's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dubbing import config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def media_dir() -> Path:
    """Folder of real recordings: DUBBING_TEST_MEDIA, else ../shared/media beside the project."""
    folder = Path(os.environ.get("DUBBING_TEST_MEDIA") or ROOT.parent / "shared" / "media")
    if not (folder / "MANIFEST.tsv").is_file():
        pytest.skip(f"no real recordings in {folder}; DUBBING_TEST_MEDIA names another folder")
    return folder


@pytest.fixture(scope="session")
def require_program() -> Callable[..., str]:
    """`require_program("ffmpeg")` answers its path; a missing program skips the test here and fails it in CI."""

    def find(*names: str) -> str:
        for name in names:
            if path := shutil.which(name):
                return path
        missing = f"{' or '.join(names)} is not installed; scripts/setup.sh test installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)

    return find


@pytest.fixture
def tmp_settings(tmp_path: Path) -> config.Settings:
    """Settings that keep everything below the test's own folder, whatever the environment says."""
    env = {
        "DUBBING_OUTPUT_DIR": str(tmp_path / "Output"),
        "DUBBING_LOG_DIR": str(tmp_path / "logs"),
    }
    return config.load(env, env_file=None)
