"""Recognition by Whisper on CTranslate2 (faster-whisper): about a hundred languages, timed words, language detection."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from dubbing.engines import installed, options, weights
from dubbing.engines.base import EngineInfo, EngineSpec, Languages
from dubbing.engines.weights import Weights
from dubbing.engines.whisper_batch import CODES, FRAMES, OWN_CODES, TAGS, WhisperEngine
from dubbing.errors import EngineMissingError, SettingsError, WeightsDamagedError

INSTALL = "pip install faster-whisper"
CUDA_INSTALL = 'pip install nvidia-cublas-cu12 "nvidia-cudnn-cu12>=9"'
BATCH = {"cpu": 4, "cuda": 16}
COMPUTE = {"cpu": "int8", "cuda": "float16"}


class WhisperOptions(options.Options):
    """Options of `load`."""

    path: Path | None = None
    """Folder of the weights; default is the models folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = "auto"
    """CTranslate2's name, such as int8, float16 or int8_float16; `auto` is int8 on a CPU and float16 on a GPU."""
    beam_size: int = Field(5, ge=1, le=20)
    threads: int = Field(0, ge=0)
    """CPU threads of the model; 0 lets CTranslate2 decide."""
    max_batch: int | None = Field(None, ge=1, le=256)
    """Most pieces of 30 s at once; default 4 on a CPU, 16 on a GPU."""


def _load(needed: Weights, quality: Literal["good", "best"], given: Mapping[str, Any]) -> WhisperEngine:
    """Raises SettingsError, WeightsMissingError, WeightsDamagedError, EngineMissingError."""
    wanted = options.read(WhisperOptions, needed.name, given)
    place = weights.require(needed, given, kind="transcribe", engine=needed.name)
    device, compute_type = _device(needed.name, wanted)
    model = _model(needed, place, device, compute_type, wanted.threads)
    program = "-".join(importlib.metadata.version(package) for package in ("faster-whisper", "ctranslate2"))
    info = EngineInfo(
        name=needed.name,
        kind="transcribe",
        version=f"{program}+{weights.version(place)}+beam{wanted.beam_size}",
        licence="MIT",
        weights_licence=needed.licence,
        # A GPU adds up in another order from run to run.
        deterministic=device == "cpu",
        max_batch=wanted.max_batch or BATCH[device],
        detects=True,
        quality=quality,
    )
    return WhisperEngine(info, model, wanted.beam_size)


def _device(name: str, wanted: WhisperOptions) -> tuple[str, str]:
    """Device and type of the arithmetic. Raises EngineMissingError without a GPU that was asked for, SettingsError."""
    import ctranslate2  # noqa: PLC0415 - imported when it is chosen

    gpus = ctranslate2.get_cuda_device_count()
    if wanted.device == "cuda" and not gpus:
        raise EngineMissingError(
            kind="transcribe",
            name=name,
            detail="device: cuda was asked for, but CUDA finds no GPU",
            install="Set its option device to auto or cpu, or run it on a machine with an NVIDIA GPU and driver.",
        )
    device = "cuda" if gpus and wanted.device != "cpu" else "cpu"
    compute_type = COMPUTE[device] if wanted.compute_type == "auto" else wanted.compute_type
    known = sorted(ctranslate2.get_supported_compute_types(device))
    if compute_type not in known:
        raise SettingsError(
            key=f"{name}.compute_type",
            value=compute_type,
            expected=f"the {device} here can do {', '.join(known)}",
            fix="Leave it out for the usual one.",
        )
    return device, compute_type


def _model(needed: Weights, place: Path, device: str, compute_type: str, threads: int) -> Any:
    """The loaded model, tried out where the GPU's libraries could be missing."""
    from faster_whisper import WhisperModel  # noqa: PLC0415 - imported when it is chosen

    damaged = partial(
        WeightsDamagedError, kind="transcribe", name=needed.name, install=f"Run: dub models fetch {needed.name}"
    )
    try:
        json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(detail=f"{place / 'tokenizer.json'} is not a tokenizer") from error
    try:
        model = WhisperModel(str(place), device=device, compute_type=compute_type, cpu_threads=threads)
        if device == "cuda":
            model.encode(np.zeros((1, model.model.n_mels, FRAMES), np.float32))
    except (RuntimeError, ValueError) as error:
        if device == "cuda" and any(word in str(error) for word in ("CUDA", "cuda", "cublas", "cudnn", "memory")):
            raise EngineMissingError(
                kind="transcribe", name=needed.name, detail=str(error), install=CUDA_INSTALL
            ) from error
        raise damaged(detail=f"{place} cannot be loaded ({error})") from error
    if not model.model.is_multilingual:
        raise damaged(detail=f"{place} holds a model for English alone")
    from faster_whisper.feature_extractor import FeatureExtractor  # noqa: PLC0415 - imported when it is chosen

    # The model knows how many mel bands it takes; not every set of weights comes with a file that says so.
    model.feature_extractor = FeatureExtractor(feature_size=model.model.n_mels)
    return model


def _spec(needed: Weights, quality: Literal["good", "best"], summary: str, codes: frozenset[str] = CODES) -> EngineSpec:
    tags = {TAGS.get(code, code) for code in codes} | set(OWN_CODES)

    return EngineSpec(
        name=needed.name,
        kind="transcribe",
        quality=quality,
        summary=summary,
        licence="MIT",
        commercial_use=True,
        locate=lambda: installed.locate({"faster_whisper": "faster-whisper"}, INSTALL, needed),
        languages=lambda: Languages(frozenset((tag, tag) for tag in tags)),
        load=partial(_load, needed, quality),
        weights=needed,
    )


SMALL = _spec(
    Weights(
        name="faster-whisper-small",
        repo="Systran/faster-whisper-small",
        files=("config.json", "model.bin", "tokenizer.json", "vocabulary.txt"),
        licence="MIT",
        commercial_use=True,
        size_mb=487,
        revision="536b0662742c02347bc0e980a01041f333bce120",
    ),
    "good",
    "Whisper small: recognises and detects about a hundred languages; on a CPU too.",
)
LARGE_V3_TURBO = _spec(
    Weights(
        name="faster-whisper-large-v3-turbo",
        repo="mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        files=("config.json", "model.bin", "tokenizer.json", "vocabulary.json"),
        licence="MIT",
        commercial_use=True,
        size_mb=1622,
        revision="0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
    ),
    "best",
    "Whisper large-v3-turbo: the best recognition and detection of about a hundred languages; made for a GPU.",
    CODES | {"yue"},
)
