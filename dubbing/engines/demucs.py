"""Demucs: parts a film's sound into voices and everything else, with the Hybrid Transformer network (HTDemucs).

The network class comes from the package `demucs`; its weights are a safetensors file, which holds numbers and no code.
The package's own loader is not used: it would import whatever class the file names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from dubbing.engines import installed, probing, weights
from dubbing.engines import options as engine_options
from dubbing.engines.base import EngineInfo, EngineSpec, Languages, SeparateItem, Stems
from dubbing.errors import BadInputError, EngineMissingError, WeightsDamagedError

NAME = "demucs"
INSTALL = "pip install 'dubbing-pipeline[separate]'"
PACKAGES = {name: name for name in ("torch", "demucs", "julius", "safetensors")}
RATE = 48_000
"""Hz, of what comes in and goes out; the network has its own rate."""
NETWORK = "demucs.htdemucs.HTDemucs"
VOICES = "vocals"
PROBE_S = 0.25
FILE = "955717e8.safetensors"
WEIGHTS = weights.Weights(
    name="htdemucs",
    repo="adefossez/HTDemucs",
    files=(FILE,),
    licence="MIT as stated on the hub; the author wrote in 2022 that the weights are for scientific purposes",
    commercial_use=False,
    size_mb=84,
)


class DemucsOptions(engine_options.Options):
    """What a serve config may say of this engine."""

    path: Path | None = None
    """Folder of the weights; the models folder when unset."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU if there is one."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of the network; half of the cores when unset: on all of them it would spin wherever another works."""
    max_batch: int = Field(4, ge=1, le=64)
    """Most pieces at once."""


class DemucsEngine:
    """The network on one device; pieces of all jobs share its batches."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options`: DemucsOptions. Raises UsageError, EngineMissingError, WeightsMissingError or WeightsDamagedError."""
        told = engine_options.read(DemucsOptions, NAME, options)
        place = weights.require(WEIGHTS, options, kind="separate", engine=NAME)
        installed.require(PACKAGES, INSTALL, kind="separate", engine=NAME)
        import torch  # noqa: PLC0415 - 2 s, paid only by who separates

        self._torch = torch
        self._device = _device(torch, told.device)
        torch.set_num_threads(told.threads or max(1, (os.cpu_count() or 1) // 2))
        self._network = _network(place / FILE).to(self._device)
        self._voices = list(self._network.sources).index(VOICES)
        self._piece = int(self._network.segment * RATE)
        self.info = EngineInfo(
            name=NAME,
            kind="separate",
            version=f"{version('demucs')} {weights.version(place)}",
            licence="MIT",
            weights_licence=WEIGHTS.licence,
            commercial_use=WEIGHTS.commercial_use,
            max_batch=told.max_batch,
            deterministic=self._device == "cpu",
            quality="good",
            note="Singing and laughter count as voices: they go with the original speech.",
        )

    def run(self, items: Sequence[SeparateItem]) -> list[Stems]:
        """Part each piece. Raises BadInputError for one that is not stereo or longer than the network looks at once."""
        for item in items:
            if item.audio.ndim != 2 or item.audio.shape[1] != 2 or len(item.audio) > self._piece:
                raise BadInputError(
                    name="piece of sound",
                    detail=f"its shape is {item.audio.shape}, not (up to {self._piece}, 2)",
                )
        # A CPU gains nothing from a batch, and piece by piece the bytes do not depend on who shares it.
        step = len(items) if self._device == "cuda" else 1
        return [stems for at in range(0, len(items), step or 1) for stems in self._part(items[at : at + step])]

    def bucket(self, item: SeparateItem) -> Hashable:
        """Any mix will do: pieces are padded to one length."""
        return None

    def probe(self) -> None:
        """Part a quarter of a second. Raises EngineBrokenError when no numbers come out."""
        torch, rate = self._torch, int(self._network.samplerate)
        mono = torch.from_numpy(probing.tone(PROBE_S, rate).astype(np.float32)) / 32768
        # Otherwise the network would fill up any piece to its full length, seconds of work on a CPU.
        self._network.use_train_segment = False
        try:
            with probing.probing(NAME), torch.inference_mode():
                parts = self._network(mono.expand(1, 2, -1).to(self._device))
                probing.require_numbers(NAME, "its samples", parts.cpu())
        finally:
            self._network.use_train_segment = True

    def close(self) -> None:
        """Let go of the network, and of the GPU's memory with it."""
        self._network = None
        if self._device == "cuda":
            self._torch.cuda.empty_cache()

    def _part(self, items: Sequence[SeparateItem]) -> list[Stems]:
        from julius import resample_frac  # noqa: PLC0415 - comes with demucs, imports torch

        torch, rate = self._torch, int(self._network.samplerate)
        sound = np.zeros((len(items), 2, self._piece), np.float32)
        for row, item in zip(sound, items, strict=True):
            row[:, : len(item.audio)] = item.audio.T
        with torch.inference_mode():
            mix = torch.from_numpy(sound).to(self._device) / 32768
            parts = self._network(resample_frac(mix, RATE, rate))
            voices = resample_frac(parts[:, self._voices], rate, RATE, output_length=self._piece)
            found = (voices * 32768).round().clamp(-32768, 32767).to(torch.int32).cpu().numpy()
        return [_stems(item, voice.T[: len(item.audio)]) for item, voice in zip(items, found, strict=True)]


def _stems(item: SeparateItem, voice: np.ndarray[Any, Any]) -> Stems:
    """Everything that is not voice is background, so both together are the original, sample by sample."""
    background = np.clip(item.audio - voice, -32768, 32767)
    return Stems((item.audio - background).astype(np.int16), background.astype(np.int16))


def _device(torch: Any, asked: str) -> str:
    there = bool(torch.cuda.is_available())
    if asked == "cuda" and not there:
        raise EngineMissingError(
            kind="separate",
            name=NAME,
            detail="device: cuda was asked for, and torch finds no GPU here",
            install="Use device: auto or cpu, or install a torch for this machine's GPU.",
        )
    return "cuda" if there and asked != "cpu" else "cpu"


def _network(file: Path) -> Any:
    """The network of a checkpoint. Raises WeightsDamagedError for a file that is cut short or another network's."""
    from demucs.htdemucs import HTDemucs  # noqa: PLC0415 - imports torch
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(str(file), framework="pt") as stored:
            told = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
        if told.get("klass") != NETWORK:
            raise ValueError(f"it holds {told.get('klass', 'no network')}, not {NETWORK}")
        network = HTDemucs(*_arguments(told["args"]), **_arguments(told["kwargs"]))
        network.load_state_dict(tensors)
        if VOICES not in network.sources:
            raise ValueError(f"it does not know {VOICES}")
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsDamagedError(
            kind="separate",
            name=NAME,
            detail=f"{file.name} cannot be loaded ({str(error).splitlines()[0]})",
            install=f"Run: dub models fetch {WEIGHTS.name}",
        ) from error
    return network.eval()


def _arguments(text: str) -> Any:
    """The network's arguments as the checkpoint keeps them: JSON, fractions as {"_type": "fraction", ...}."""

    def revive(value: dict[str, Any]) -> Any:
        return Fraction(value["numerator"], value["denominator"]) if value.get("_type") == "fraction" else value

    return json.loads(text, object_hook=revive)


SEPARATE = EngineSpec(
    name=NAME,
    kind="separate",
    quality="good",
    summary="Voices and background apart, with Hybrid Transformer Demucs.",
    licence="MIT",
    commercial_use=WEIGHTS.commercial_use,
    locate=lambda: installed.locate(PACKAGES, INSTALL, WEIGHTS),
    languages=lambda: Languages(any=True),
    load=DemucsEngine,
    weights=WEIGHTS,
)
