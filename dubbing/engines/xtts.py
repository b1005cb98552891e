"""Cloned voices: Coqui XTTS v2, batched over lines, speakers, languages and jobs.

The weights and what they speak are for non-commercial use only (Coqui Public Model License). Nothing here imports torch
before the engine is loaded.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dubbing.engines import installed, weights
from dubbing.engines import options as engine_options
from dubbing.engines.base import CLONE, Engine, EngineSpec, Languages, SpeakItem
from dubbing.engines.weights import Weights
from dubbing.engines.xtts_text import languages
from dubbing.types import Speech, Voice

NAME = "xtts-v2"
INSTALL = "pip install 'dubbing-pipeline[studio]'"
PACKAGES = {"torch": "torch", "TTS": "coqui-tts"}
RATE_RANGE = (0.8, 1.35)
"""Latents are stretched in time before the vocoder; beyond this it can be heard."""

WEIGHTS = Weights(
    name="xtts-v2",
    repo="coqui/XTTS-v2",
    files=("config.json", "model.pth", "vocab.json", "speakers_xtts.pth"),
    licence="Coqui Public Model License 1.0.0",
    commercial_use=False,
    size_mb=1880,
    revision="6c2b0d75eae4b7047358e3b6bd9325f857d43f77",
)


class XttsOptions(engine_options.Options):
    """Options of `load`, from the serve config."""

    path: Path | None = None
    """Folder of the weights; default is their own folder below DUBBING_MODELS_DIR."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(2, ge=1)
    """Cores used on the CPU; more threads than free cores make it slower."""
    max_batch: int | None = Field(None, ge=1)
    """Lines per batch; default is 16 on a GPU, 4 on a CPU."""
    half: bool = False
    """Compute the GPT in float16; on a GPU only."""
    temperature: float | None = Field(None, ge=0)
    """0 takes the likeliest token always; this and the following default to the checkpoint's own values."""
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=1)


def voices(language: str) -> list[Voice]:
    """The speaker's own voice, then the presets of speakers_xtts.pth where it is on this machine."""
    own = Voice(CLONE, NAME, language, "the speaker's own voice")
    return [own, *(Voice(name, NAME, language, name) for name in preset_names(weights.folder(WEIGHTS, {})))]


def preset_names(folder: Path) -> tuple[str, ...]:
    """Names in speakers_xtts.pth, read without torch; none when there is no such file."""
    path = folder / "speakers_xtts.pth"
    return _names(path, path.stat().st_mtime_ns) if path.is_file() else ()


_MALFORMED = (TypeError, AttributeError, LookupError, ValueError)
"""What pickles that are no pickles raise."""


class _Inert:
    """Stands for whatever a file wants called."""

    def __new__(cls, *arguments: Any) -> Any:
        return super().__new__(cls)

    def __call__(self, *arguments: Any) -> _Inert:
        """Does nothing."""
        return self

    def __setstate__(self, state: Any) -> None:
        """Takes nothing over."""


class _Names(pickle.Unpickler):
    """Reads the plain values of a checkpoint; nothing of the file's own choice is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in, whatever is asked for."""
        return _Inert

    def persistent_load(self, pid: Any) -> None:
        """Tensors stay where they are."""


@lru_cache(maxsize=4)
def _names(path: Path, changed_ns: int) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            found = _Names(io.BytesIO(archive.read(inside))).load()
    except (zipfile.BadZipFile, StopIteration, pickle.UnpicklingError, EOFError, *_MALFORMED):
        return ()
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, dict) else ()


def _load(options: Mapping[str, Any]) -> Engine[SpeakItem, Speech]:
    """Raises UsageError, WeightsMissingError, WeightsDamagedError or EngineMissingError."""
    chosen = engine_options.read(XttsOptions, NAME, options)
    folder = weights.require(WEIGHTS, options, kind="speak", engine=NAME)
    installed.require(PACKAGES, INSTALL, kind="speak", engine=NAME)
    from dubbing.engines.xtts_engine import XttsEngine  # noqa: PLC0415 - torch loads for seconds, only where it is used

    return XttsEngine(folder, chosen)


SPEAK = EngineSpec(
    name=NAME,
    kind="speak",
    quality="good",
    summary="Natural voices in 17 languages, the speaker's own among them; non-commercial.",
    licence="MPL-2.0",
    commercial_use=False,
    locate=lambda: installed.locate(PACKAGES, INSTALL, WEIGHTS),
    languages=lambda: Languages(frozenset((tag, tag) for tag in languages())),
    load=_load,
    voices=voices,
    weights=WEIGHTS,
    clones=True,
)
