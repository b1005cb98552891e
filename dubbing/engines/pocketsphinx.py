"""Draft recogniser and forced aligner for English: pocketsphinx, on any CPU, with the model that it ships.

Recognition is rough (47 % word errors over nine mixed clips), as its confidence says; alignment is its strong side.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import sys
import threading
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from dubbing.engines import probing, vad
from dubbing.engines.base import (
    AlignItem,
    EngineInfo,
    EngineSpec,
    Kind,
    Languages,
    Located,
    TranscribeItem,
    Transcript,
)
from dubbing.engines.programs import Pipeline
from dubbing.engines.pronounce import spoken_words
from dubbing.errors import BadInputError, EngineError, LanguageError
from dubbing.types import Int16Audio, Segment, Word

SAMPLE_RATE = 16_000
INSTALL = "pip install pocketsphinx"
BEAMS = {"maxhmmpf": 10_000, "maxwpf": 20}
"""Decoder limits per frame, tighter than its defaults (30,000 and none), which made the same word errors."""
UTTERANCE_MS = 15_000
"""Longest utterance given to the decoder at once."""
HIGHPASS_HZ = 80.0
LOUDNESS_DB = -20.0
"""RMS of the speech that the decoder hears, dB of full scale."""
WINDOW_MS, WINDOW_MARGIN_MS = 120_000, 8_000
"""Alignment of long audio goes by windows; the words in the margin at the end are aligned again with the next one."""
WORDS_PER_SECOND = 4.0
"""More than anybody says for two minutes: so many words are offered to a window."""
LEAST_COVERED = 0.25
"""Share of the speech that the words of a text must fill; transcripts fill 0.7 and more, other texts hardly any."""
TIMEOUT_S, TIMEOUT_PER_SECOND = 30.0, 10.0
PROBE_S = 0.2
MASK = "…"
"""Stands for a word that is not repeated: an ellipsis is silent when it is spoken and readable when it is shown."""
_RUDE = ("fuck", "shit", "cunt", "nigg", "faggot", "bitch", "whore", "bastard", "asshole", "dickhead", "pussy", "slut")
_NOT_RUDE = frozenset({"shitake", "shittim", "niggard", "niggardly", "niggling", "niggle", "niggles", "pussycat"})
_CHILD = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from dubbing.engines.pocketsphinx_child import main; "
)

log = logging.getLogger(__name__)

Timed = tuple[str, int, int, float]


class _Task(NamedTuple):
    audio: Int16Audio
    text: str | None = None
    whole: bool = True


class _Children:
    """Decoder processes and the threads that wait for them; a task goes to whichever is free."""

    def __init__(self, mode: str, options: Mapping[str, Any]) -> None:
        count = int(options.get("processes", 1 if mode == "align" else min(2, os.cpu_count() or 1)))
        beams = json.dumps({name: options.get(name, value) for name, value in BEAMS.items()})
        program = f"{_CHILD}main({mode!r}, json.loads({beams!r}))"
        self._command = [sys.executable, "-c", program, json.dumps(sys.path)]
        self._free: SimpleQueue[Pipeline | None] = SimpleQueue()
        for _ in range(count):
            self._free.put(self._start())  # loads its model while the job's audio is still being decoded
        self._count = count
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="pocketsphinx")
        self._closed = threading.Event()

    def _start(self) -> Pipeline:
        return Pipeline("pocketsphinx", [self._command])

    def decode(self, tasks: Sequence[_Task]) -> list[list[Timed]]:
        """Decode all, the longest first so that the processes end together; answers come in the order of the tasks."""
        order = sorted(range(len(tasks)), key=lambda i: -tasks[i].audio.size)
        futures = {i: self._threads.submit(self._decode, tasks[i]) for i in order}
        return [futures[i].result() for i in range(len(tasks))]

    def probe(self, name: str, text: str | None) -> None:
        """Have every process decode a moment of sound. Raises EngineBrokenError when one that died does not start again."""
        with probing.probing(name):
            self.decode([_Task(probing.tone(PROBE_S, SAMPLE_RATE), text)] * self._count)

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._threads.shutdown()
        for _ in range(self._count):
            child = self._free.get()
            if child is not None:
                child.close()

    def _decode(self, task: _Task) -> list[Timed]:
        child = self._free.get()
        try:
            try:
                child, answer = self._ask(child, task)
            except EngineError as error:
                log.warning("%s; starting it once more", error.message)
                child = None
                child, answer = self._ask(child, task)
        finally:
            self._free.put(child)
        return [(word, start, end, probability) for word, start, end, probability in json.loads(answer)]

    def _ask(self, child: Pipeline | None, task: _Task) -> tuple[Pipeline, bytes]:
        """Ask a child, a fresh one if there is none; one that dies or hangs is ended."""
        child = child or self._start()
        pcm = np.ascontiguousarray(task.audio, "<i2").tobytes()
        header = json.dumps({"bytes": len(pcm), "text": task.text, "whole": task.whole})
        timeout_s = TIMEOUT_S + TIMEOUT_PER_SECOND * task.audio.size / SAMPLE_RATE
        try:
            return child, child.ask(header.encode() + b"\n" + pcm, b"\n", timeout_s)
        except EngineError:
            child.close()
            raise


class PocketsphinxTranscriber:
    """Recognises English, utterance by utterance, two at a time."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options`: `processes` (2), `profanity_filter` (True), and the decoder limits `maxhmmpf` and `maxwpf`."""
        self.info = _info(
            "pocketsphinx", "transcribe", "A draft recogniser: expect a third to a half of the words to be wrong."
        )
        self._filter = bool(options.get("profanity_filter", True))
        self._children = _Children("transcribe", options)

    def run(self, items: Sequence[TranscribeItem]) -> list[Transcript]:
        """Recognise pieces of speech. Raises LanguageError for other languages than English, EngineError."""
        for item in items:
            _require_english("pocketsphinx", item.language)
        spans = [vad.speech_spans(item.audio, max_ms=UTTERANCE_MS) for item in items]
        levelled = [prepare(item.audio, found) for item, found in zip(items, spans, strict=True)]
        tasks = [_Task(_cut(a, *span)) for a, found in zip(levelled, spans, strict=True) for span in found]
        answers = iter(self._children.decode(tasks))
        return [
            Transcript(
                tuple(s for span in found if (s := self._segment(item.offset_ms + span[0], next(answers)))),
                item.language,
            )
            for item, found in zip(items, spans, strict=True)
        ]

    def bucket(self, item: TranscribeItem) -> Hashable:
        """Any mix will do."""
        return None

    def probe(self) -> None:
        """Recognise a fifth of a second of a buzz. Raises EngineBrokenError."""
        self._children.probe(self.info.name, None)

    def close(self) -> None:
        """End the decoder processes; calling twice is fine."""
        self._children.close()

    def _segment(self, offset_ms: int, found: list[Timed]) -> Segment | None:
        if not found:
            return None
        words = tuple(
            Word(
                offset_ms + start,
                offset_ms + end,
                _written(masked(text) if self._filter else text),
                round(probability, 4),
            )
            for text, start, end, probability in found
        )
        confidence = round(sum(word.confidence or 0.0 for word in words) / len(words), 4)
        text = " ".join(word.text for word in words)
        return Segment(words[0].start_ms, words[-1].end_ms, text, words, confidence=confidence)


class PocketsphinxAligner:
    """Finds out when the words of a given English text are said."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options`: `processes` (2)."""
        self.info = _info("pocketsphinx-align", "align", "")
        self._children = _Children("align", options)

    def run(self, items: Sequence[AlignItem]) -> list[Transcript]:
        """Time the words of texts: a segment per sentence. Raises LanguageError, BadInputError, EngineError."""
        for item in items:
            _require_english("pocketsphinx-align", item.language)
        return [self._align(item) for item in items]

    def bucket(self, item: AlignItem) -> Hashable:
        """Any mix will do."""
        return None

    def probe(self) -> None:
        """Align a word to a fifth of a second of a buzz. Raises EngineBrokenError."""
        self._children.probe(self.info.name, "a")

    def close(self) -> None:
        """End the decoder processes; calling twice is fine."""
        self._children.close()

    def _align(self, item: AlignItem) -> Transcript:
        tokens = [token for line in item.text.splitlines() for token in _tokens(line)]
        said = [(i, word) for i, token in enumerate(tokens) for word in spoken_words(token.text)]
        spans = vad.speech_spans(item.audio)
        if not said:
            raise BadInputError(name="text", detail="there is no English word in it to align")
        if not spans:
            raise BadInputError(name="audio", detail="nobody speaks in it, so no text can be aligned to it")
        times = self._times(item.audio, [word for _, word in said], spans)
        covered = sum(end - start for start, end in times) / sum(end - start for start, end in spans)
        if covered < LEAST_COVERED:
            raise BadInputError(name="text", detail=f"it accounts for only {covered:.0%} of what is said")
        edges: list[tuple[int, int] | None] = [None] * len(tokens)
        for (i, _), (start, end) in zip(said, times, strict=True):
            edge = edges[i]
            edges[i] = (edge[0] if edge else start, end)
        return Transcript(tuple(_sentences(tokens, edges, item.offset_ms)), item.language)

    def _times(self, audio: Int16Audio, words: list[str], spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """(start, end) of each word in ms, window by window. Raises BadInputError when text and audio do not match."""
        times: list[tuple[int, int]] = []
        start_ms, length_ms = spans[0][0], spans[-1][1]
        while len(times) < len(words):
            left = words[len(times) :]
            end_ms = min(start_ms + WINDOW_MS, length_ms)
            whole = end_ms == length_ms
            near = [(max(a, start_ms) - start_ms, min(b, end_ms) - start_ms) for a, b in spans]
            piece = prepare(_cut(audio, start_ms, end_ms), [(a, b) for a, b in near if a < b])
            offered = left if whole else left[: int(WORDS_PER_SECOND * (end_ms - start_ms) / 1000)]
            [found] = self._children.decode([_Task(piece, " ".join(offered), whole)])
            if not whole:
                found = _settled(found, end_ms - start_ms - WINDOW_MARGIN_MS)
            if not found or (whole and len(found) != len(left)):
                detail = f"the text does not match what is said after {start_ms / 1000:.0f} s"
                raise BadInputError(name="text", detail=detail)
            times += [vad.clip(start_ms + start, start_ms + end, spans) for _, start, end, _ in found]
            start_ms += found[-1][2]
        return times


class _Token(NamedTuple):
    text: str
    last: bool
    """Last of its paragraph."""


def prepare(audio: Int16Audio, spans: Sequence[tuple[int, int]]) -> Int16Audio:
    """What the decoder hears: no rumble below 80 Hz, and speech (the spans, ms) at an RMS of -20 dB of full scale."""
    if not spans:
        return audio
    size = 1 << max(audio.size - 1, 1).bit_length()
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(audio.astype(np.float32), size)
    # The magnitude of a second-order Butterworth filter, without its delay.
    spectrum *= 1 / np.sqrt(1 + (HIGHPASS_HZ / np.maximum(frequencies, 1e-3)) ** 4)
    clean = np.fft.irfft(spectrum, size)[: audio.size]
    speech = np.concatenate([_cut(clean, *span) for span in spans])
    rms = float(np.sqrt(np.mean(np.square(speech)))) or 1.0
    gain = 32768 * 10 ** (LOUDNESS_DB / 20) / rms
    levelled: Int16Audio = np.clip(clean * gain, -32768, 32767).astype(np.int16)
    return levelled


def _written(word: str) -> str:
    """The model writes all words small; English writes "I" large, and apertium takes a small one for a letter."""
    return "I" + word[1:] if word == "i" or word.startswith("i'") else word


def masked(word: str) -> str:
    """The word, or an ellipsis when it is an obscenity; the recogniser invents them where it does not understand."""
    bare = word.lower()
    return MASK if bare not in _NOT_RUDE and any(stem in bare for stem in _RUDE) else word


def _settled(found: list[Timed], limit_ms: int) -> list[Timed]:
    """The words that the next window need not align again: up to the longest pause of their last quarter."""
    sure = [word for word in found if word[2] <= limit_ms]
    if len(sure) < 2:
        return sure
    late = range(len(sure) * 3 // 4, len(sure) - 1)
    at = max(late, key=lambda i: sure[i + 1][1] - sure[i][2], default=len(sure) - 1)
    return sure[: at + 1]


def _sentences(tokens: list[_Token], edges: list[tuple[int, int] | None], offset_ms: int) -> list[Segment]:
    segments: list[Segment] = []
    words: list[Word] = []
    for token, edge in zip(tokens, edges, strict=True):
        if edge is not None:
            words.append(Word(offset_ms + edge[0], offset_ms + edge[1], token.text))
        elif words:  # a dash or the like belongs to the word before it
            last = words[-1]
            words[-1] = Word(last.start_ms, last.end_ms, f"{last.text} {token.text}")
        if words and (token.last or token.text.rstrip("\"'\u2019”»)]")[-1:] in ".!?…"):
            text = " ".join(word.text for word in words)
            segments.append(Segment(words[0].start_ms, words[-1].end_ms, text, tuple(words)))
            words = []
    return segments


def _tokens(line: str) -> list[_Token]:
    parts = line.split()
    return [_Token(part, i == len(parts) - 1) for i, part in enumerate(parts)]


def _cut(audio: Any, start_ms: int, end_ms: int) -> Any:
    return audio[start_ms * SAMPLE_RATE // 1000 : end_ms * SAMPLE_RATE // 1000]


def _require_english(name: str, language: str) -> None:
    if language.split("-", maxsplit=1)[0].lower() != "en":
        raise LanguageError(detail=f"{name} understands English only, not {language}")


def _info(name: str, kind: Kind, note: str) -> EngineInfo:
    version = f"{importlib.metadata.version('pocketsphinx')}+en-us"
    return EngineInfo(name, kind, version, "BSD-2-Clause", weights_licence="BSD-2-Clause", max_batch=8, note=note)


def _locate() -> Located:
    if find_spec("pocketsphinx") is None:
        return Located(False, "the package pocketsphinx is not installed", INSTALL)
    if vad.network_file() is None:
        return Located(False, "the speech detector of faster-whisper is not installed", "pip install faster-whisper")
    return Located(True)


_ENGLISH = Languages(frozenset({("en", "en")}))

TRANSCRIBE = EngineSpec(
    name="pocketsphinx",
    kind="transcribe",
    quality="draft",
    summary="Rough recognition of English on any CPU, no downloads.",
    licence="BSD-2-Clause",
    commercial_use=True,
    locate=_locate,
    languages=lambda: _ENGLISH,
    load=PocketsphinxTranscriber,
)
ALIGN = EngineSpec(
    name="pocketsphinx-align",
    kind="align",
    quality="draft",
    summary="Times the words of a given English text, exactly and fast.",
    licence="BSD-2-Clause",
    commercial_use=True,
    locate=_locate,
    languages=lambda: _ENGLISH,
    load=PocketsphinxAligner,
)
