"""Odd and hostile files: each is refused or handled with its own code, and no byte of another file gets out."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dubbing.errors import BadInputError, DubbingError
from dubbing.media import guard
from dubbing.media.extract import extract
from dubbing.media.mix import MixPlan, mix
from dubbing.media.mux import DubTrack, PackagePlan, package
from dubbing.media.probe import probe
from dubbing.media.wav import wav_info, write_wav
from dubbing.types import AudioStream, MediaInfo

CANARY = b"CANARY-7f3a-not-yours"


@pytest.fixture
def canary(tmp_path: Path, ffmpeg: Callable[..., None]) -> Path:
    """A neighbour's file that an attack wants: readable as sound, and full of a word that must not get out."""
    folder = tmp_path / "neighbour"
    folder.mkdir()
    path = folder / "secret.wav"
    write_wav(path, np.frombuffer((CANARY * 4000)[:80_000], np.int16), 16_000)
    ffmpeg("-i", path, "-c:a", "pcm_s16le", "-f", "mpegts", folder / "secret.ts")
    (folder / "secret.txt").write_bytes(CANARY * 100)
    return path


def hls(target: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n".encode()


def playlists(canary: Path) -> dict[str, bytes]:
    relative = f"neighbour/{canary.name}"
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT9S">'
        '<Period><AdaptationSet contentType="audio"><Representation id="0" bandwidth="1">'
        f"<BaseURL>file://{canary}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>"
    )
    sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n"
    return {
        "hls_absolute.mp4": hls(str(canary)),
        "hls_relative.mp4": hls(relative),
        "hls_file_url.mkv": hls(f"file://{canary}"),
        "hls.m3u8": hls(str(canary)),
        "hls_behind_bom.mp4": b"\xef\xbb\xbf" + hls(str(canary)),
        "hls_behind_blank_lines.mp4": b"\n\n" + hls(relative),
        "dash.mp4": mpd.encode(),
        "dash.mpd": mpd.encode(),
        "session.mp4": sdp.encode(),
        "session.sdp": sdp.encode(),
        "concat.mp4": f"ffconcat version 1.0\nfile '{canary}'\n".encode(),
        "concat.ffconcat": f"ffconcat version 1.0\nfile {relative}\n".encode(),
        "concat_plain.mp4": f"file '{canary}'\n".encode(),
        "concat_text.mp4": f"ffconcat version 1.0\nfile {canary.with_suffix('.txt')}\n".encode(),
    }


NAMES = sorted(playlists(Path("/x/neighbour/secret.wav")))
SOUND = (AudioStream(0, "pcm_s16le", "und", "", 1, 16_000),)


def outputs_hold_no_canary(folder: Path, error: BaseException | None) -> None:
    for path in folder.iterdir():
        if path.is_file() and path.name not in NAMES:
            assert CANARY[:9] not in path.read_bytes(), path
    if isinstance(error, DubbingError):
        assert CANARY[:9].decode() not in str(error.as_dict())


@pytest.mark.parametrize("name", NAMES)
def test_playlists_and_scripts_are_refused_whatever_they_are_called(name: str, canary: Path, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(playlists(canary)[name])
    with pytest.raises(BadInputError) as caught:
        asyncio.run(probe(path))
    assert caught.value.code == "media_forbidden"
    outputs_hold_no_canary(tmp_path, caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_list_of_demuxers_alone_keeps_them_from_opening_anything(name: str, canary: Path, tmp_path: Path):
    path, info = tmp_path / name, MediaInfo("mov", 9000, 0, None, SOUND, 100)
    path.write_bytes(playlists(canary)[name])
    with pytest.raises(BadInputError) as caught:
        asyncio.run(extract(path, bed=tmp_path / "bed.wav", info=info))
    assert caught.value.code in {"media_forbidden", "media_unreadable"}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "neighbour"])
    outputs_hold_no_canary(tmp_path, caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "concat:neighbour|secret.wav",
        "subfile,,start,0,end,99,,:secret.wav",
        "pipe:0",
        "data:audio,xyz",
        "film%03d.mp4",
        "-i",
        "a 'b\"$(c).mp4",
    ],
)
def test_a_name_is_only_ever_a_name(name: str, tmp_path: Path, films: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes((films / "film.mp4").read_bytes())
    (tmp_path / "film001.mp4").write_bytes(CANARY)
    info = asyncio.run(probe(Path(name)))
    assert 11_900 < info.duration_ms < 12_100
    bed = tmp_path / "bed.wav"
    assert asyncio.run(extract(Path(name), bed=bed, info=info)).duration_ms == pytest.approx(12_000, abs=50)


@pytest.mark.parametrize("name", ["concat:secret.wav", "pipe:0", "http://127.0.0.1/film.mp4", "film%03d.mp4"])
def test_a_name_without_a_file_is_a_missing_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError) as caught:
        asyncio.run(probe(Path(name)))
    assert caught.value.code == "file_missing"


def code_of(path: Path, **options: int) -> str:
    with pytest.raises(BadInputError) as caught:
        asyncio.run(probe(path, **options))
    return caught.value.code


def test_an_empty_file_says_so(tmp_path: Path):
    (tmp_path / "film.mp4").touch()
    assert code_of(tmp_path / "film.mp4") == "file_empty"


def test_noise_is_not_a_film(tmp_path: Path):
    (tmp_path / "film.mp4").write_bytes(bytes(range(256)) * 400)
    assert code_of(tmp_path / "film.mp4") == "media_unreadable"


def test_a_picture_is_not_a_film(tmp_path: Path, ffmpeg: Callable[..., None]):
    ffmpeg("-f", "lavfi", "-i", "color=s=64x64:d=1", "-frames:v", "1", tmp_path / "picture.png")
    assert code_of(tmp_path / "picture.png") == "media_unreadable"


def test_a_film_cut_short_in_the_copy_says_so(tmp_path: Path, films: Path):
    whole = (films / "film.mp4").read_bytes()
    (tmp_path / "film.mp4").write_bytes(whole[: len(whole) // 2])
    assert code_of(tmp_path / "film.mp4") == "media_truncated"


def test_a_picture_bomb_is_refused_before_it_is_decoded(tmp_path: Path, ffmpeg: Callable[..., None]):
    bomb = tmp_path / "bomb.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=s=8704x8704:r=5:d=0.4", "-c:v", "libx264", "-preset", "ultrafast", bomb)
    assert code_of(bomb) == "media_too_many_pixels"


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_too_many_streams_are_refused(suffix: str, tmp_path: Path, ffmpeg: Callable[..., None]):
    path = tmp_path / f"many.{suffix}"
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.1", *["-map", "0"] * 40, "-c:a", "aac", path)
    assert code_of(path) == "media_too_many_streams"


def test_a_gap_of_a_day_between_two_packets_is_too_long(tmp_path: Path, films: Path, ffmpeg: Callable[..., None]):
    bomb = tmp_path / "gap.mkv"
    gap = "setts=ts=if(gte(N\\,20)\\,TS+86400000\\,TS)"
    ffmpeg("-i", films / "film.mp4", "-c", "copy", "-bsf:v", gap, "-bsf:a", gap, bomb)
    assert code_of(bomb) == "media_too_long"


def test_a_gap_of_a_day_cannot_fill_the_disk_even_when_the_header_hides_it(
    tmp_path: Path, films: Path, ffmpeg: Callable[..., None]
):
    bomb = tmp_path / "gap.mkv"
    gap = "setts=ts=if(gte(N\\,20)\\,TS+86400000\\,TS)"
    ffmpeg("-i", films / "film.mp4", "-c", "copy", "-bsf:a", gap, bomb)
    _set_mkv_duration(bomb, 12_000.0)
    try:
        done = asyncio.run(extract(bomb, speech=tmp_path / "speech.wav", max_minutes=1))
    except BadInputError as error:
        assert error.code == "media_too_long"
        assert [p.name for p in tmp_path.iterdir()] == ["gap.mkv"]
    else:
        assert done.duration_ms <= 60_000


def _set_mkv_duration(path: Path, ms: float) -> None:
    """Rewrite the length that a Matroska header claims."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", ms)
    path.write_bytes(data)


def test_a_header_that_claims_thirty_years_is_not_believed(tmp_path: Path, films: Path, ffmpeg: Callable[..., None]):
    forged = tmp_path / "forged.mkv"
    ffmpeg("-i", films / "film.mp4", "-c", "copy", forged)
    _set_mkv_duration(forged, 1e12)
    info = asyncio.run(probe(forged))
    assert info.duration_ms == pytest.approx(12_000, abs=100)
    done = asyncio.run(extract(forged, bed=tmp_path / "bed.wav", info=info))
    assert done.duration_ms == pytest.approx(12_000, abs=100)


def test_a_film_beyond_the_limit_is_too_long_and_a_longer_limit_lets_it_in(tmp_path: Path, ffmpeg: Callable[..., None]):
    ffmpeg("-f", "lavfi", "-i", "sine=d=70", tmp_path / "long.mp3")
    assert code_of(tmp_path / "long.mp3", max_minutes=1) == "media_too_long"
    assert asyncio.run(probe(tmp_path / "long.mp3", max_minutes=2)).duration_ms > 69_000


def test_a_film_without_sound_has_nothing_to_dub(tmp_path: Path, films: Path, ffmpeg: Callable[..., None]):
    silent = tmp_path / "silent.mp4"
    ffmpeg("-i", films / "film.mp4", "-an", "-c", "copy", silent)
    assert asyncio.run(probe(silent)).audio == ()
    with pytest.raises(BadInputError) as caught:
        asyncio.run(extract(silent, bed=tmp_path / "bed.wav"))
    assert caught.value.code == "media_no_audio"


def test_a_track_that_is_not_there_is_named(films: Path, tmp_path: Path):
    with pytest.raises(BadInputError) as caught:
        asyncio.run(extract(films / "film.mp4", track=3, bed=tmp_path / "bed.wav"))
    assert (caught.value.code, caught.value.facts["count"]) == ("audio_track", 1)


@pytest.mark.parametrize(("start", "end"), [(5000, 5000), (13_000, None), (-1, 5), (0, 99_000)])
def test_a_range_outside_the_film_is_refused(start: int, end: int | None, films: Path, tmp_path: Path):
    with pytest.raises(BadInputError) as caught:
        asyncio.run(extract(films / "film.mp4", start_ms=start, end_ms=end, bed=tmp_path / "bed.wav"))
    assert caught.value.code == "range"


def test_a_variable_frame_rate_survives_the_whole_road(tmp_path: Path, films: Path, ffmpeg: Callable[..., None]):
    film = tmp_path / "vfr.mkv"
    ffmpeg(
        "-i",
        films / "film.mp4",
        "-vf",
        "select='not(mod(n\\,3))+gt(random(0)\\,0.6)'",
        "-vsync",
        "vfr",
        "-c:a",
        "copy",
        film,
    )

    async def road() -> None:
        info = await probe(film)
        done = await extract(film, bed=tmp_path / "bed.wav", info=info)
        await mix(MixPlan(tmp_path / "dub.aac", done.duration_ms, (), bed=tmp_path / "bed.wav"))
        await package(
            PackagePlan(film, (DubTrack(tmp_path / "dub.aac", "es", "Español"),), mp4=tmp_path / "o.mp4"), info=info
        )

    asyncio.run(road())
    assert asyncio.run(probe(tmp_path / "o.mp4")).duration_ms == pytest.approx(12_000, abs=100)


def test_an_extraction_that_is_cancelled_leaves_nothing(tmp_path: Path, ffmpeg: Callable[..., None]):
    ffmpeg("-f", "lavfi", "-i", "anullsrc=d=3000", "-c:a", "flac", tmp_path / "long.flac")

    async def cancelled() -> None:
        started = asyncio.Event()
        bed = tmp_path / "bed.wav"
        task = asyncio.ensure_future(extract(tmp_path / "long.flac", bed=bed, on_progress=lambda ms: started.set()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert [p.name for p in tmp_path.iterdir()] == ["long.flac"]


def test_damaged_sound_is_silence_or_an_error_but_never_a_crash(tmp_path: Path, films: Path):
    data = bytearray((films / "film.mp4").read_bytes())
    for at in range(3000, len(data) - 40_000, 97):
        data[at] ^= 0xFF
    (tmp_path / "damaged.mp4").write_bytes(data)
    try:
        done = asyncio.run(extract(tmp_path / "damaged.mp4", bed=tmp_path / "bed.wav"))
    except BadInputError as error:
        assert error.code in {"media_unreadable", "media_truncated", "media_no_audio"}
    else:
        assert done.duration_ms == wav_info(tmp_path / "bed.wav").duration_ms


def test_every_input_of_a_user_stands_behind_the_guard():
    argv = guard.source(Path("film.mp4"))
    assert argv[-2:] == ["-i", "file:film.mp4"]
    options = dict(zip(argv[:-2:2], argv[1:-2:2], strict=True))
    assert options["-protocol_whitelist"] == "file"
    assert "hls" not in options["-format_whitelist"].split(",")
