"""Lines a user changed: the target subtitle is the place to edit, and it is read back before it is written again."""

from __future__ import annotations

from pathlib import Path

from dubbing import subtitles
from dubbing.artifacts import Manifest, fingerprint
from dubbing.errors import SubtitleError
from dubbing.stages.context import Context
from dubbing.stages.cues import write
from dubbing.stages.translate import Translated
from dubbing.types import Line, Segment


class Edits:
    """The edits of one target, kept from run to run."""

    def __init__(self, context: Context, target: str, subtitle: Path) -> None:
        self._context, self._target, self._subtitle = context, target, subtitle
        self._kept = Manifest(context.folder.target(target) / "edits.jsonl")

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
            if text != _words(before):
                self._kept.put(_key(index, source), text)
                changed += 1
        self._context.log.info("%s: %d edited lines taken from %s", self._target, changed, self._subtitle.name)
        return changed

    def of(self, line: Line, text: Translated) -> Translated:
        """The user's text for a line, else the engine's."""
        kept = self._kept.get(_key(line.index, line.text))
        return text if kept is None else Translated(str(kept))

    def write(self, lines: list[Line], texts: list[Translated], cues: list[Segment]) -> None:
        """Write the target's subtitles and remember what stands in them."""
        write(self._subtitle, cues)
        rows = [
            [line.index, line.text, text.text] for line, text in zip(lines, texts, strict=True) if text.text.strip()
        ]
        self._context.folder.remember(f"written-{self._target}", "1", rows)


def _key(index: int, source: str) -> str:
    return fingerprint(index=index, source=source)


def _words(text: str) -> str:
    return " ".join(text.split())
