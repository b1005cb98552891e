"""The voices of a server: its worker writes them down in the state folder, and pages, which load no engine, read them.

Beside the list lie samples. A page leaves a wish for one, named by the voice; the worker speaks it and keeps the latest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from dubbing.errors import NotFoundError
from dubbing.types import Voice

BOOK = "voices.json"
FOLDER = "voices"
VERSION = 1
MOST_SAMPLES = 200
"""Samples that are kept, about 150 kB each."""
MOST_WISHES = 20
"""Samples that may be waited for."""


@dataclass(frozen=True)
class Voicebook:
    """What voices there are."""

    voices: Mapping[str, tuple[Voice, ...]]
    """By language tag, each engine's in its own order; empty while no worker has written any down."""

    def voice(self, language: str, engine: str, voice_id: str) -> Voice:
        """One of them. Raises NotFoundError."""
        for voice in self.voices.get(language, ()):
            if (voice.engine, voice.id) == (engine, voice_id):
                return voice
        raise NotFoundError(what=f"voice {voice_id} of {engine} for {language}")


def write(state: Path, voices: Iterable[Voice]) -> None:
    """Replace the list. Raises OSError."""
    place = state / FOLDER
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = place / f".{BOOK}.{os.getpid()}"
    temporary.write_text(json.dumps({"schema": VERSION, "voices": [asdict(voice) for voice in voices]}))
    temporary.replace(place / BOOK)


def read(state: Path) -> Voicebook:
    """The list as it was last written; one that cannot be read is none."""
    path = state / FOLDER / BOOK
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, TypeError, KeyError):
        return Voicebook({})


@lru_cache(maxsize=2)
def _read(path: Path, _changed_ns: int) -> Voicebook:
    found: dict[str, list[Voice]] = {}
    data = json.loads(path.read_text(encoding="utf-8"))
    for facts in data["voices"] if data["schema"] == VERSION else ():
        voice = Voice(**facts)
        found.setdefault(voice.language, []).append(voice)
    return Voicebook({tag: tuple(voices) for tag, voices in found.items()})


# --- samples ----------------------------------------------------------------------------------------------------------


def key_of(voice: Voice) -> str:
    """Name of a voice's sample: 32 hexadecimal digits."""
    return hashlib.sha256("\0".join((voice.engine, voice.language, voice.id)).encode()).hexdigest()[:32]


def sample_of(state: Path, voice: Voice) -> Path:
    """Where the sample of a voice is, once it was spoken."""
    return state / FOLDER / f"{key_of(voice)}.wav"


def wish(state: Path, voice: Voice) -> bool:
    """Ask for a sample; False when too many are waited for."""
    place = state / FOLDER
    if sum(1 for _ in place.glob("*.wish")) >= MOST_WISHES:
        return False
    (place / f"{key_of(voice)}.wish").touch(mode=0o600)
    return True


def is_wished(state: Path, voice: Voice) -> bool:
    """Whether its sample is waited for."""
    return (state / FOLDER / f"{key_of(voice)}.wish").exists()


def wishes(state: Path) -> list[Voice]:
    """Voices whose samples are waited for; wishes for what is not in the list are forgotten."""
    waiting = {path.stem: path for path in (state / FOLDER).glob("*.wish")}
    found = []
    for voice in (voice for voices in read(state).voices.values() for voice in voices) if waiting else ():
        if waiting.pop(key_of(voice), None) is not None:
            found.append(voice)
    for path in waiting.values():
        path.unlink(missing_ok=True)
    return found


def grant(state: Path, voice: Voice, sample: bytes | None) -> None:
    """Keep the sample of a voice and forget the oldest ones; None: it cannot be spoken, and is waited for no more."""
    path = sample_of(state, voice)
    if sample is not None:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(sample)
        temporary.replace(path)
        kept = sorted(path.parent.glob("*.wav"), key=lambda one: one.stat().st_mtime_ns, reverse=True)
        for old in kept[MOST_SAMPLES:]:
            old.unlink(missing_ok=True)
    path.with_suffix(".wish").unlink(missing_ok=True)
