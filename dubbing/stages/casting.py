"""Which voice each speaker gets: the one asked for, the speaker's own where the engine clones, else the next preset."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from dubbing.engines.base import CLONE
from dubbing.stages.context import Context, Feed
from dubbing.stages.reference import Reference, references
from dubbing.types import Line, Voice


class Casting:
    """The voices of one target language."""

    def __init__(self, context: Context, tag: str, clones: bool) -> None:
        self._context, self._tag, self._clones = context, tag, clones
        self._asked = context.job.request.voices
        offered = context.job.voices[tag]
        self._pool = [voice for voice in offered if voice.id != CLONE] or [replace(offered[0], id="", name="preset")]
        self._given: dict[str, Voice] = {}
        self._references: dict[str, Reference] | None = None

    async def listen(self, lines: Feed[Line], sound: Callable[[], Awaitable[Path]]) -> None:
        """Wait for all lines and make the references of the speakers who are to be cloned."""
        heard = [line async for line in lines]
        if any(self._is_cloned(line.speaker) for line in heard):
            self._references = await references(self._context, heard, sound)
        else:
            self._references = {}

    def of(self, speaker: str) -> Voice:
        """The voice of a speaker. Until `listen` is done, everybody is taken to say enough to be cloned."""
        if self._is_cloned(speaker):
            if self._references is None or speaker in self._references:
                offered = self._context.job.voices[self._tag][0]
                return replace(offered, id=_clone_id(speaker), name=f"{speaker}'s own voice", natural=True)
            if speaker not in self._given:
                self._context.warn(f"{self._tag}: {speaker} says too little to be cloned and has a preset voice")
        if speaker not in self._given:
            asked = self._wish(speaker)
            voice = self._pool[len(self._given) % len(self._pool)]
            if asked not in (None, CLONE):
                voice = replace(voice, id=asked, name=asked)
            self._given[speaker] = voice
        return self._given[speaker]

    def reference(self, voice: Voice) -> Reference | None:
        """What a cloned voice is made from; None for any other voice."""
        return next((r for r in (self._references or {}).values() if voice.id == _clone_id(r.speaker)), None)

    def _is_cloned(self, speaker: str) -> bool:
        return self._clones and (self._wish(speaker) or CLONE) == CLONE

    def _wish(self, speaker: str) -> str | None:
        """The voice that was asked for: for the speaker, else for this language, else for everybody."""
        return self._asked.get(speaker) or self._asked.get(f"{self._tag}:*") or self._asked.get("*")


def _clone_id(speaker: str) -> str:
    return f"{CLONE} {speaker}"
