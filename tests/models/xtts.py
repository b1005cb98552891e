"""A tiny XTTS v2: the four files of the real model's folder, 2 MB, loaded by the real loading code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from TTS.tts.configs import xtts_config
from TTS.tts.configs.xtts_config import XttsArgs, XttsAudioConfig, XttsConfig
from TTS.tts.models.xtts import Xtts

LANGUAGES = ["en", "es", "fr", "de", "it", "pt", "pl", "tr", "ru", "nl", "cs", "ar", "zh-cn", "hu", "ko", "ja", "hi"]
SPEAKERS = ("Ana Tiny", "Bob Tiny")
MAX_CODES = 40
"""Most audio tokens of a line, 1.9 s."""
LETTERS = (
    "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-:;()áéíóúüñçàèìòùâêîôûäöß¿¡ãõœæ"
    "абвгдеёжзийклмнопрстуфхцчшщъыьэюяअआइईएककखगछतथनपरसहाीूोे"
)


TINY = {
    "gpt_layers": 2,
    "gpt_n_model_channels": 32,
    "gpt_n_heads": 2,
    "gpt_max_audio_tokens": MAX_CODES + 3,
    "gpt_max_text_tokens": 256,
    "gpt_num_audio_tokens": 66,
    "gpt_start_audio_token": 64,
    "gpt_stop_audio_token": 65,
    "decoder_input_dim": 32,
}
FULL = {"gpt_num_audio_tokens": 1026, "gpt_start_audio_token": 1024, "gpt_stop_audio_token": 1025}
"""What differs from coqui-tts' defaults in the published model."""


def make(folder: Path, *, original: bool = False, full: bool = False) -> Path:
    """Write config.json, vocab.json, model.pth and speakers_xtts.pth; `original` pickles the config's class into
    model.pth, as the published checkpoint does. Takes some seconds. `full` has the sizes of the published model, for
    measuring speed: its file is as small, but loaded it takes 2 GB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = _config(_vocabulary(folder / "vocab.json"), FULL if full else TINY)
    weights = Xtts(config).state_dict()
    # Fresh weights hardly listen to text and voice; louder ones choose by them, and by more than rounding turns over.
    for name, tensor in weights.items():
        if name.startswith("gpt.gpt.h.") and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            tensor.mul_(12)
        elif name == "gpt.mel_head.weight" or "_pos_embedding" in name:
            tensor.mul_(8)
    weights["gpt.mel_head.bias"][config.model_args.gpt_stop_audio_token] = 2.0
    checkpoint: dict[str, Any] = {"model": _compact(weights)}
    config.save_json(str(folder / "config.json"))
    if original:
        checkpoint["config"] = config
    _save(checkpoint, folder / "model.pth")
    channels = config.model_args.gpt_n_model_channels
    speakers = {name: _latents(number, channels) for number, name in enumerate(SPEAKERS)}
    torch.save(speakers, folder / "speakers_xtts.pth")
    return folder


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    """Classes are pickled under the names they had when the real checkpoint was written."""
    moved = (xtts_config.XttsArgs, xtts_config.XttsAudioConfig)
    for one in moved:
        one.__module__ = "TTS.tts.models.xtts"
    try:
        torch.save(checkpoint, path)
    finally:
        for one in moved:
            one.__module__ = xtts_config.__name__


def _latents(number: int, channels: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    return {
        "gpt_cond_latent": torch.randn(1, 32, channels, generator=generator),
        "speaker_embedding": torch.randn(1, 512, 1, generator=generator) * 0.1,
    }


def _vocabulary(path: Path) -> Any:
    specials = ["[STOP]", "[UNK]", "[SPACE]", *(f"[{language}]" for language in LANGUAGES), "[START]"]
    tokens = [*specials, *sorted(set(LETTERS))]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(specials)
    tokenizer.save(str(path))
    return tokenizer


def _config(tokenizer: Any, sizes: dict[str, int]) -> Any:
    args = XttsArgs(
        **sizes,
        gpt_use_perceiver_resampler=True,
        gpt_number_text_tokens=max(tokenizer.get_vocab().values()) + 1,
        gpt_start_text_token=tokenizer.token_to_id("[START]"),
        gpt_stop_text_token=tokenizer.token_to_id("[STOP]"),
    )
    audio = XttsAudioConfig(sample_rate=22050, output_sample_rate=24000)
    return XttsConfig(
        model_args=args,
        audio=audio,
        languages=LANGUAGES,
        temperature=0.75,
        repetition_penalty=5.0,
        gpt_cond_len=6,
        gpt_cond_chunk_len=4,
        max_ref_len=10,
    )


def _compact(weights: dict[str, Any]) -> dict[str, Any]:
    """The same names and shapes, but large tensors are uneven views of a few small random ones: the vocoder and the
    speaker encoder cannot be made smaller, and 90 MB become 2 MB.
    """
    base = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0))
    scaled: dict[float, Any] = {}
    found = {}
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.numel() <= 8192 or "torch_spec" in name:
            found[name] = tensor.clone()  # among them the STFT windows and mel filters, which are not weights
            continue
        size = 2.0 ** round(math.log2(max(float(tensor.std()), 1e-6)))
        values = scaled.setdefault(size, base * size)
        span = values.numel() - 1
        shares = [0.61, 0.27, *[0.1 / max(1, tensor.ndim - 2)] * (tensor.ndim - 2)]
        strides = [max(1, int(span * share // max(d - 1, 1))) for d, share in zip(tensor.shape, shares, strict=False)]
        found[name] = torch.as_strided(values, tuple(tensor.shape), tuple(strides))
    return found
