"""What an engine is: batch-first, synchronous inside, asynchronous to its callers.

Three families speak the same language: in-process engines (`LocalClient`), Ray Serve replicas (`cluster.clients`) and the fakes.
A stage only ever sees `EngineClient` and cannot tell which it has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from dubbing import types
from dubbing.engines.weights import Weights
from dubbing.errors import DubbingError
from dubbing.types import Int16Audio, Segment, Speech, Voice

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Kind = Literal["transcribe", "align", "translate", "speak", "separate", "diarize"]
KINDS: tuple[Kind, ...] = ("transcribe", "align", "translate", "speak", "separate", "diarize")
CLONE = types.CLONE
"""Id of the voice that is the speaker's own, of an engine that clones."""
OPTIONAL: tuple[Kind, ...] = ("separate", "diarize")
"""A dub can be made without; draft quality is."""
PER_TARGET: tuple[Kind, ...] = ("translate", "speak")
"""Chosen for each target language; the others once per job."""


@dataclass(frozen=True, slots=True)
class TranscribeItem:
    """Up to about 30 s of speech to recognise."""

    audio: Int16Audio
    """Mono, 16 kHz, shape (samples,)."""
    offset_ms: int
    """Where the piece starts in the job's audio; the answer's times include it."""
    language: str
    """BCP-47 tag, or `auto` for an engine that detects languages."""
    speech: tuple[tuple[int, int], ...] | None = None
    """Stretches of speech in `audio`, (start, end) in ms, where the caller has looked; None: the engine looks itself."""


@dataclass(frozen=True, slots=True)
class AlignItem:
    """Speech and the words that are said in it, to be timed."""

    audio: Int16Audio
    """Mono, 16 kHz, shape (samples,)."""
    offset_ms: int
    language: str
    text: str
    """Plain text; line breaks part paragraphs."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in one TranscribeItem or AlignItem."""

    segments: tuple[Segment, ...]
    """In order, times from the start of the job's audio; empty when nothing was recognised."""
    language: str
    """BCP-47 tag: what was asked for, or what was detected; `und` when nobody speaks and it was not asked for."""
    probability: float = 1.0
    """How likely `language` is, 0..1; 1.0 when it was asked for."""


@dataclass(frozen=True, slots=True)
class TranslateItem:
    """One line to translate."""

    text: str
    source: str
    """BCP-47 tag."""
    target: str
    """BCP-47 tag."""
    before: tuple[str, ...] = ()
    """Source text of the lines before it, nearest last; engines without context ignore it."""
    after: tuple[str, ...] = ()
    max_chars: int | None = None
    """Length budget from the timing plan; engines that cannot shorten ignore it."""
    glossary: tuple[tuple[str, str], ...] = ()
    """(source term, target term); equal terms are kept as they are. Engines without a glossary ignore it."""


@dataclass(frozen=True, slots=True)
class Translation:
    """One translated line."""

    text: str


@dataclass(frozen=True, slots=True)
class SpeakItem:
    """One line to speak."""

    text: str
    language: str
    """BCP-47 tag."""
    voice: str
    """Voice id of the engine."""
    rate: float = 1.0
    """Relative to the voice's natural rate; engines without rate control ignore it and answer with rate 1.0."""
    reference: Path | None = None
    """Mono WAV of the speaker's own clean speech, 3 to 15 s, on a file system the replica sees; for voices that clone."""
    speaker: str = ""
    """Label of the speaker, unique within the lane: what is computed from `reference` is kept by (lane's file, speaker)."""
    seed: int = 0
    """Another seed asks an engine that draws lots for another reading of the same line."""


@dataclass(frozen=True, slots=True)
class SeparateItem:
    """A piece of the source's sound, to be parted into speech and everything else."""

    audio: Int16Audio
    """48 kHz stereo, shape (samples, 2); about 8 s, pieces overlap."""


@dataclass(frozen=True, slots=True)
class Stems:
    """The parts of one SeparateItem; together they sound like the whole."""

    vocals: Int16Audio
    """48 kHz stereo, shape (samples, 2), as long as the item."""
    background: Int16Audio
    """As `vocals`."""


@dataclass(frozen=True, slots=True)
class DiarizeItem:
    """A whole job's speech, to be told apart by speaker."""

    audio: Path
    """Mono WAV, 16 kHz, on a file system the replica sees."""
    speech: tuple[tuple[int, int], ...]
    """Stretches of speech (start, end) in ms, by voice activity; nothing else is looked at."""
    most: int | None = None
    """How many speakers there are at most, where the user said so."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Who speaks when."""

    turns: tuple[tuple[int, int, str], ...]
    """(start ms, end ms, label), in order of start; labels are S1, S2, ... in order of appearance."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Facts about a loaded engine, for reports, fingerprints and choice."""

    name: str
    kind: Kind
    version: str
    """Version of program and weights together: a change makes lines again."""
    licence: str
    """SPDX id of the program."""
    weights_licence: str = ""
    """SPDX id or name of the weights' licence; empty when there are no separate weights."""
    commercial_use: bool = True
    """False when licence of program, weights or outputs forbids it."""
    deterministic: bool = True
    """Same input, same output, byte for byte."""
    max_batch: int = 8
    """Most items `run` takes at once."""
    detects: bool = False
    """transcribe only: takes the language `auto`, and says which one it heard."""
    rate_range: tuple[float, float] = (1.0, 1.0)
    """speak only: rates the engine can speak at itself, relative to natural."""
    quality: Literal["draft", "good", "best"] = "draft"
    clones: bool = False
    """speak only: speaks with a voice made from `SpeakItem.reference`."""
    note: str = ""
    """A sentence a user should read, such as 'a draft recogniser'."""


class Engine(Protocol[In, Out]):
    """A loaded model. One thread calls it, one batch at a time."""

    info: EngineInfo

    def run(self, items: Sequence[In]) -> Sequence[Out | DubbingError]:
        """Answer a batch in order. An error in the place of an answer fails that item alone; what is raised fails the whole
        batch, and the batcher finds the bad item by halving.
        """
        ...

    def bucket(self, item: In) -> Hashable:
        """Items of one batch share a bucket (a language pair, say); return None when any mix will do."""
        ...

    def close(self) -> None:
        """End child processes and free memory; calling twice is fine."""
        ...


@runtime_checkable
class Probed(Protocol):
    """An engine that can tell whether its model still answers; every engine of this program does."""

    def probe(self) -> None:
        """Run something tiny through the loaded model, in the thread that calls `run`; it takes about as long as a line.

        Raises EngineBrokenError when the model fails or what comes out is no answer; ServiceDownError or
        ServiceRefusedError, which are of that kind, when a service elsewhere does.
        """
        ...


class EngineClient(Protocol[In, Out]):
    """What a stage holds: an engine somewhere."""

    info: EngineInfo

    async def __call__(self, item: In, *, lane: str) -> Out:
        """Answer one item; `lane` is the job, so that jobs take turns in a shared batch."""
        ...

    async def aclose(self) -> None:
        """Let go of the engine."""
        ...


@dataclass(frozen=True, slots=True)
class Located:
    """Whether an engine could be loaded here, found out without importing or starting it."""

    ok: bool
    reason: str = ""
    """Why not, as the end of a sentence."""
    install: str = ""
    """The command that mends it."""


@dataclass(frozen=True, slots=True)
class Languages:
    """What an engine can do, by BCP-47 primary language."""

    pairs: frozenset[tuple[str, str]] = frozenset()
    """translate: (source, target); others: (language, language)."""
    any: bool = False
    """True when the engine takes any language."""
    among: frozenset[str] = frozenset()
    """translate: from any of these into any other; a multilingual model would have tens of thousands of `pairs`."""

    def can(self, source: str, target: str) -> bool:
        """Whether `source` -> `target` (equal for kinds other than translate) is offered; region subtags are ignored."""
        pair = source.split("-", maxsplit=1)[0].lower(), target.split("-", maxsplit=1)[0].lower()
        return self.any or pair in self.pairs or (pair[0] != pair[1] and set(pair) <= self.among)

    def targets(self, source: str) -> frozenset[str]:
        """What a primary language can become, by name; empty for an engine that takes any."""
        among = self.among - {source} if source in self.among else frozenset()
        return among | {b for a, b in self.pairs if a == source}

    @property
    def sources(self) -> frozenset[str]:
        """The primary languages it can begin with, by name."""
        return self.among | {a for a, _ in self.pairs}


@dataclass(frozen=True)
class EngineSpec:
    """An engine as the registry knows it, before anything heavy is imported. Entry-point group `dubbing.engines`."""

    name: str
    kind: Kind
    quality: Literal["draft", "good", "best"]
    summary: str
    licence: str
    commercial_use: bool
    locate: Callable[[], Located]
    languages: Callable[[], Languages]
    load: Callable[[Mapping[str, Any]], Engine[Any, Any]]
    """Imports and loads; options are the engine's own, from the serve config. A translator may be told the `pairs` that
    will be asked for first, a list of (source, target), to start them early."""
    voices: Callable[[str], list[Voice]] = field(default=lambda language: [])
    """speak only: voices for a language, best first."""
    weights: Weights | None = None
    """The model files it needs, where it does not bring them along."""
    more_weights: tuple[Weights, ...] = ()
    """Further model files, of an engine that needs those of several repositories."""
    weights_named: Callable[[str], Weights | None] = field(default=lambda name: None)
    """The model files of that name, of an engine that has a model for each language pair, say."""
    clones: bool = False
    """speak only: speaks with a voice made from `SpeakItem.reference`."""
    hidden: bool = False
    """True for doubles: found by name only, never chosen."""


@dataclass(frozen=True)
class Engines:
    """The engine clients of one job; a kind the job does not need is None."""

    transcribe: EngineClient[TranscribeItem, Transcript] | None = None
    align: EngineClient[AlignItem, Transcript] | None = None
    translate: Mapping[str, EngineClient[TranslateItem, Translation]] = field(default_factory=dict)
    """By target language."""
    speak: Mapping[str, EngineClient[SpeakItem, Speech]] = field(default_factory=dict)
    """By target language."""
    separate: EngineClient[SeparateItem, Stems] | None = None
    diarize: EngineClient[DiarizeItem, Turns] | None = None
