"""WAV files of our own, and speech at another rate or tempo."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubbing.errors import MediaToolError
from dubbing.media.loudness import SILENCE_LUFS, Meter, programme_loudness
from dubbing.media.resample import resample, stretch
from dubbing.media.wav import blocks, header, read_frames, read_wav, wav_info, write_wav


def words(seconds: float, rate: int) -> np.ndarray:
    """A buzz in syllables that ends loud, like a line cut close."""
    t = np.arange(int(seconds * rate)) / rate
    return (np.sign(np.sin(2 * np.pi * 130 * t)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)) * 9000).astype(np.int16)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5000), st.sampled_from([8000, 16_000, 22_050, 48_000]), st.integers(1, 2))
def test_a_wav_comes_back_as_it_was_written(frames: int, rate: int, channels: int):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        audio = np.random.default_rng(frames).integers(-32768, 32767, (frames, channels)).astype(np.int16)
        write_wav(path, audio[:, 0] if channels == 1 else audio, rate)
        info = wav_info(path)
        assert (info.frames, info.channels, info.sample_rate) == (frames, channels, rate)
        assert np.array_equal(read_frames(info, 0, frames), audio)
        joined = [np.zeros((0, channels), np.int16), *blocks(info, 700)]
        assert np.array_equal(np.concatenate(joined), audio)
        assert sorted(p.name for p in Path(folder).iterdir()) == ["a.wav"]


def test_beyond_four_gigabytes_the_file_is_rf64_and_reads_at_its_end(tmp_path: Path):
    path, data = tmp_path / "long.wav", 5 << 30
    start = header(data, 2, 48_000)
    with path.open("wb") as file:  # sparse: takes no disk
        file.write(start)
        file.seek(len(start) + data - 4)
        file.write(b"\x01\x00\x02\x00")
    info = wav_info(path)
    assert info.frames == data // 4
    assert read_frames(info, info.frames - 1, 10).tolist() == [[1, 2]]


def test_ffmpeg_reads_our_rf64_header(tmp_path: Path):
    path, data = tmp_path / "long.wav", 5 << 30
    with path.open("wb") as file:
        file.write(header(data, 2, 48_000))
        file.truncate(len(header(data, 2, 48_000)) + data)
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(path)]
    assert float(subprocess.run(command, check=True, capture_output=True).stdout) == pytest.approx(
        data / 192_000, abs=0.01
    )


def test_a_header_that_promises_more_than_there_is_gives_what_there_is(tmp_path: Path):
    path = tmp_path / "cut.wav"
    path.write_bytes(header(1 << 20, 1, 16_000) + bytes(200))
    assert read_wav(path)[0].size == 100


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"not a wav at all",
        header(8, 1, 8000)[:30],
        header(0, 1, 8000).replace(b"\x10\0data", b"\x18\0data"),
    ],
)
def test_what_is_no_16_bit_wav_is_refused(data: bytes, tmp_path: Path):
    (tmp_path / "x.wav").write_bytes(data)
    with pytest.raises(MediaToolError):
        wav_info(tmp_path / "x.wav")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([8000, 16_000, 22_050, 24_000, 48_000]),
    st.sampled_from([16_000, 22_050, 48_000]),
    st.integers(0, 40_000),
)
def test_resampling_keeps_the_length(source: int, target: int, frames: int):
    assert resample(np.zeros(frames, np.int16), source, target).size == round(frames * target / source)


def test_resampling_keeps_pitch_level_and_place():
    t = np.arange(22_050) / 22_050
    tone = (np.sin(2 * np.pi * 440 * t) * np.exp(-(((t - 0.4) / 0.05) ** 2)) * 20_000).astype(np.int16)
    up = resample(tone, 22_050, 48_000).astype(float)
    want = (
        np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
        * np.exp(-(((np.arange(48_000) / 48_000 - 0.4) / 0.05) ** 2))
        * 20_000
    )
    assert np.abs(up - want).max() < 200


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 2.5), st.sampled_from([16_000, 22_050, 24_000]), st.floats(0.3, 3.0))
def test_stretching_gives_the_length_asked_for_or_keeps_the_words(factor: float, rate: int, seconds: float):
    speech = words(seconds, rate)
    out = stretch(speech, rate, factor)
    wanted = round(speech.size / factor)
    assert wanted <= out.size <= wanted + rate // 20


@pytest.mark.parametrize("factor", [0.8, 1.1, 1.25, 1.7])
def test_stretching_loses_no_syllable_and_keeps_the_pitch(factor: float):
    rate = 22_050
    speech = np.zeros(3 * rate, np.int16)
    starts = [0.1, 0.9, 1.7, 2.6]
    for at in starts:  # four beeps, the last one near the end
        beep = np.sin(2 * np.pi * 700 * np.arange(int(0.3 * rate)) / rate) * 12_000
        speech[int(at * rate) : int(at * rate) + beep.size] = beep
    out = stretch(speech, rate, factor).astype(float)
    loud = np.abs(out).reshape(-1, 1)[: out.size // 110 * 110].reshape(-1, 110).max(axis=1) > 3000
    edges = np.flatnonzero(np.diff(loud.astype(int)) == 1) * 110 / rate
    assert edges == pytest.approx([at / factor for at in starts], abs=0.04)
    spectrum = np.abs(np.fft.rfft(out))
    assert np.fft.rfftfreq(out.size, 1 / rate)[spectrum.argmax()] == pytest.approx(700, abs=12)


def test_a_tempo_out_of_reason_is_refused():
    with pytest.raises(ValueError, match="tempo"):
        stretch(np.zeros(10, np.int16), 16_000, 9.0)


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (16_000, 1)])
def test_loudness_follows_the_level(rate: int, channels: int, tmp_path: Path):
    tone = (np.sin(2 * np.pi * 997 * np.arange(rate * 4) / rate) * 3276.7).astype(np.int16)  # -20 dBFS on both sides
    write_wav(tmp_path / "t.wav", tone if channels == 1 else np.repeat(tone[:, None], 2, axis=1), rate)
    integrated, over_time = asyncio.run(programme_loudness(tmp_path / "t.wav"))
    assert integrated == pytest.approx(-20.0, abs=0.15)
    assert over_time[1:3] == pytest.approx([-20.0, -20.0], abs=0.5)


def test_loudness_over_time_tells_speech_from_silence_and_comes_back(tmp_path: Path):
    tone = (np.sin(2 * np.pi * 997 * np.arange(16_000 * 5) / 16_000) * 3276.7).astype(np.int16)
    write_wav(tmp_path / "t.wav", np.concatenate([tone, np.zeros(16_000 * 6, np.int16), tone]), 16_000)

    _, over_time = asyncio.run(programme_loudness(tmp_path / "t.wav"))

    assert len(over_time) == 16
    assert over_time[2:4] == pytest.approx([-20.0, -20.0], abs=0.2) == over_time[13:15]
    assert over_time[8] == SILENCE_LUFS
    assert -30 < over_time[5] < -20, "a part of its three seconds is silent"


def test_silence_has_the_loudness_of_silence(tmp_path: Path):
    write_wav(tmp_path / "s.wav", np.zeros(16_000, np.int16), 16_000)
    assert asyncio.run(programme_loudness(tmp_path / "s.wav")) == (SILENCE_LUFS, [SILENCE_LUFS])


def test_a_meter_leaves_no_file_behind_if_its_process_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    meter = Meter(channels=1, true_peak=True)
    meter.feed(np.full((48_000, 1), 0.1, np.float32))
    assert list(tmp_path.iterdir()) == [], "what has no name goes with the process"
    assert meter.result().true_peak_db == pytest.approx(-20, abs=0.5)
