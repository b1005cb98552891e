"""Frozen values that cross borders between rooms: integer milliseconds, BCP-47 tags, numpy audio with its sample rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Quality = Literal["auto", "draft", "good", "best"]
Int16Audio = npt.NDArray[np.int16]
CLONE = "clone"
"""Id of the voice that is the speaker's own, of an engine that clones."""


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word."""

    start_ms: int
    """From the start of the job's audio."""
    end_ms: int
    """Not before start_ms."""
    text: str
    """As the engine wrote it, without spaces around it."""
    confidence: float | None = None
    """Posterior probability 0..1 from the recogniser; None when words were given by the user."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech as a recogniser or a subtitle file gives it."""

    start_ms: int
    end_ms: int
    text: str
    words: tuple[Word, ...] = ()
    """Empty when only the segment's own times are known."""
    speaker: str | None = None
    """Diarization label, or the name a subtitle gave; None when nobody said."""
    confidence: float | None = None
    """Mean word posterior 0..1; None when it was not recognised but given."""


@dataclass(frozen=True, slots=True)
class Line:
    """The unit of work: what one speaker says in one breath, translated, spoken and placed as a whole."""

    index: int
    """0-based position in the job."""
    start_ms: int
    end_ms: int
    text: str
    """In the source language, or in the target language when a translation was supplied."""
    speaker: str = "S1"
    confidence: float | None = None
    """As in Segment."""

    @property
    def duration_ms(self) -> int:
        """Length of the source line, ms."""
        return self.end_ms - self.start_ms


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice an engine can speak with."""

    id: str
    """Name the engine knows it by, such as `es+f2`."""
    engine: str
    language: str
    """BCP-47 tag; `mul` when the voice speaks any language of its engine."""
    name: str = ""
    """What a user sees."""
    natural: bool = True
    """False for a robotic voice, which may be hurried further (timing.py)."""


@dataclass(frozen=True, slots=True)
class Speech:
    """Audio of one spoken line."""

    audio: Int16Audio
    """Mono, shape (samples,)."""
    sample_rate: int
    """Hz."""
    rate: float = 1.0
    """Rate it was spoken at, relative to the voice's natural one."""

    @property
    def duration_ms(self) -> int:
        """Length of the audio, ms, rounded down."""
        return int(self.audio.shape[0] * 1000 // self.sample_rate)


class Stage(str, Enum):
    """The stages of a job, in order."""

    INGEST = "ingest"
    SEPARATE = "separate"
    TRANSCRIBE = "transcribe"
    DIARIZE = "diarize"
    SCRIPT = "script"
    TRANSLATE = "translate"
    SPEAK = "speak"
    FIT = "fit"
    MIX = "mix"
    PACKAGE = "package"
    INSPECT = "inspect"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a job of the queue is at work."""

    folder: str
    """The job's folder."""
    task: str
    """Its task on the cluster: `<Ray job id>/<task id>`, hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One full, idempotent state of a stage, for terminals, pages and event streams."""

    stage: Stage
    target: str | None
    """Target language; None for stages done once per job."""
    done: int
    """Units finished: lines, or 0..100 for stages that have no lines."""
    total: int
    eta_s: float | None = None
    """Seconds to the end of the stage, from its own pace; None until known."""
    note: str = ""
    """Why something was chosen or is waiting, for the user."""
    where: Whereabouts | None = None
    """None in a job that is not of the queue."""


@dataclass(frozen=True, slots=True)
class VideoStream:
    """The film itself, never a cover picture."""

    index: int
    """Stream number in the file."""
    codec: str
    """ffmpeg's name, such as `h264`."""
    width: int
    height: int
    fps: float
    """Average frames per second; 0.0 when the file does not say."""


@dataclass(frozen=True, slots=True)
class AudioStream:
    """One audio track."""

    index: int
    """Stream number in the file."""
    codec: str
    language: str
    """As tagged in the file (usually ISO 639-2), `und` when untagged."""
    title: str
    channels: int
    sample_rate: int
    """Hz."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """A media file a user gave us."""

    format: str
    """ffmpeg's demuxer names, such as `mov,mp4,m4a,3gp,3g2,mj2`."""
    duration_ms: int
    """Length of the timeline: from the header when plausible, from the packets otherwise. Never a size to allocate."""
    start_ms: int
    """Where the container's clock starts; our times count from there."""
    video: VideoStream | None
    audio: tuple[AudioStream, ...]
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class DubRequest:
    """Everything a user asked of one job."""

    source: Path
    targets: tuple[str, ...]
    """BCP-47 tags, in the order they were asked for; the first is the default track."""
    output_dir: Path
    """Folder that holds the job's folder."""
    source_language: str = "en"
    """BCP-47 tag of the speech in the source."""
    quality: Quality = "auto"
    transcript: Path | None = None
    """SRT, VTT, ASS or plain text in the source language."""
    translations: dict[str, Path] = field(default_factory=dict)
    """Target language -> subtitle file that replaces recognition and translation."""
    start_ms: int | None = None
    end_ms: int | None = None
    audio_track: int = 1
    """1 is the first audio track."""
    keep_background: bool = True
    """Keep the original sound, ducked under the dub (its background alone where it is separated); False leaves only the dub."""
    speakers: int | None = None
    """Most people who speak in the source, where the user said so; 1 tells nobody apart."""
    engines: dict[str, str] = field(default_factory=dict)
    """Kind, or `speak:TAG` for one target language, -> engine name, where the user insisted on one."""
    voices: dict[str, str] = field(default_factory=dict)
    """Speaker label, or `*`, or `TAG:*` for one target language -> voice id."""
    glossary: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Target language -> (source term, target term); equal terms are kept as they are."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine that will do one kind of work in a job."""

    kind: str
    """transcribe, align, translate, speak, separate or diarize."""
    name: str
    """As registered; `apertium`, say."""
    reason: str
    """Why this one, for the user."""
    target: str | None = None
    """Target language for translate and speak."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request with every choice made: all that a pipeline needs, wherever it runs."""

    id: str
    """12 hex digits from the source's content, range and audio track: the same input is the same job."""
    request: DubRequest
    folder: Path
    """The job's folder."""
    source_id: str
    """Identity of the source file's content."""
    info: MediaInfo
    """What the probe found in it."""
    source_language: str
    """BCP-47 tag, resolved."""
    choices: tuple[EngineChoice, ...]
    """Which engine does what, and why."""
    voices: dict[str, tuple[Voice, ...]]
    """By target language: what speakers get in order of appearance where the request names none."""
    loudness_lufs: float = -16.0
    """Integrated loudness of the result, LUFS."""
    true_peak_dbtp: float = -1.5
    """Ceiling of the result's true peak, dBTP."""
    max_duration_min: int = 240
    """Longest source accepted, minutes."""
    language_assumed: bool = False
    """True when neither the user nor the track said `source_language`; a recogniser that detects languages checks it."""
    notes: tuple[str, ...] = ()
    """What could not be chosen, and why, a sentence each."""
    preview: bool = False
    """Whether the first minutes are to be made playable while the rest is made."""

    @property
    def targets(self) -> tuple[str, ...]:
        """BCP-47 tags, in the order they were asked for."""
        return self.request.targets

    @property
    def engines(self) -> dict[str, str]:
        """`kind`, or `kind:target` where it depends on the target language, to the engine's name."""
        return {f"{c.kind}:{c.target}" if c.target else c.kind: c.name for c in self.choices}


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended."""

    state: Literal["done", "done_with_warnings"]
    files: dict[str, list[Path]]
    """Target language -> its videos (MP4 first where there is one), then its subtitles."""
    report: Path
    """report.json."""
    warnings: tuple[str, ...] = ()
    """What the user should look at, a sentence each."""
