"""Lines whose first reading is bad are read again, the best is kept, and what remains wrong is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from dubbing.artifacts import JobFolder
from dubbing.engines import espeak
from dubbing.engines.base import EngineInfo, Engines, SpeakItem
from dubbing.errors import BadInputError, EngineBrokenError, EngineError
from dubbing.media import wav
from dubbing.stages.context import Context, LocalLeaf, Meter
from dubbing.stages.levels import looped
from dubbing.stages.speak import Speak, Take
from dubbing.types import Int16Audio, Speech, Stage, Voice

RATE = 16_000
TEXT = "Una frase de unos tres segundos, más o menos, si se lee."
VOICE = Voice("v", "double", "es")


def noise(seconds: float, seed: int = 0) -> Int16Audio:
    audio: Int16Audio = (np.random.default_rng(seed).standard_normal(int(seconds * RATE)) * 3000).astype(np.int16)
    return audio


GOOD, LONG, SHORT = noise(3.4), noise(14), noise(0.2)
LOOP = np.concatenate([noise(1.0, 1), np.tile(noise(0.9, 2), 7)])
SILENT: Int16Audio = np.zeros(RATE, np.int16)


class Reader:
    """Answers seed n with the n-th of its readings, an error by raising it."""

    def __init__(self, readings: Sequence[Int16Audio | Exception], deterministic: bool = False) -> None:
        self.info = EngineInfo("double", "speak", "1", "Apache-2.0", deterministic=deterministic)
        self.readings = readings
        self.seeds: list[int] = []

    async def __call__(self, item: SpeakItem, *, lane: str) -> Speech:
        self.seeds.append(item.seed)
        reading = self.readings[item.seed]
        if isinstance(reading, Exception):
            raise reading
        return Speech(reading, RATE)

    async def aclose(self) -> None:
        """Nothing to let go of."""


def stage(folder: Path, reader: Reader) -> Speak:
    job = cast("Any", SimpleNamespace(id="0123456789ab"))
    work = JobFolder(folder)
    context = Context(job, work, Engines(), LocalLeaf(), lambda progress: None, logging.getLogger("test"))
    return Speak(context, "es", reader, Meter(context, Stage.SPEAK, "es"), lambda voice: None)


def read(folder: Path, readings: Sequence[Int16Audio | Exception], **kind: bool) -> tuple[Speak, Reader, Any]:
    reader = Reader(readings, **kind)
    speak = stage(folder, reader)
    [clip] = asyncio.run(speak([0], [TEXT], [VOICE], [1.0], [Take()]))
    return speak, reader, clip


BAD = EngineError(name="double", detail="no end")


@pytest.mark.parametrize("first", [LONG, LOOP, SHORT, SILENT, BAD], ids=["long", "loop", "short", "silent", "error"])
def test_a_bad_reading_is_made_again_with_another_seed_and_the_good_one_kept(
    tmp_path: Path, first: Int16Audio | Exception
) -> None:
    speak, reader, clip = read(tmp_path, [first, GOOD, GOOD])
    assert reader.seeds == [0, 1]
    assert wav.read_wav(clip.path)[0].tolist() == GOOD.tolist()
    assert not speak.doubtful
    assert not speak.failed


@pytest.mark.parametrize(
    ("readings", "trouble", "kept"),
    [
        ([LONG, LOOP, LONG], "looped", LOOP),
        ([BAD, LONG, SILENT], "runaway", LONG),
        ([LONG, SHORT, LOOP], "truncated", SHORT),
    ],
)
def test_when_all_readings_are_bad_the_best_is_kept_and_flagged_also_in_the_next_run(
    tmp_path: Path, readings: list[Any], trouble: str, kept: Int16Audio
) -> None:
    speak, reader, clip = read(tmp_path, readings)
    assert reader.seeds == [0, 1, 2]
    assert speak.doubtful == {0: trouble}
    assert wav.read_wav(clip.path)[0].tolist() == kept.tolist()
    again, idle, _ = read(tmp_path, readings)
    assert (again.doubtful, idle.seeds) == ({0: trouble}, [])


def test_a_line_that_cannot_be_had_at_all_is_silent_and_says_why(tmp_path: Path) -> None:
    speak, reader, clip = read(tmp_path, [SILENT, BAD, BAD])
    assert (clip, reader.seeds) == (None, [0, 1, 2])
    assert "no end" in speak.failed[0]


def test_a_deterministic_engine_is_asked_once_and_only_its_silence_counts(tmp_path: Path) -> None:
    speak, reader, clip = read(tmp_path / "silent", [SILENT, GOOD], deterministic=True)
    assert (clip, reader.seeds) == (None, [0])
    speak, reader, clip = read(tmp_path / "long", [LONG, GOOD], deterministic=True)
    assert clip is not None
    assert (reader.seeds, speak.doubtful) == ([0], {})


def test_what_no_seed_can_mend_is_asked_once_and_fails_its_line_alone(tmp_path: Path) -> None:
    speak, reader, clip = read(tmp_path, [BadInputError(name="♪", detail="there is no word in it to speak"), GOOD])
    assert (clip, reader.seeds) == (None, [0])
    assert "no word" in speak.failed[0]


def test_a_broken_engine_ends_the_stage(tmp_path: Path) -> None:
    with pytest.raises(EngineBrokenError):
        read(tmp_path, [EngineBrokenError(name="double", detail="gone"), GOOD])


# --- loops --------------------------------------------------------------------------------------------------------


def spoken(text: str) -> tuple[Int16Audio, int]:
    engine = espeak.SPEAK.load({})
    try:
        speech = engine.run([SpeakItem(text, "es", "es+klatt")])[0]
    finally:
        engine.close()
    assert isinstance(speech, Speech)
    return speech.audio, speech.sample_rate


def test_speech_that_gets_stuck_is_found_and_speech_that_goes_on_is_not(require_program: Any) -> None:
    require_program("espeak-ng")
    whole, rate = spoken(
        "El viento del norte y el sol discutían sobre cuál de ellos era el más fuerte. Pasó un viajero."
    )
    piece, _ = spoken("y el más fuerte")
    rng = np.random.default_rng(1)
    stuck = np.concatenate([whole, np.tile(piece, 4)])
    noisy = (stuck + rng.standard_normal(stuck.size) * 50).astype(np.int16)
    assert looped(stuck, rate)
    assert looped(noisy, rate)
    assert not looped(whole, rate)


def test_no_real_recording_is_taken_for_a_loop(media_dir: Path) -> None:
    clips = sorted(media_dir.glob("*.wav"))[:12]
    assert clips
    assert [clip.name for clip in clips if looped(*wav.read_wav(clip))] == []


def test_silence_and_nothing_are_no_loops() -> None:
    assert not looped(np.zeros(0, np.int16), RATE)
    assert not looped(np.zeros(10, np.int16), RATE)
    assert not looped(noise(2), RATE)
