"""How an upload is heard, without Ray: one language for all of it, and nothing of a stranger's file name on the disk."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.http_formats import Heard
from cluster.http_speech import Desk
from dubbing.engines.base import EngineInfo, Kind, TranscribeItem, Transcript
from dubbing.media import extract, wav
from dubbing.types import Segment

INFO = EngineInfo("ear", "transcribe", "1", "MIT", detects=True)


@dataclass
class Ear:
    """A recogniser that detects: nothing at first, then Spanish."""

    silent_for: int = 0
    info: EngineInfo = INFO
    asked: list[str] = field(default_factory=list)

    async def __call__(self, item: TranscribeItem, *, lane: str) -> Transcript:
        self.asked.append(item.language)
        if len(self.asked) <= self.silent_for:
            return Transcript((), "und")
        end_ms = item.offset_ms + item.audio.size // 16
        return Transcript(
            (Segment(item.offset_ms, end_ms, "hola"),), "es" if item.language == "auto" else item.language
        )

    async def aclose(self) -> None:
        pass


@dataclass(frozen=True)
class OneEar(Desk):
    ear: Ear = field(default_factory=Ear)

    async def _engine(self, kind: Kind, model: str | None, source: str | None, target: str | None) -> Any:
        return self.ear


@pytest.fixture(scope="module")
def three_times(media_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A WAV with the same sentence three times, far enough apart to be three pieces."""
    folder = tmp_path_factory.mktemp("speech")
    asyncio.run(extract.extract(media_dir / "ps_librivox_0870.wav", speech=folder / "one.wav"))
    speech, rate = wav.read_wav(folder / "one.wav")
    wav.write_wav(folder / "three.wav", np.concatenate([speech, np.zeros(4 * rate, np.int16)] * 3), rate)
    return (folder / "three.wav").read_bytes()


def hear(ear: Ear, upload: bytes, language: str | None, name: str = "talk.wav") -> Heard:
    desk = OneEar(commercial_safe=False, max_minutes=5, ear=ear)
    return asyncio.run(desk.hear(io.BytesIO(upload), name, "ear", language, "lane"))


def test_the_language_heard_first_holds_for_the_whole_upload(three_times: bytes) -> None:
    ear = Ear()
    heard = hear(ear, three_times, None)
    assert (ear.asked[0], set(ear.asked[1:]), heard.language) == ("auto", {"es"}, "es")
    assert len(heard.segments) == len(ear.asked) >= 3
    assert [s.start_ms for s in heard.segments] == sorted(s.start_ms for s in heard.segments)


def test_a_piece_in_which_nobody_speaks_says_nothing_about_the_language(three_times: bytes) -> None:
    ear = Ear(silent_for=1)
    assert hear(ear, three_times, None).language == "es"
    assert ear.asked[:3] == ["auto", "auto", "es"]


def test_a_language_that_is_named_is_not_questioned(three_times: bytes) -> None:
    ear = Ear()
    assert hear(ear, three_times, "ca").language == "ca"
    assert set(ear.asked) == {"ca"}


def test_where_nobody_speaks_no_language_is_claimed(three_times: bytes) -> None:
    silence = wav.header(32_000, 1, 16_000) + bytes(32_000)
    heard = hear(Ear(), silence, None)
    assert (heard.segments, heard.language, heard.duration_ms) == ((), "und", 1000)


@pytest.mark.parametrize("name", ["../../etc/cron.d/x.sh", "a\0b.wav", "", ".", "talk.w/av", f"x.{'y' * 300}"])
def test_any_file_name_will_do(three_times: bytes, name: str) -> None:
    assert hear(Ear(), three_times, "es", name).text.startswith("hola")
