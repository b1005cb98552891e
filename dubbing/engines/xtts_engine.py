"""XTTS v2 at work: lines to rows of one decode, latents to speech. Needs torch and coqui-tts."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dubbing import timing
from dubbing.engines import probing, weights
from dubbing.engines.base import EngineInfo, SpeakItem
from dubbing.engines.rates import units_per_second
from dubbing.engines.xtts import NAME, RATE_RANGE, WEIGHTS, XttsOptions
from dubbing.engines.xtts_decode import Decoded, Sampling, Utterance
from dubbing.engines.xtts_model import Timbre, XttsModel
from dubbing.engines.xtts_text import LANGUAGES, READERS, languages, pieces, primary, readable
from dubbing.errors import BadInputError, DubbingError, EngineError, EngineMissingError, LanguageError
from dubbing.types import Int16Audio, Speech

PAUSE_MS = 200
"""Between the pieces of a line that is too long for one go, at rate 1.0."""
FEWEST_CODES = 3
"""Fewer audio tokens (0.14 s) are no word: the model stopped at once."""
SPARE_S, SPARE_TIMES = 2.0, 3.0
"""A line that is still going after this much more than its usual length does not find its end."""
SILENT_DB, GUARD_MS, FRAME_MS = 45.0, 30, 10
"""Silence at both ends, so far below the loudest frame, is cut down to the guard."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """A line, ready for the model."""

    timbre: Timbre
    rate: float
    utterances: list[Utterance]


class XttsEngine:
    """A loaded XTTS v2. Lines that fail alone are answered with their error in the place of speech."""

    def __init__(self, folder: Path, chosen: XttsOptions) -> None:
        """Load from `folder`. Raises WeightsDamagedError, or EngineMissingError when there is no GPU."""
        device = _device(chosen, torch.cuda.is_available())
        torch.set_num_threads(chosen.threads)
        self.model = XttsModel(folder, device, chosen.half and device == "cuda")
        self.sampling = _sampling(chosen, self.model.config)
        self.info = EngineInfo(
            name=NAME,
            kind="speak",
            version=_version(folder, self.sampling, chosen.half),
            licence="MPL-2.0",
            weights_licence=WEIGHTS.licence,
            commercial_use=False,
            deterministic=False,
            max_batch=chosen.max_batch or (16 if device == "cuda" else 4),
            rate_range=RATE_RANGE,
            quality="good",
            clones=True,
            note="The weights and what they speak are for non-commercial use only.",
        )

    def run(self, items: Sequence[SpeakItem]) -> list[Speech | DubbingError]:
        """Speak all lines together. Raises EngineError when the GPU has no room for so many; each failing line is
        answered with BadInputError (text, reference), LanguageError (language, voice) or EngineError (no usable end).
        """
        plans = [self._plan(item) for item in items]
        try:
            decoded = iter(self._decode([u for plan in plans if isinstance(plan, _Plan) for u in plan.utterances]))
            return [plan if isinstance(plan, DubbingError) else self._say(plan, decoded) for plan in plans]
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise EngineError(name=NAME, detail=f"the GPU has no room for {len(items)} lines at once") from error

    def bucket(self, item: SpeakItem) -> Hashable:
        """Any mix will do: voices, languages and lengths share a batch."""
        return None

    def probe(self) -> None:
        """One step of the GPT, and the vocoder on what it gave. Raises EngineBrokenError when no numbers come out."""
        with probing.probing(NAME), torch.inference_mode():
            timbre = self.model.nobody()
            [said] = self.model.decoder([Utterance((), timbre.conditioning, 1, 0)], self.sampling)
            probing.require_numbers(NAME, "the latents of the GPT", said.latents.cpu())
            probing.require_numbers(NAME, "the samples of the vocoder", self.model.wave(said.latents, timbre))

    def close(self) -> None:
        """Let go of the model."""
        if hasattr(self, "model"):
            del self.model
            torch.cuda.empty_cache()

    def _plan(self, item: SpeakItem) -> _Plan | DubbingError:
        try:
            timbre = self._timbre(item)
            return _Plan(timbre, min(max(item.rate, RATE_RANGE[0]), RATE_RANGE[1]), self.utterances(item, timbre))
        except DubbingError as error:
            return error

    def _timbre(self, item: SpeakItem) -> Timbre:
        if item.reference is not None:
            return self.model.timbre(item.reference, item.speaker)
        presets = self.model.presets
        if not presets:
            raise LanguageError(
                detail=f"{NAME} has no preset voices here (speakers_xtts.pth), and no reference was given"
            )
        if item.voice and item.voice not in presets:
            raise LanguageError(detail=f"{NAME} has no voice {item.voice}")
        return presets[item.voice or next(iter(presets))]

    def utterances(self, item: SpeakItem, timbre: Timbre) -> list[Utterance]:
        """The rows of a decode that say a line. Raises LanguageError or BadInputError."""
        language = primary(item.language)
        if language not in languages() or language not in {primary(tag) for tag in self.model.config.languages}:
            raise LanguageError(detail=f"{NAME} cannot speak {item.language}{_reader_hint(language)}")
        text = readable(item.text, language)
        if not any(character.isalnum() for character in text):
            raise BadInputError(name=repr(item.text), detail="there is no word in it to speak")
        limit = self.model.xtts.tokenizer.char_limits.get(language, 250)
        return [
            Utterance(tokens, timbre.conditioning, self.most_codes(piece, language), _seed(item, number))
            for number, (piece, tokens) in enumerate(self._tokens(text, language, limit))
        ]

    def _tokens(self, text: str, language: str, limit: int) -> Iterator[tuple[str, list[int]]]:
        """Pieces of a text with their tokens, each short enough for the model."""
        for piece in pieces(text, limit):
            try:
                tokens = self.model.tokens(piece, language)
            except (NotImplementedError, ArithmeticError, LookupError, ValueError) as error:
                detail = f"coqui-tts cannot read it aloud ({type(error).__name__}: {error})"
                raise BadInputError(name=repr(piece), detail=detail) from error
            if len(tokens) < self.model.xtts.args.gpt_max_text_tokens:
                yield piece, tokens
            elif len(piece) == 1:
                raise BadInputError(name=repr(piece), detail="one character of it has too many tokens")
            else:
                yield from self._tokens(piece, language, len(piece) // 2 + 1 if len(piece) > 2 else 1)

    def most_codes(self, text: str, language: str) -> int:
        """Audio tokens after which a voice that still speaks this text has lost its way."""
        usual_s = timing.units(text) / units_per_second(language)
        return min(self.model.max_codes, math.ceil((SPARE_S + SPARE_TIMES * usual_s) * self.model.codes_per_s))

    def _decode(self, utterances: Sequence[Utterance]) -> Iterator[Decoded]:
        """Lines of several pieces may be more than a batch: they are decoded by so many at a time."""
        for start in range(0, len(utterances), self.info.max_batch):
            yield from self.model.decoder(utterances[start : start + self.info.max_batch], self.sampling)

    def _say(self, plan: _Plan, decoded: Iterator[Decoded]) -> Speech | EngineError:
        parts: list[Int16Audio] = []
        pause = np.zeros(round(PAUSE_MS * self.model.sample_rate / 1000 / plan.rate), np.int16)
        for said in [next(decoded) for _ in plan.utterances]:
            if not said.stopped:
                seconds = len(said.codes) / self.model.codes_per_s
                return EngineError(name=NAME, detail=f"the voice found no end and was cut after {seconds:.1f} s")
            if len(said.codes) < FEWEST_CODES:
                return EngineError(name=NAME, detail="the voice stopped before it had said anything")
            sound = trim(self.model.sound(said.latents, plan.timbre, plan.rate), self.model.sample_rate)
            parts += [pause, sound] if parts else [sound]
        return Speech(np.concatenate(parts), self.model.sample_rate, plan.rate)


def trim(audio: Int16Audio, sample_rate: int) -> Int16Audio:
    """Cut silence at both ends down to 30 ms."""
    frame = sample_rate * FRAME_MS // 1000
    count = len(audio) // frame
    if count == 0:
        return audio
    power = np.mean(audio[: count * frame].astype(np.float32).reshape(count, frame) ** 2, axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-SILENT_DB / 10))
    if not loud.size:
        return audio
    guard = sample_rate * GUARD_MS // 1000
    return audio[max(0, int(loud[0]) * frame - guard) : (int(loud[-1]) + 1) * frame + guard]


def _device(options: XttsOptions, gpu: bool) -> str:
    if options.device == "cuda" and not gpu:
        raise EngineMissingError(
            kind="speak",
            name=NAME,
            detail="device cuda was asked for, but torch finds no usable GPU",
            install="Run `dub doctor`; or choose device: auto or cpu.",
        )
    if options.device == "auto":
        return "cuda" if gpu else "cpu"
    return options.device


def _sampling(options: XttsOptions, config: Any) -> Sampling:
    def of(name: str) -> Any:
        asked = getattr(options, name)
        return getattr(config, name) if asked is None else asked

    temperature = float(of("temperature"))
    return Sampling(temperature, int(of("top_k")), of("top_p"), float(of("repetition_penalty")), temperature == 0)


def _version(folder: Path, sampling: Sampling, half: bool) -> str:
    """Program, weights, and how tokens are drawn: a change of any makes lines again."""
    record = folder / weights.RECORD
    known = json.loads(record.read_text()).get("revision", "") if record.is_file() else ""
    how = hashlib.sha256(f"{sampling}{half}".encode()).hexdigest()[:6]
    return f"{importlib.metadata.version('coqui-tts')}+{(known or _sample(folder))[:12]}.{how}"


def _sample(folder: Path) -> str:
    """Digest of the ends and the sizes of the weights, for a folder that was not fetched by us."""
    digest = hashlib.sha256()
    for name in WEIGHTS.files:
        with (folder / name).open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            digest.update(f"{name}{size}".encode())
            for at in (0, size // 2, max(0, size - 2**20)):
                file.seek(at)
                digest.update(file.read(2**20))
    return digest.hexdigest()


def _seed(item: SpeakItem, piece: int) -> int:
    """A row's own seed: the same line draws the same lots at every rate and in every batch."""
    text = f"{item.seed}\0{piece}\0{item.language}\0{item.text}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _reader_hint(language: str) -> str:
    return f" without the package {READERS[language]}" if language in READERS and language in LANGUAGES else ""
