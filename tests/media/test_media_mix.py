"""The sound track: loudness, peaks, places, seams, ducking, memory."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dubbing.media.ducking import Ducking
from dubbing.media.limiter import MIN_BLOCK, limited
from dubbing.media.mix import MAX_GAIN_DB, Clip, MixPlan, MixResult, mix
from dubbing.media.mixer import Mixer, place
from dubbing.media.wav import header, wav_info, write_wav

RATE = 48_000
Decode = Callable[..., np.ndarray]


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    """Stereo noise with the falling spectrum and the swell of music, looped every ten seconds."""
    rng = np.random.default_rng(seed)
    hz = np.fft.rfftfreq(10 * RATE, 1 / RATE)
    shape = np.where(hz < 60, 0, 1 / np.maximum(hz, 60))
    loop = np.fft.irfft(np.fft.rfft(rng.standard_normal((10 * RATE, 2)), axis=0) * shape[:, None], axis=0)
    loop *= 1 + 0.5 * np.sin(np.arange(10 * RATE) / RATE * 2 * np.pi * 0.4)[:, None]
    loop = np.clip(loop / np.abs(loop).max() * level * 32767, -32768, 32767).astype(np.int16)
    frames = int(seconds * RATE)
    return np.tile(loop, (frames // len(loop) + 1, 1))[:frames]


def sine(seconds: float, hz: float, level: float, rate: int = RATE) -> np.ndarray:
    return (np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate) * level * 32767).astype(np.int16)


def made(plan: MixPlan) -> MixResult:
    return asyncio.run(mix(plan))


def test_the_encoded_file_has_the_loudness_and_the_peak_that_the_result_claims(
    tmp_path: Path, meter: Callable[[Path], tuple[float, float]]
):
    write_wav(tmp_path / "bed.wav", noise(20, 0.3), RATE)
    write_wav(tmp_path / "clip.wav", sine(2, 440, 0.4, 22_050), 22_050)
    clips = tuple(Clip(tmp_path / "clip.wav", ms) for ms in (1000, 6000, 12_500))
    result = made(MixPlan(tmp_path / "dub.aac", 20_000, clips, bed=tmp_path / "bed.wav"))
    loudness, peak = meter(tmp_path / "dub.aac")
    assert result.integrated_lufs == pytest.approx(-16, abs=0.5)
    assert result.integrated_lufs == pytest.approx(loudness, abs=0.15)
    assert result.true_peak_dbtp == pytest.approx(peak, abs=0.15)
    assert peak <= -1.5
    assert result.note == ""


def test_several_pieces_measure_like_one(tmp_path: Path, meter: Callable[[Path], tuple[float, float]]):
    write_wav(tmp_path / "bed.wav", np.concatenate([noise(90, 0.2), noise(80, 0.5, 1)]), RATE)
    result = made(MixPlan(tmp_path / "dub.aac", 170_000, (), bed=tmp_path / "bed.wav"))
    loudness, _ = meter(tmp_path / "dub.aac")
    assert result.integrated_lufs == pytest.approx(loudness, abs=0.1)
    assert loudness == pytest.approx(-16, abs=0.5)


def test_peaks_stay_under_the_ceiling_even_when_the_dub_is_hot(
    tmp_path: Path, meter: Callable[[Path], tuple[float, float]]
):
    spikes = noise(15, 0.1)
    spikes[::9000] = 32_000
    write_wav(tmp_path / "bed.wav", spikes, RATE)
    write_wav(tmp_path / "clip.wav", sine(1, 3000, 0.99), RATE)
    clips = tuple(Clip(tmp_path / "clip.wav", 2000, gain_db=6.0) for _ in range(3))
    made(MixPlan(tmp_path / "dub.aac", 15_000, clips, bed=tmp_path / "bed.wav"))
    assert meter(tmp_path / "dub.aac")[1] <= -1.5


@pytest.mark.parametrize("ms", [10, 999, 1000, 15_009, 61_237])
def test_the_result_is_as_long_as_the_video_within_half_a_packet(ms: int, tmp_path: Path, decoded: Decode):
    write_wav(tmp_path / "clip.wav", sine(0.2, 440, 0.2), RATE)
    result = made(MixPlan(tmp_path / "dub.aac", ms, (Clip(tmp_path / "clip.wav", 0),)))
    frames = decoded(tmp_path / "dub.aac").shape[0]
    assert frames % 1024 == 0
    assert result.duration_ms == frames * 1000 // RATE
    assert frames == 1024 or abs(frames - ms * 48) <= 512


@pytest.mark.parametrize("suffix", [".aac", ".m4a"])
def test_a_click_is_where_it_was_put_to_the_millisecond(suffix: str, tmp_path: Path, decoded: Decode):
    click = np.zeros(24_000, np.int16)
    click[11_025:11_035] = 20_000
    write_wav(tmp_path / "clip.wav", click, 22_050)  # the click is 500 ms into the clip
    places = (0, 3000, 76_400, 77_900, 160_000)
    dub = tmp_path / f"dub{suffix}"
    made(MixPlan(dub, 170_000, tuple(Clip(tmp_path / "clip.wav", ms) for ms in places)))
    sound = np.abs(decoded(dub)[:, 0])
    for ms in places:
        near = sound[(ms + 400) * 48 : (ms + 600) * 48]
        assert (ms + 400) + near.argmax() / 48 == pytest.approx(ms + 500, abs=1)


def test_pieces_join_without_a_seam(tmp_path: Path, decoded: Decode):
    """Null test: what the codec changed is no louder around the joins than anywhere else."""
    write_wav(tmp_path / "bed.wav", noise(240, 0.3), RATE)
    plan = MixPlan(tmp_path / "dub.aac", 240_000, (), bed=tmp_path / "bed.wav")
    result = made(plan)
    encoded = decoded(tmp_path / "dub.aac")
    ducking = Ducking((), attack=1, release=1, hold=1, depth_db=0)
    with Mixer(wav_info(tmp_path / "bed.wav"), (), ducking, encoded.shape[0]) as mixer:
        wanted = np.concatenate(list(mixer.blocks(0, encoded.shape[0]))) * 10 ** (result.gain_db / 20)
    residue = np.sqrt(((encoded - wanted) ** 2).reshape(-1, 512, 2).mean(axis=(1, 2)))
    joins = [round(i * 76.8 * RATE) // 512 for i in (1, 2, 3)]
    around = np.concatenate([residue[at - 6 : at + 6] for at in joins])
    elsewhere = np.delete(residue[8:-8], np.concatenate([np.arange(at - 20, at + 4) for at in joins]))
    assert around.max() <= np.quantile(elsewhere, 0.999) * 1.1
    assert np.sqrt((wanted**2).mean()) > 8 * np.sqrt((elsewhere**2).mean())


def test_overlapping_lines_are_summed_not_overwritten(tmp_path: Path, decoded: Decode):
    write_wav(tmp_path / "a.wav", sine(2, 500, 0.2), RATE)
    write_wav(tmp_path / "b.wav", sine(2, 1500, 0.2), RATE)
    made(MixPlan(tmp_path / "dub.aac", 4000, (Clip(tmp_path / "a.wav", 0), Clip(tmp_path / "b.wav", 1000))))
    sound = decoded(tmp_path / "dub.aac")[:, 0]

    def level(hz: float, start: float) -> float:
        part = sound[int(start * RATE) : int((start + 0.5) * RATE)]
        return float(np.abs(np.dot(part, np.exp(-2j * np.pi * hz * np.arange(part.size) / RATE))))

    assert level(500, 1.2) == pytest.approx(level(500, 0.3), rel=0.05)
    assert level(1500, 1.2) == pytest.approx(level(1500, 2.3), rel=0.05)
    assert level(1500, 0.3) < 0.01 * level(1500, 1.2)


def test_the_background_goes_down_under_speech_and_comes_back(tmp_path: Path, decoded: Decode):
    write_wav(tmp_path / "bed.wav", np.repeat(sine(10, 400, 0.2)[:, None], 2, axis=1), RATE)
    write_wav(tmp_path / "quiet.wav", np.zeros(2 * RATE, np.int16), RATE)
    plan = MixPlan(tmp_path / "dub.aac", 10_000, (Clip(tmp_path / "quiet.wav", 4000),), bed=tmp_path / "bed.wav")
    made(plan)
    sound = decoded(tmp_path / "dub.aac")[:, 0]

    def level(start: float) -> float:
        return 20 * math.log10(np.sqrt((sound[int(start * RATE) : int((start + 0.5) * RATE)] ** 2).mean()))

    assert level(1) - level(4.5) == pytest.approx(plan.duck_db, abs=0.3)
    assert level(7) == pytest.approx(level(1), abs=0.2)


def test_ducking_is_smooth_and_stays_down_through_short_pauses():
    ducking = Ducking([(4800, 9600), (12_000, 20_000)], attack=2400, release=4800, hold=4800, depth_db=20)
    whole = np.ones((40_000, 2), np.float32)
    ducking.apply(whole, 0)
    assert np.abs(np.diff(whole[:, 0])).max() < 0.002
    assert np.allclose(whole[4800:20_000], 0.1)
    assert np.allclose(whole[[0, 2399, 24_801]], 1.0, atol=1e-4)
    pieces = [np.ones((777, 2), np.float32) for _ in range(40_000 // 777)]
    for i, piece in enumerate(pieces):
        ducking.apply(piece, i * 777)
    joined = np.concatenate(pieces)
    assert np.array_equal(joined, whole[: joined.shape[0]])


@pytest.mark.parametrize("block", [MIN_BLOCK, 8192, 32_768])
def test_the_limiter_keeps_its_ceiling_and_does_not_depend_on_blocks(block: int):
    rng = np.random.default_rng(3)
    sound = (rng.standard_normal((100_000, 2)) * 0.3).astype(np.float32)
    sound[50_000] = 4.0

    def through(size: int) -> np.ndarray:
        copies = [sound[at : at + size].copy() for at in range(0, sound.shape[0], size)]
        return np.concatenate(list(limited(copies, 0.7)))

    out = through(block)
    assert np.abs(out).max() <= 0.7 + 1e-6
    assert np.allclose(out, through(100_032), atol=1e-6)


def test_what_is_under_the_ceiling_is_not_touched():
    sound = np.full((9000, 2), 0.5, np.float32)
    assert np.array_equal(next(limited([sound.copy()], 0.6)), sound)


def test_silence_stays_silence_and_says_so(tmp_path: Path):
    write_wav(tmp_path / "bed.wav", np.zeros((5 * RATE, 2), np.int16), RATE)
    result = made(MixPlan(tmp_path / "dub.aac", 5000, (), bed=tmp_path / "bed.wav"))
    assert result.gain_db == 0
    assert "silent" in result.note


def test_a_whisper_is_not_blown_up_without_bound(tmp_path: Path):
    write_wav(tmp_path / "bed.wav", noise(5, 0.01), RATE)
    result = made(MixPlan(tmp_path / "dub.aac", 5000, (), bed=tmp_path / "bed.wav"))
    assert result.gain_db == MAX_GAIN_DB
    assert "quiet" in result.note


def test_a_line_that_runs_past_the_end_is_said(tmp_path: Path):
    write_wav(tmp_path / "clip.wav", sine(2, 300, 0.2), RATE)
    result = made(MixPlan(tmp_path / "dub.aac", 3000, (Clip(tmp_path / "clip.wav", 2000),)))
    assert "past the end" in result.note


def test_the_same_plan_makes_the_same_file(tmp_path: Path):
    write_wav(tmp_path / "bed.wav", noise(100, 0.3), RATE)
    files = []
    for name, workers in (("one.aac", 1), ("two.aac", 2)):
        made(MixPlan(tmp_path / name, 100_000, (), bed=tmp_path / "bed.wav", workers=workers))
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_clips_know_their_length_without_being_read(tmp_path: Path):
    write_wav(tmp_path / "clip.wav", sine(1.5, 300, 0.2, 22_050), 22_050)
    placed = place([Clip(tmp_path / "clip.wav", 250)])[0]
    assert (placed.start, placed.end) == (12_000, 84_000)


def test_cancelling_stops_the_workers_and_leaves_nothing(tmp_path: Path):
    write_wav(tmp_path / "bed.wav", noise(30, 0.3), RATE)

    async def cancelled() -> None:
        heard = asyncio.Event()
        plan = MixPlan(tmp_path / "dub.aac", 1_200_000, (), bed=tmp_path / "bed.wav")
        task = asyncio.ensure_future(mix(plan, on_progress=lambda percent: heard.set()))
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert [p.name for p in tmp_path.iterdir()] == ["bed.wav"]
    assert not [t for t in threading.enumerate() if t.name.startswith("mix")]


MEMORY = """
import asyncio, json, resource, sys
from pathlib import Path
from dubbing.media.mix import Clip, MixPlan, mix
from dubbing.media.resample import resample
import numpy as np
resample(np.zeros(100, np.int16), 22050, 48000)
peak = lambda: sum(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024
folder, minutes, lines = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
clips = tuple(Clip(folder / "clip.wav", i * minutes * 60_000 // lines) for i in range(lines))
before = peak()
asyncio.run(mix(MixPlan(folder / "dub.aac", minutes * 60_000, clips, bed=folder / "bed.wav")))
print(json.dumps(peak() - before))
"""


def grown_mb(folder: Path, minutes: int, lines: int) -> int:
    with (folder / "bed.wav").open("wb") as file:
        file.write(header(minutes * 60 * RATE * 4, 2, RATE))
        second = noise(1, 0.2).tobytes()
        for _ in range(minutes * 60):
            file.write(second)
    write_wav(folder / "clip.wav", sine(4, 300, 0.2, 22_050), 22_050)
    command = [sys.executable, "-c", MEMORY, str(folder), str(minutes), str(lines)]
    done = subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    return int(json.loads(done.stdout))


def test_memory_does_not_grow_with_length(tmp_path: Path):
    assert grown_mb(tmp_path, 6, 80) < 150


@pytest.mark.slow
def test_an_hour_with_800_lines_stays_under_400_mb(tmp_path: Path):
    assert grown_mb(tmp_path, 60, 800) < 400
