"""Cues of a track: what stands in the subtitle files of a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dubbing import subtitles
from dubbing.artifacts import write_atomically
from dubbing.types import Segment


def write(path: Path, cues: Sequence[Segment]) -> None:
    """Write SubRip at `path` and WebVTT beside it."""
    ours = apart(cues)
    write_atomically(path, subtitles.to_srt(ours))
    write_atomically(path.with_suffix(".vtt"), subtitles.to_vtt(ours))


def apart(cues: Sequence[Segment]) -> list[Segment]:
    """The same cues, each ending where the next begins at the latest."""
    ends = [following.start_ms for following in cues[1:]] + [cue.end_ms for cue in cues[-1:]]
    return [
        replace(cue, end_ms=max(cue.start_ms + 1, min(cue.end_ms, end))) for cue, end in zip(cues, ends, strict=True)
    ]
