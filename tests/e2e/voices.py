"""Films in which two people talk over music, made so that what was done to them can be measured."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dubbing.media import wav
from dubbing.types import Int16Audio

RATE = 48_000
PAUSE_MS = 1_200
WOMAN, MAN = "slt", "rms"
"""Two clear voices of flite."""
SENTENCES = (
    "The harbour was quiet in the morning, and the boats lay still on the water.",
    "I have never liked the winter here, the rain comes in from the west and stays for weeks.",
    "We walked along the wall and counted the windows of the old houses.",
    "But when spring arrives, everything changes at once, and the hills turn green again.",
)


@dataclass(frozen=True)
class Film:
    """A recording and what is in it."""

    path: Path
    """48 kHz stereo WAV: voices the same in both channels, music opposite in them."""
    voices: Int16Audio
    """What both channels hold of the voices, shape (frames,)."""
    music: Int16Audio
    """What the left channel holds of the music, shape (frames,)."""
    turns: tuple[tuple[int, int, str], ...]
    """(start ms, end ms, voice) as laid out."""

    @property
    def duration_ms(self) -> int:
        return len(self.music) * 1000 // RATE


def two_people(folder: Path, voices: tuple[str, ...] = (WOMAN, MAN, WOMAN, MAN)) -> Film:
    """People who speak in turn, with pauses between them, over swelling music."""
    speech, turns, at = [], [], PAUSE_MS
    for i, voice in enumerate(voices):
        audio = spoken(folder / f"{i}.wav", voice, SENTENCES[i % len(SENTENCES)])
        turns.append((at, at + len(audio) * 1000 // RATE, voice))
        speech += [np.zeros(PAUSE_MS * RATE // 1000, np.int16), audio]
        at = turns[-1][1] + PAUSE_MS
    voice_track = np.concatenate([*speech, np.zeros(PAUSE_MS * RATE // 1000, np.int16)])
    music = melody(len(voice_track))
    stereo = np.stack([voice_track + music, voice_track - music], axis=1).astype(np.int16)
    path = folder / "two people.wav"
    wav.write_wav(path, stereo, RATE)
    return Film(path, voice_track, music, tuple(turns))


def spoken(path: Path, voice: str, text: str) -> Int16Audio:
    """A sentence at 48 kHz, at half its level so that sums do not clip."""
    subprocess.run(["flite", "-voice", voice, "-t", text, "-o", path], check=True)
    loud = path.with_suffix(".48.wav")
    convert = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", path, "-af", "volume=0.5", "-ar", str(RATE), loud]
    subprocess.run(convert, check=True)
    return wav.read_wav(loud)[0]


def melody(frames: int) -> Int16Audio:
    """Notes that rise and fall, never the same for long."""
    t = np.arange(frames) / RATE
    pitch = 300 * 2 ** (np.floor(t * 3) * 5 % 12 / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 0.37 * t)
    return np.asarray(np.rint(np.sin(phase) * swell * 2500), np.int16)


def share(sound: npt.ArrayLike, part: npt.ArrayLike) -> tuple[float, float]:
    """How much of `part` is in `sound` (gain), and how much alike both are (correlation)."""
    a, b = np.asarray(sound, np.float64), np.asarray(part, np.float64)
    return float(a @ b / (b @ b)), float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-9))


def sound_of(path: Path, track: int = 0) -> Int16Audio:
    """A track as 48 kHz stereo, shape (frames, 2)."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", path, "-map", f"0:a:{track}", "-ac", "2", "-ar", str(RATE)]
    data = subprocess.run([*command, "-f", "s16le", "-"], capture_output=True, check=True).stdout
    return np.frombuffer(data, "<i2").reshape(-1, 2)
