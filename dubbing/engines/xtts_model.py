"""Loading XTTS v2 from its folder through coqui-tts, and voices made from a reference. Needs torch and coqui-tts."""

from __future__ import annotations

import json
import pickle
import wave
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchaudio
from torch.nn import functional
from TTS.config.shared_configs import BaseDatasetConfig
from TTS.tts.configs.xtts_config import XttsArgs, XttsAudioConfig, XttsConfig
from TTS.tts.models.xtts import Xtts

from dubbing.engines.xtts_decode import Decoder
from dubbing.errors import BadInputError, WeightsDamagedError
from dubbing.types import Int16Audio

SHORTEST_S = 0.5
"""A reference shorter than this is no voice."""
LONGEST_S = 60.0
"""Of a reference, no more than this is read."""
CACHED_VOICES = 256
"""About 130 KB each with the published model."""
_PICKLED = [
    (XttsConfig, "TTS.tts.configs.xtts_config.XttsConfig"),
    (XttsArgs, "TTS.tts.models.xtts.XttsArgs"),
    (XttsAudioConfig, "TTS.tts.models.xtts.XttsAudioConfig"),
    (BaseDatasetConfig, "TTS.config.shared_configs.BaseDatasetConfig"),
]
"""What the published checkpoint holds beside tensors, by the names of the time it was written."""


class _Checkpoint(Xtts):  # type: ignore[misc]
    """Reads the published checkpoint where it lies: the parent would write it anew in another format, which fails on
    read-only volumes, races between replicas and changes the file's hash.
    """

    def _load_checkpoint(self, model_path: Path) -> dict[str, Any]:
        with torch.serialization.safe_globals(_PICKLED):
            checkpoint = torch.load(model_path, map_location="cpu", weights_only=True, mmap=True)
        weights: dict[str, Any] = dict(checkpoint["model"])
        return weights


@dataclass(frozen=True, slots=True)
class Timbre:
    """A speaker as the model hears him."""

    conditioning: torch.Tensor
    """What the GPT is told, shape (1, frames, channels)."""
    embedding: torch.Tensor
    """What the vocoder is told, shape (1, channels, 1)."""


class XttsModel:
    """A loaded model: text to tokens, references to timbres, latents to sound."""

    def __init__(self, folder: Path, device: str, half: bool) -> None:
        """`half` computes the GPT's blocks in float16. Raises WeightsDamagedError when a file cannot be read."""
        self.device = torch.device(device)
        self.xtts = _load(folder)
        self.xtts.to(self.device)
        if half:
            for block in self.xtts.gpt.gpt.h:
                block.half()
        self.config = self.xtts.config
        self.decoder = Decoder(self.xtts.gpt)
        self.sample_rate: int = self.xtts.args.output_sample_rate
        self.codes_per_s: float = self.xtts.args.input_sample_rate / self.xtts.gpt.code_stride_len
        self.max_codes: int = self.xtts.gpt.max_gen_mel_tokens
        speakers = self.xtts.speaker_manager.speakers if self.xtts.speaker_manager else {}
        self.presets = {name: self._preset(latents) for name, latents in speakers.items()}
        self._cloned: OrderedDict[tuple[str, int, int, str], Timbre] = OrderedDict()

    def tokens(self, text: str, language: str) -> list[int]:
        """Token ids of a text in lower case. Raises what num2words and the other readers raise."""
        ids: list[int] = self.xtts.tokenizer.encode(text.lower(), lang=language)
        return ids

    def timbre(self, reference: Path, speaker: str) -> Timbre:
        """The voice in a mono WAV, kept while it is in use. Raises BadInputError."""
        try:
            facts = reference.stat()
        except OSError as error:
            raise BadInputError(name=reference.name, detail=f"the reference of a voice has gone ({error})") from error
        key = (str(reference), facts.st_mtime_ns, facts.st_size, speaker)
        if key in self._cloned:
            self._cloned.move_to_end(key)
            known: Timbre = self._cloned[key]
            return known
        timbre: Timbre = self._listen(reference)
        self._cloned[key] = timbre
        if len(self._cloned) > CACHED_VOICES:
            self._cloned.popitem(last=False)
        return timbre

    def sound(self, latents: torch.Tensor, timbre: Timbre, rate: float) -> Int16Audio:
        """Latents of shape (steps, channels) as mono samples; `rate` above 1 says them faster."""
        with torch.inference_mode():
            return self._sound(latents[None], timbre, rate)

    def _sound(self, latents: torch.Tensor, timbre: Timbre, rate: float) -> Int16Audio:
        if rate != 1.0:
            faster = functional.interpolate(latents.transpose(1, 2), scale_factor=1 / rate, mode="linear")
            latents = faster.transpose(1, 2)
        audio: Int16Audio = np.rint(np.clip(self.wave(latents[0], timbre), -1.0, 1.0) * 32767).astype(np.int16)
        return audio

    def wave(self, latents: torch.Tensor, timbre: Timbre) -> npt.NDArray[np.float32]:
        """Latents of shape (steps, channels) as the vocoder gives them back: samples in about -1..1."""
        samples: npt.NDArray[np.float32] = (
            self.xtts.hifigan_decoder(latents[None], g=timbre.embedding).flatten().float().cpu().numpy()
        )
        return samples

    def nobody(self) -> Timbre:
        """A timbre that is nobody's, of the right shapes."""
        args = self.xtts.args
        conditioning = torch.zeros((1, 1, self.xtts.gpt.model_dim), device=self.device)
        return Timbre(conditioning, torch.ones((1, args.d_vector_dim, 1), device=self.device))

    def _listen(self, reference: Path) -> Timbre:
        samples, rate = _read(reference)
        if len(samples) < SHORTEST_S * rate or not np.any(samples):
            raise BadInputError(name=reference.name, detail=f"a voice needs at least {SHORTEST_S} s of speech")
        audio = torch.from_numpy(samples.astype(np.float32) / 32768.0)[None]
        audio = torchaudio.functional.resample(audio, rate, self.xtts.args.input_sample_rate).to(self.device)
        rate = self.xtts.args.input_sample_rate
        if self.config.sound_norm_refs:
            audio = audio / audio.abs().max() * 0.75
        audio = audio[:, : rate * self.config.max_ref_len]
        conditioning = self.xtts.get_gpt_cond_latents(
            audio, rate, length=self.config.gpt_cond_len, chunk_length=self.config.gpt_cond_chunk_len
        )  # it and the next compute without gradients by themselves
        return Timbre(conditioning, self.xtts.get_speaker_embedding(audio, rate))

    def _preset(self, latents: dict[str, torch.Tensor]) -> Timbre:
        return Timbre(latents["gpt_cond_latent"].to(self.device), latents["speaker_embedding"].to(self.device))


def _load(folder: Path) -> Any:
    config = XttsConfig()
    try:
        config.load_json(str(folder / "config.json"))
        # tokenizers reports a broken file as a plain Exception, so it is looked at before
        _ = json.loads((folder / "vocab.json").read_bytes())["model"]["vocab"]
        model = _Checkpoint(config)
        model.load_checkpoint(config, checkpoint_dir=str(folder), eval=True)
    # every way in which a file that is cut short, changed or of another model shows in json, tokenizers and torch
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsDamagedError(
            kind="speak", name="xtts-v2", detail=f"{folder}: {words[0]}", install="Run: dub models verify xtts-v2"
        ) from error
    return model


def _read(path: Path) -> tuple[Int16Audio, int]:
    """A 16-bit PCM WAV as (mono samples, Hz)."""
    try:
        with wave.open(str(path), "rb") as file:
            rate, channels = file.getframerate(), file.getnchannels()
            if file.getsampwidth() != 2:
                raise wave.Error(f"{8 * file.getsampwidth()}-bit samples")
            samples = np.frombuffer(file.readframes(int(LONGEST_S * rate)), "<i2")
    except (wave.Error, EOFError) as error:
        raise BadInputError(name=path.name, detail=f"it is not a 16-bit PCM WAV ({error})") from error
    whole = samples[: len(samples) // channels * channels].reshape(-1, channels)
    return whole.mean(axis=1).astype(np.int16) if channels > 1 else whole[:, 0], rate
