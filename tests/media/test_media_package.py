"""The finished film: the picture untouched, everything in sync, tracks that say what they are."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubbing.media.extract import extract
from dubbing.media.mix import Clip, MixPlan, mix
from dubbing.media.mux import DubTrack, Packaged, PackagePlan, SubtitleTrack, package, packet_hashes
from dubbing.media.probe import keyframe_before, probe
from dubbing.media.tags import iso639_2
from dubbing.media.wav import read_frames, wav_info

Decode = Callable[..., np.ndarray]
SRT = "1\n00:00:01,000 --> 00:00:03,000\nHola — ¿qué tal?\n\n2\n00:00:05,000 --> 00:00:06,000\nadiós\n"


def streams(path: Path) -> list[dict[str, Any]]:
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["streams"]


def first_picture(path: Path) -> float:
    command = ["ffprobe", "-v", "error", "-fflags", "+genpts", "-select_streams", "v:0", "-of", "csv=p=0"]
    command += ["-show_entries", "packet=pts_time", "-read_intervals", "%+1", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return min(float(word.strip(",")) for word in done.stdout.split() if word.strip(",") != "N/A")


def dubbed(source: Path, folder: Path, *, start: int = 0, end: int | None = None, **changes: Any) -> Packaged:
    """The whole road with the original sound as its own dub: it must come out where it went in."""

    async def road() -> Packaged:
        info = await probe(source)
        done = await extract(source, bed=folder / "bed.wav", start_ms=start or None, end_ms=end, info=info)
        await mix(MixPlan(folder / "dub.aac", done.duration_ms, (), bed=folder / "bed.wav"))
        (folder / "es.srt").write_text(SRT, "utf-8")
        plan = {
            "dubs": (
                DubTrack(folder / "dub.aac", "es-419", "Español (dub)"),
                DubTrack(folder / "dub.aac", "fr", "Français"),
            ),
            "mp4": folder / "out.mp4",
            "mkv": folder / "out.mkv",
            "subtitles": (SubtitleTrack(folder / "es.srt", "es", "Español"),),
            "original_language": "en",
            "start_ms": start,
            "end_ms": end,
        }
        return await package(PackagePlan(source, **(plan | changes)), info=info)

    return asyncio.run(road())


def beeps(sound: np.ndarray) -> np.ndarray:
    """Start of every beep, seconds."""
    loud = np.abs(sound).max(axis=1) > 0.12 * np.abs(sound).max()
    on = np.flatnonzero(loud)
    return on[np.diff(on, prepend=-48_000) > 9600] / 48_000


@pytest.fixture(scope="module")
def packaged(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packaged")
    dubbed(films / "film.mp4", folder)
    return folder


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_picture_is_the_same_to_the_bit(name: str, packaged: Path, films: Path):
    assert asyncio.run(packet_hashes(packaged / name)) == asyncio.run(packet_hashes(films / "film.mp4"))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_every_track_has_its_language_its_title_and_the_dub_is_the_default(name: str, packaged: Path):
    found = streams(packaged / name)
    assert [s["codec_type"] for s in found] == ["video", "audio", "audio", "audio", "subtitle"]
    assert [s["tags"].get("language") for s in found[1:]] == ["spa", "fra", "eng", "spa"]
    assert [s["disposition"]["default"] for s in found[1:4]] == [1, 0, 0]
    shown = [s["tags"].get("title") or s["tags"].get("handler_name") for s in found[1:]]
    assert shown == ["Español (dub)", "Français", "Original", "Español"]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_nothing_personal_of_the_source_is_carried_over(name: str, packaged: Path, films: Path):
    assert b"filmed at home" in (films / "film.mp4").read_bytes()
    assert b"filmed at home" not in (packaged / name).read_bytes()


def test_the_mp4_can_be_played_while_it_downloads(packaged: Path):
    data = (packaged / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_soft_subtitles_come_out_as_they_went_in(name: str, packaged: Path):
    command = ["ffmpeg", "-v", "error", "-i", str(packaged / name), "-map", "0:s:0", "-f", "srt", "-"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Hola — ¿qué tal?" in text
    assert "adiós" in text


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_dub_and_original_are_in_sync_with_the_picture(name: str, packaged: Path, decoded: Decode):
    picture = first_picture(packaged / name)
    for track in (0, 2):
        times = beeps(decoded(packaged / name, track=track)) - picture
        assert times == pytest.approx(np.arange(12), abs=0.012), track


CONTAINERS = {
    "offset.ts": ("-c", "copy", "-muxdelay", "1.4"),
    "opus.mkv": ("-c:v", "copy", "-c:a", "libopus"),
    "late.mkv": ("-c", "copy", "-output_ts_offset", "5"),
    "old.avi": ("-c:v", "mpeg4", "-bf", "2", "-c:a", "libmp3lame"),
    "program.mpg": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    "phone.mov": ("-c:v", "copy", "-c:a", "pcm_s16le"),
    "web.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-s", "160x90", "-c:a", "libopus"),
    "flash.flv": ("-c:v", "flv1", "-ar", "44100", "-c:a", "aac"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_whatever_the_container_and_its_clock_sound_and_picture_stay_together(
    name: str, films: Path, tmp_path: Path, ffmpeg: Callable[..., None], decoded: Decode
):
    source = tmp_path / name
    ffmpeg("-i", films / "film.mp4", *CONTAINERS[name], source)
    done = dubbed(source, tmp_path)
    want = beeps(decoded_from_container_start(source)) - (first_picture(source) - start_of(source))
    assert want.size >= 12
    for out in filter(None, (done.mp4, done.mkv)):
        times = beeps(decoded_from_container_start(out)) - (first_picture(out) - start_of(out))
        assert times == pytest.approx(want, abs=0.012), out.name


def start_of(source: Path) -> float:
    command = ["ffprobe", "-v", "error", "-show_entries", "format=start_time", "-of", "csv=p=0", str(source)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


def decoded_from_container_start(path: Path) -> np.ndarray:
    """The first audio track, placed by its own timestamps, which are read apart from the sound."""
    command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", "frame=pts_time", "-of", "csv=p=0"]
    done = subprocess.run([*command, "-read_intervals", "%+1", str(path)], check=True, capture_output=True, text=True)
    first = float(done.stdout.split()[0].strip(",")) - start_of(path)
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(path),
        "-map",
        "0:a:0",
        "-ar",
        "48000",
        "-ac",
        "2",
        "-f",
        "f32le",
        "-",
    ]
    sound = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32).reshape(-1, 2)
    lead = round(first * 48_000)
    return np.concatenate([np.zeros((lead, 2), np.float32), sound]) if lead > 0 else sound[-lead:]


def test_a_codec_that_mp4_cannot_hold_gives_mkv_alone_and_the_reason(
    films: Path, tmp_path: Path, ffmpeg: Callable[..., None]
):
    ffmpeg("-i", films / "film.mp4", "-c:v", "libvpx", "-deadline", "realtime", "-an", tmp_path / "v.webm")
    ffmpeg(
        "-i",
        tmp_path / "v.webm",
        "-i",
        films / "film.mp4",
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c",
        "copy",
        tmp_path / "f.mkv",
    )
    done = dubbed(tmp_path / "f.mkv", tmp_path)
    assert done.mp4 is None
    assert "vp8" in done.notes[0]
    assert not (tmp_path / "out.mp4").exists()
    assert (tmp_path / "out.mkv").exists()


def test_an_original_track_that_mp4_cannot_hold_is_left_out_and_said(
    films: Path, tmp_path: Path, ffmpeg: Callable[..., None]
):
    ffmpeg("-i", films / "film.mp4", "-c:v", "copy", "-c:a", "pcm_s16le", tmp_path / "f.mkv")
    done = dubbed(tmp_path / "f.mkv", tmp_path)
    assert "original sound" in done.notes[0]
    assert len([s for s in streams(tmp_path / "out.mp4") if s["codec_type"] == "audio"]) == 2
    assert len([s for s in streams(tmp_path / "out.mkv") if s["codec_type"] == "audio"]) == 3


def test_sound_alone_becomes_sound_alone(tmp_path: Path, ffmpeg: Callable[..., None], decoded: Decode):
    ffmpeg("-f", "lavfi", "-i", "sine=d=5", "-c:a", "libmp3lame", tmp_path / "talk.mp3")
    done = dubbed(tmp_path / "talk.mp3", tmp_path, mp4=tmp_path / "out.m4a", mkv=tmp_path / "out.mka")
    assert (done.mp4, done.mkv) == (tmp_path / "out.m4a", tmp_path / "out.mka")
    assert not [s for s in streams(tmp_path / "out.m4a") if s["codec_type"] == "video"]
    assert decoded(tmp_path / "out.mka").shape[0] / 48_000 == pytest.approx(5, abs=0.1)


def test_a_cover_picture_is_not_a_film(films: Path, tmp_path: Path, ffmpeg: Callable[..., None]):
    ffmpeg("-f", "lavfi", "-i", "color=s=64x64:d=1", "-frames:v", "1", tmp_path / "cover.png")
    cover = ("-map", "0:a", "-map", "1:v", "-c:v", "copy", "-disposition:v", "attached_pic")
    ffmpeg("-i", films / "film.mp4", "-i", tmp_path / "cover.png", *cover, "-c:a", "copy", tmp_path / "song.m4a")
    assert asyncio.run(probe(tmp_path / "song.m4a")).video is None


@pytest.mark.parametrize("wanted", [4000, 5300, 5999, 11_900])
def test_a_cut_starts_at_a_keyframe_and_stays_in_sync(wanted: int, films: Path, tmp_path: Path, decoded: Decode):
    start = asyncio.run(keyframe_before(films / "film.mp4", wanted))
    assert start == wanted // 2000 * 2000
    end = min(start + 4500, 12_000)
    dubbed(films / "film.mp4", tmp_path, start=start, end=end)
    assert wav_info(tmp_path / "bed.wav").duration_ms == pytest.approx(end - start, abs=2)
    for out in (tmp_path / "out.mp4", tmp_path / "out.mkv"):
        times = beeps(decoded(out, track=0)) - first_picture(out)
        count = -(-(end - start) // 1000)
        assert times == pytest.approx(np.arange(count), abs=0.012)
        pictures = [s for s in streams(out) if s["codec_type"] == "video"]
        assert len(pictures) == 1


def test_a_keyframe_is_found_in_a_file_whose_clock_does_not_start_at_zero(
    films: Path, tmp_path: Path, ffmpeg: Callable[..., None]
):
    ffmpeg("-i", films / "film.mp4", "-c", "copy", tmp_path / "f.ts")
    start = asyncio.run(keyframe_before(tmp_path / "f.ts", 5000))
    assert start == pytest.approx(4000, abs=60)
    assert asyncio.run(keyframe_before(tmp_path / "f.ts", 0)) <= 60


def test_sound_that_starts_late_is_laid_at_its_own_time(tmp_path: Path, films: Path, ffmpeg: Callable[..., None]):
    late = ("-map", "0:v", "-map", "1:a", "-c", "copy")
    ffmpeg("-i", films / "film.mp4", "-itsoffset", "2.5", "-i", films / "film.mp4", *late, tmp_path / "late.mkv")
    asyncio.run(extract(tmp_path / "late.mkv", bed=tmp_path / "bed.wav"))
    info = wav_info(tmp_path / "bed.wav")
    times = beeps(read_frames(info, 0, info.frames).astype(float))
    assert times == pytest.approx(np.arange(12) + 2.5, abs=0.012)


def test_a_hole_in_the_sound_stays_a_hole(tmp_path: Path, films: Path, ffmpeg: Callable[..., None]):
    hole = "aselect='not(between(t,3.5,7.5))'"
    ffmpeg("-i", films / "film.mp4", "-c:v", "copy", "-af", hole, "-c:a", "flac", tmp_path / "hole.mkv")
    asyncio.run(extract(tmp_path / "hole.mkv", bed=tmp_path / "bed.wav", speech=tmp_path / "speech.wav"))
    info = wav_info(tmp_path / "bed.wav")
    times = beeps(read_frames(info, 0, info.frames).astype(float))
    assert times == pytest.approx([0, 1, 2, 3, 8, 9, 10, 11], abs=0.05)
    assert wav_info(tmp_path / "speech.wav").duration_ms == pytest.approx(info.duration_ms, abs=2)


def test_real_films_take_the_whole_road(real_media: Path, tmp_path: Path):
    for name in ("od_englishvideo.mp4", "g_ChromeCast.mp4"):
        dubbed(real_media / name, tmp_path)
        assert asyncio.run(packet_hashes(tmp_path / "out.mp4")) == asyncio.run(packet_hashes(real_media / name))


@pytest.mark.parametrize(
    ("tag", "letters"),
    [
        ("es", "spa"),
        ("pt-BR", "por"),
        ("zh-Hans-CN", "zho"),
        ("fil", "fil"),
        ("EN_us", "eng"),
        ("x", "und"),
        ("", "und"),
    ],
)
def test_language_tags_have_three_letters(tag: str, letters: str):
    assert iso639_2(tag) == letters


def test_a_title_cannot_smuggle_options_or_control_characters(packaged: Path, films: Path, tmp_path: Path):
    title = "-i /etc/passwd\n;rm=1:x'\"\x07"
    plan = PackagePlan(films / "film.mp4", (DubTrack(packaged / "dub.aac", "es", title),), mkv=tmp_path / "o.mkv")
    asyncio.run(package(plan))
    assert streams(tmp_path / "o.mkv")[1]["tags"]["title"] == "-i /etc/passwd;rm=1:x'\""


def test_packaging_that_is_cancelled_leaves_nothing(
    films: Path, tmp_path: Path, packaged: Path, ffmpeg: Callable[..., None]
):
    ffmpeg("-stream_loop", "400", "-i", films / "film.mp4", "-c", "copy", tmp_path / "long.mkv")

    async def cancelled() -> None:
        started = asyncio.Event()
        plan = PackagePlan(tmp_path / "long.mkv", (DubTrack(packaged / "dub.aac", "es", "x"),), mp4=tmp_path / "o.mp4")
        task = asyncio.ensure_future(package(plan, on_progress=lambda ms: started.set()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert [p.name for p in tmp_path.iterdir()] == ["long.mkv"]


@pytest.mark.parametrize("name", ["f.mp4", "f.mkv", "f.ts", "f.flac", "f.mp3"])
def test_a_part_is_taken_out_at_its_very_place(name: str, films: Path, tmp_path: Path, ffmpeg: Callable[..., None]):
    codec = () if name in {"f.flac", "f.mp3"} else ("-c", "copy")
    ffmpeg("-i", films / "film.mp4", *codec, *(() if codec else ("-vn",)), tmp_path / name)

    def heard(**part: int) -> np.ndarray:
        asyncio.run(extract(tmp_path / name, bed=tmp_path / "bed.wav", speech=tmp_path / "speech.wav", **part))
        info = wav_info(tmp_path / "bed.wav")
        return beeps(read_frames(info, 0, info.frames).astype(float))

    whole = heard()
    part = heard(start_ms=2500, end_ms=6500)
    assert whole.size >= 12
    assert part == pytest.approx(whole[3:7] - 2.5, abs=0.002)
    assert wav_info(tmp_path / "bed.wav").duration_ms == pytest.approx(4000, abs=2)
    assert wav_info(tmp_path / "speech.wav").duration_ms == pytest.approx(4000, abs=2)


def test_plans_and_results_travel_between_processes(packaged: Path, films: Path):
    plans = (
        PackagePlan(films / "film.mp4", (DubTrack(packaged / "dub.aac", "es", "x"),), mkv=packaged / "o.mkv"),
        MixPlan(packaged / "o.aac", 10, (Clip(packaged / "c.wav", 0),)),
        asyncio.run(probe(films / "film.mp4")),
    )
    assert pickle.loads(pickle.dumps(plans)) == plans
