"""Lines a user changed, in the target subtitle or in the edits file: both are read before they are written again.

Where both change the words of one line, the edits file counts: it was made for that very line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dubbing import line_edits, subtitles
from dubbing.artifacts import Manifest, fingerprint
from dubbing.errors import SubtitleError
from dubbing.line_edits import LineEdit
from dubbing.stages.context import Context, Feed
from dubbing.stages.cues import write
from dubbing.stages.speak import Clip, Take
from dubbing.stages.translate import Translated
from dubbing.types import Line, Segment, Voice


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a locked line keeps."""

    text: str
    voice: str
    clip: str
    """Fingerprint of the spoken clip."""


class Edits:
    """The edits of one target, kept from run to run."""

    def __init__(self, context: Context, target: str, subtitle: Path) -> None:
        """Read the edits file. Raises EditsFileError."""
        self._context, self._target, self._subtitle = context, target, subtitle
        self._kept = Manifest(context.folder.target(target) / "edits.jsonl")
        self._spoken = Manifest(context.folder.target(target) / "spoken.jsonl")
        self._wanted = line_edits.read_edits(context.folder.path, target)[0].lines
        self._applied: set[int] = set()
        self._speakers: dict[str, None] = {}

    def collect(self) -> int:
        """Compare the subtitle with what was written last time; keep what the user changed. Answers how many lines."""
        written = self._context.folder.memo(f"written-{self._target}", "1")
        if written is None or not self._subtitle.exists():
            return 0
        now = [_words(cue.text) for cue in subtitles.read_subtitles(self._subtitle)]
        if now == [_words(text) for _, _, text in written]:
            return 0
        if len(now) != len(written):
            raise SubtitleError(
                name=self._subtitle.name,
                detail=f"it has {len(now)} cues, and the job wrote {len(written)}; lines can be changed but not added or removed "
                f"in place (use it as --translation {self._target}=FILE instead)",
            )
        changed = 0
        for text, (index, source, before) in zip(now, written, strict=True):
            if text == _words(before):
                continue
            edit = self._edit(index, source)
            if edit is not None and (edit.text is not None or edit.locked):
                why = "is locked" if edit.locked else "has other words there, which count"
                self._context.log.warning(
                    "line %d was changed in %s, but it %s in edits.%s.json",
                    index + 1,
                    self._subtitle.name,
                    why,
                    self._target,
                )
                continue
            self._kept.put(_key(index, source), text)
            changed += 1
        self._context.log.info("%s: %d edited lines taken from %s", self._target, changed, self._subtitle.name)
        return changed

    @property
    def speakers(self) -> list[str]:
        """Labels in the order they appeared in before any line was given to somebody else; empty when none is."""
        if not any(edit.speaker for edit in self._wanted.values()):
            return []
        return list(self._context.folder.memo(f"speakers-{self._target}", "1") or ())

    async def lines(self, feed: Feed[Line]) -> AsyncIterator[Line]:
        """The lines as they come, with the speakers and times the user gave them; none starts before the one before it."""
        latest = 0
        async for line in feed:
            self._speakers.setdefault(line.speaker)
            yield (ours := self._as_wanted(line, latest))
            latest = max(latest, ours.start_ms)

    def _as_wanted(self, line: Line, latest: int) -> Line:
        edit = self._edit(line.index, line.text)
        if edit is None:
            return line
        self._applied.add(line.index + 1)
        if edit.start_ms is None and edit.end_ms is None:
            return replace(line, speaker=edit.speaker or line.speaker)
        start = max(latest, line.start_ms if edit.start_ms is None else edit.start_ms)
        end = max(start + line_edits.SHORTEST_MS, line.end_ms if edit.end_ms is None else edit.end_ms)
        return replace(line, start_ms=start, end_ms=end, speaker=edit.speaker or line.speaker)

    def of(self, line: Line, text: Translated) -> Translated:
        """The user's text for a line, else the engine's."""
        edit, locked = self._edit(line.index, line.text), self._locked(line)
        if locked is not None:
            return Translated(locked.text)
        if edit is not None and edit.text is not None:
            return Translated(edit.text)
        kept = self._kept.get(_key(line.index, line.text))
        return text if kept is None else Translated(str(kept))

    def voice(self, line: Line, voice: Voice) -> Voice:
        """The user's voice for a line, else the one its speaker was given."""
        edit, locked = self._edit(line.index, line.text), self._locked(line)
        wanted = locked.voice if locked else edit.voice if edit else None
        return voice if wanted in (None, voice.id) else replace(voice, id=wanted, name=wanted)

    def take(self, line: Line) -> Take:
        """Which reading of a line is wanted."""
        edit, locked = self._edit(line.index, line.text), self._locked(line)
        if edit is None:
            return Take()
        timed = edit.start_ms is not None or edit.end_ms is not None
        return Take(edit.redo, locked.clip if locked else "", (line.start_ms, line.end_ms) if timed else None)

    def made(self, line: Line) -> dict[str, Any]:
        """What the edit that a line was made with asked for."""
        edit = self._edit(line.index, line.text)
        return edit.wanted if edit else {}

    def keep(
        self, lines: Sequence[Line], texts: Sequence[Translated], voices: Sequence[Voice], clips: Sequence[Clip | None]
    ) -> None:
        """Remember what each line says and with which clip, so that it can be locked."""
        for line, text, voice, clip in zip(lines, texts, voices, clips, strict=True):
            if clip is None:
                continue
            key = _key(line.index, line.text)
            entry = {"text": text.text, "voice": voice.id, "clip": clip.path.stem, "words": self._words_of(line)}
            if self._spoken.get(key) != entry:
                self._spoken.put(key, entry)

    def write(self, lines: list[Line], texts: list[Translated], cues: list[Segment]) -> None:
        """Write the target's subtitles and remember what stands in them."""
        write(self._subtitle, cues)
        rows = [
            [line.index, line.text, text.text] for line, text in zip(lines, texts, strict=True) if text.text.strip()
        ]
        self._context.folder.remember(f"written-{self._target}", "1", rows)
        self._context.folder.remember(f"speakers-{self._target}", "1", list(self._speakers))
        strays = sorted(set(self._wanted) - self._applied)
        if strays:
            numbers = ", ".join(map(str, strays[:12])) + (", ..." if len(strays) > 12 else "")
            self._context.warn(
                f"{self._target}: {len(strays)} of {len(self._wanted)} edits were made for lines that say something "
                f"else now, and were not applied: {numbers}"
            )

    def _edit(self, index: int, source: str) -> LineEdit | None:
        """The edit of a line, if it was made for a line that said this."""
        edit = self._wanted.get(index + 1)
        return edit if edit is not None and edit.source == line_edits.source_hash(source) else None

    def _locked(self, line: Line) -> _Kept | None:
        """What a locked line was when it was last spoken as its edit wants it."""
        edit, entry = self._edit(line.index, line.text), self._spoken.get(_key(line.index, line.text))
        if edit is None or not edit.locked or entry is None or entry["words"] != self._words_of(line):
            return None
        return _Kept(entry["text"], entry["voice"], entry["clip"])

    def _words_of(self, line: Line) -> str:
        """Fingerprint of what an edit wants of a line's clip; the same for all lines without one."""
        edit = self._edit(line.index, line.text)
        wanted = (edit.text, edit.voice, edit.speaker, edit.redo) if edit else (None, None, None, 0)
        return fingerprint(wanted=wanted)


def _key(index: int, source: str) -> str:
    return fingerprint(index=index, source=source)


def _words(text: str) -> str:
    return " ".join(text.split())
