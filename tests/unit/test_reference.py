"""Which stretches a cloned voice is made of, and the WAV that comes of them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.artifacts import JobFolder
from dubbing.engines.base import Engines
from dubbing.media import wav
from dubbing.stages import reference
from dubbing.stages.context import Context, LocalLeaf
from dubbing.types import Line


def line(start_ms: int, end_ms: int, speaker: str = "S1", confidence: float | None = None) -> Line:
    return Line(0, start_ms, end_ms, "words", speaker, confidence)


def total(spans: list[reference.Span]) -> int:
    return sum(end - start for start, end in spans)


def test_all_clean_speech_of_one_speaker_is_taken_in_order() -> None:
    lines = [line(0, 4000), line(5000, 9000)]
    assert reference.choose_spans(lines) == {"S1": [(0, 4000), (5000, 9000)]}


def test_speech_near_another_speakers_is_left_out() -> None:
    lines = [line(0, 6000), line(6100, 8000, "S2"), line(8100, 14_000), line(13_000, 13_500, "S2")]
    assert reference.choose_spans(lines)["S1"] == [(0, 5800), (8300, 12_700)]


def test_the_longest_and_surest_stretches_come_first_and_fifteen_seconds_are_enough() -> None:
    lines = [line(0, 5000, confidence=0.4), line(6000, 12_000, confidence=0.9), line(13_000, 15_000, confidence=0.9)]
    lines += [line(20_000, 28_000, confidence=0.9)]
    spans = reference.choose_spans(lines)["S1"]
    assert (6000, 12_000) in spans
    assert (20_000, 28_000) in spans
    assert total(spans) == reference.LONGEST_MS
    assert all(start != 0 or end < 5000 for start, end in spans), "the unsure line fills up at most"


def test_a_speaker_who_says_too_little_has_no_reference() -> None:
    lines = [line(0, 2000), line(3000, 3900), line(10_000, 15_000, "S2")]
    assert reference.choose_spans(lines) == {"S1": [], "S2": [(10_000, 15_000)]}


@given(
    st.lists(
        st.tuples(st.integers(0, 60_000), st.integers(1, 12_000), st.sampled_from(["S1", "S2", "S3"])), max_size=30
    )
)
def test_a_reference_never_holds_another_speaker_and_never_overlaps_itself(rows: list[tuple[int, int, str]]) -> None:
    lines = [line(start, start + length, speaker) for start, length, speaker in sorted(rows)]
    for speaker, spans in reference.choose_spans(lines).items():
        assert not spans or reference.SHORTEST_MS <= total(spans) <= reference.LONGEST_MS
        for start, end in spans:
            assert end > start
            foreign = [n for n in lines if n.speaker != speaker]
            assert all(end <= n.start_ms - 300 or start >= n.end_ms + 300 for n in foreign)


# --- the file -----------------------------------------------------------------------------------------------------


def context_of(folder: Path) -> Context:
    work = JobFolder(folder)
    work.work.mkdir(parents=True)
    job = cast("Any", SimpleNamespace(id="0123456789ab"))
    return Context(job, work, Engines(), LocalLeaf(), lambda progress: None, logging.getLogger("test"))


def programme(path: Path) -> Path:
    """20 s of 48 kHz stereo: S1 hums at 100 Hz, S2 at 400 Hz from 8 to 13 s, silence from 15 s on."""
    at = np.arange(20 * 48_000) / 48_000
    hum = np.sin(2 * np.pi * np.where((at >= 8) & (at < 13), 400, 100) * at) * np.where(at < 15, 8000, 0)
    wav.write_wav(path, np.stack([hum, hum], axis=1).astype(np.int16), 48_000)
    return path


LINES = [line(0, 7500), line(8000, 13_000, "S2"), line(13_400, 15_000), line(15_000, 19_000)]


def made(folder: Path, lines: list[Line]) -> dict[str, reference.Reference]:
    sound = programme(folder / "bed.wav")

    async def heard() -> Path:
        return sound

    return asyncio.run(reference.references(context_of(folder / "job"), lines, heard))


def test_each_speakers_reference_holds_his_own_voice_at_the_rate_of_voices(tmp_path: Path) -> None:
    found = made(tmp_path, LINES)
    assert set(found) == {"S1", "S2"}
    for speaker, hertz in (("S1", 100), ("S2", 400)):
        audio, rate = wav.read_wav(found[speaker].path)
        spectrum = np.abs(np.fft.rfft(audio.astype(float)))
        assert (rate, audio.ndim) == (24_000, 1)
        assert 3000 <= len(audio) * 1000 / rate <= 15_000
        assert np.argmax(spectrum) * rate / len(audio) == pytest.approx(hertz, abs=1)


def test_silent_stretches_are_no_part_of_a_reference(tmp_path: Path) -> None:
    audio, rate = wav.read_wav(made(tmp_path, LINES)["S1"].path)
    assert len(audio) / rate == pytest.approx(7.5 + 1.6, abs=0.02)


def test_a_speaker_whose_stretches_are_all_silent_has_no_reference(tmp_path: Path) -> None:
    assert made(tmp_path, [line(15_500, 19_500)]) == {}


def test_the_identity_of_a_reference_follows_its_content(tmp_path: Path) -> None:
    found = []
    for name, lines in (("a", LINES), ("b", LINES), ("c", LINES[1:])):
        (tmp_path / name).mkdir()
        found.append(made(tmp_path / name, lines))
    first, again, other = (one.get("S1") or one["S2"] for one in found)
    assert first.identity == again.identity != other.identity


def test_nobody_waits_for_the_sound_when_there_is_nothing_to_cut(tmp_path: Path) -> None:
    async def never() -> Path:
        raise AssertionError("nobody says enough")

    assert asyncio.run(reference.references(context_of(tmp_path / "job"), [line(0, 1500)], never)) == {}
