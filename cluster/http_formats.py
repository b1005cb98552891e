"""Transcripts as OpenAI's clients expect them, and long texts in pieces that engines like (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dubbing import subtitles
from dubbing.types import Segment

TranscriptFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
PIECE_CHARS = 250
"""Of a text to speak: about 15 s, a length engines know from lines."""
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])\s*|\n+")


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said in an upload."""

    segments: tuple[Segment, ...]
    language: str
    """BCP-47 tag of the text."""
    duration_ms: int

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(segment.text.strip() for segment in self.segments)


def render(
    heard: Heard, form: TranscriptFormat, task: Literal["transcribe", "translate"], details: Collection[str]
) -> tuple[str | dict[str, Any], str]:
    """A transcript as (body, media type); `details` of verbose_json: `word` and `segment`."""
    if form == "json":
        return {"text": heard.text}, "application/json"
    if form == "verbose_json":
        return _verbose(heard, task, details), "application/json"
    if form == "srt":
        return subtitles.to_srt(heard.segments), "application/x-subrip"
    if form == "vtt":
        return subtitles.to_vtt(heard.segments), "text/vtt"
    return heard.text + "\n", "text/plain"


def _verbose(heard: Heard, task: str, details: Collection[str]) -> dict[str, Any]:
    """Only what the engines know: no token numbers, no compression ratio."""
    body: dict[str, Any] = {
        "task": task,
        "language": heard.language,
        "duration": heard.duration_ms / 1000,
        "text": heard.text,
    }
    if "segment" in details:
        body["segments"] = [
            {
                "id": i,
                "seek": s.start_ms // 10,
                "start": s.start_ms / 1000,
                "end": s.end_ms / 1000,
                "text": s.text,
                "avg_logprob": None if s.confidence is None else round(math.log(max(s.confidence, 1e-9)), 4),
            }
            for i, s in enumerate(heard.segments)
        ]
    if "word" in details:
        body["words"] = [
            {"word": word.text, "start": word.start_ms / 1000, "end": word.end_ms / 1000}
            for segment in heard.segments
            for word in segment.words
        ]
    return body


def pieces(text: str, limit: int = PIECE_CHARS) -> list[str]:
    """A text in pieces of at most `limit` characters: whole sentences where they fit, words where they do not."""
    found: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        for part in _parts(" ".join(sentence.split()), limit):
            if found and len(found[-1]) + 1 + len(part) <= limit:
                found[-1] += f" {part}"
            elif part:
                found.append(part)
    return found


def _parts(sentence: str, limit: int) -> Sequence[str]:
    parts = []
    while len(sentence) > limit:
        at = sentence.rfind(" ", 0, limit + 1)
        at = at if at > 0 else limit
        parts.append(sentence[:at])
        sentence = sentence[at:].strip()
    return [*parts, sentence]
