"""The bed is parted piece by piece: nothing is lost, seams are faded, and a run that was broken off goes on."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.artifacts import JobFolder
from dubbing.engines import fake
from dubbing.engines.base import EngineInfo, Engines, SeparateItem, Stems
from dubbing.errors import EngineError
from dubbing.media import wav
from dubbing.stages import separate
from dubbing.stages.context import Context, LocalLeaf
from dubbing.stages.ingest import Ingested, Separated, Sound
from dubbing.stages.mix import SPEECH_DBFS, level_of_dub
from dubbing.stages.separate import FADE, HOP, PIECE, RATE, WINDOW
from dubbing.types import DubRequest, Int16Audio, Job, MediaInfo


@dataclass
class Parts:
    """A separator that says what it was asked, and may break over one of the pieces."""

    voices: float = 0.5
    """Share of each sample that it calls voice."""
    breaks_on: bytes = b""
    """How the piece begins that it breaks over."""
    info: EngineInfo = field(default_factory=lambda: fake.SEPARATE.load({}).info)
    asked: int = 0
    busy: int = 0
    most_busy: int = 0

    async def __call__(self, item: SeparateItem, *, lane: str) -> Stems:
        self.asked += 1
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        await asyncio.sleep(0)
        self.busy -= 1
        if item.audio[:16].tobytes() == self.breaks_on:
            raise EngineError(name=self.info.name, detail="broke")
        vocals = (item.audio * self.voices).astype(np.int16)
        return Stems(vocals, item.audio - vocals)

    async def aclose(self) -> None:
        """Nothing to let go of."""


def job(folder: Path, bed: Path, engine: Any) -> Context:
    request = DubRequest(bed, ("es",), folder)
    info = MediaInfo("wav", wav.wav_info(bed).duration_ms, 0, None, (), 1)
    made = Job("a" * 12, request, folder / "job", "source", info, "en", (), {})
    home = JobFolder(made.folder)
    home.work.mkdir(parents=True, exist_ok=True)
    return Context(made, home, Engines(separate=engine), LocalLeaf(), lambda progress: None, logging.getLogger("test"))


def part(folder: Path, bed: Path, engine: Any) -> tuple[Separated, Int16Audio, Int16Audio, Context]:
    """Separate `bed`; answers what was found, both stems, and the context with its counters."""

    async def scenario() -> tuple[Separated, Ingested, Context]:
        context = job(folder, bed, engine)

        async def sound() -> Sound:
            return Sound(wav.wav_info(bed).duration_ms, -20.0, [])

        source = Ingested(context.job.info, 0, context.job.info.duration_ms, bed, None, asyncio.ensure_future(sound()))
        source = separate.begin(context, source)
        try:
            found = await source.separated()
        finally:
            await source.aclose()
        assert found is not None
        return found, source, context

    found, source, context = asyncio.run(scenario())
    assert source.vocals is not None and source.background is not None
    stems = [wav.read_frames(wav.wav_info(path), 0, 1 << 40) for path in (source.vocals, source.background)]
    return found, stems[0], stems[1], context


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 s of noise: seven pieces, the last one short."""
    path = tmp_path_factory.mktemp("bed") / "bed.wav"
    noise = np.random.default_rng(3).integers(-9000, 9000, (RATE * 40 + 777, 2), dtype=np.int16)
    wav.write_wav(path, noise, RATE)
    return path


def fifth(bed: Path) -> bytes:
    """How the fifth piece of the bed begins."""
    return wav.read_frames(wav.wav_info(bed), 4 * HOP, 16).tobytes()


def samples(bed: Path) -> Int16Audio:
    return wav.read_frames(wav.wav_info(bed), 0, 1 << 40)


@given(st.integers(0, RATE * 7200))
def test_pieces_cover_everything_and_overlap_by_the_fade(frames: int) -> None:
    plan = separate.pieces(frames)

    assert plan[0].start == 0 and plan[-1].stop == frames
    assert all(piece.stop - piece.start <= PIECE for piece in plan)
    for left, right in zip(plan, plan[1:], strict=False):
        assert left.stop - left.start == PIECE and left.stop - right.start == FADE
        assert right.stop > left.stop, "no piece is within another"


def test_a_fade_between_equal_sounds_is_not_heard() -> None:
    sound = np.random.default_rng(1).integers(-32768, 32767, (FADE, 2), dtype=np.int16)

    assert np.array_equal(separate.faded(sound, sound), sound)


def test_a_fade_goes_from_one_sound_to_the_other() -> None:
    mixed = separate.faded(np.full((100, 1), 1000, np.int16), np.full((100, 1), -1000, np.int16))[:, 0]

    assert (mixed[0], mixed[-1]) == (990, -990)
    assert np.all(np.diff(mixed.astype(int)) <= 0)


def test_both_stems_together_are_the_bed(bed: Path, tmp_path: Path) -> None:
    engine = Parts()

    _, vocals, background, context = part(tmp_path, bed, engine)

    assert vocals.shape == background.shape == samples(bed).shape
    assert np.abs(vocals.astype(int) + background - samples(bed)).max() <= 1, "a fade rounds each stem once"
    assert context.calls == {"separate.called": 7}


def test_a_long_film_has_no_more_pieces_in_flight_than_the_window(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    wav.write_wav(path, np.zeros((RATE * 120, 2), np.int16), RATE)
    engine = Parts()
    part(tmp_path, path, engine)

    assert engine.asked > 2 * WINDOW
    assert 1 < engine.most_busy <= WINDOW


def test_a_second_run_asks_for_nothing(bed: Path, tmp_path: Path) -> None:
    first = part(tmp_path, bed, Parts())
    engine = Parts()
    second = part(tmp_path, bed, engine)

    assert (engine.asked, second[3].calls) == (0, {"separate.kept": 1})
    assert second[0] == first[0]


def test_a_broken_run_goes_on_where_its_files_end(bed: Path, tmp_path: Path) -> None:
    whole = part(tmp_path / "whole", bed, Parts())
    with pytest.raises(EngineError):
        part(tmp_path, bed, Parts(breaks_on=fifth(bed)))
    engine = Parts()
    again = part(tmp_path, bed, engine)

    assert engine.asked == 4, "four pieces were written; the last of them is asked for again, to fade out of it"
    assert np.array_equal(again[1], whole[1]) and np.array_equal(again[2], whole[2])


def test_a_file_torn_in_the_middle_of_a_piece_is_mended(bed: Path, tmp_path: Path) -> None:
    whole = part(tmp_path / "whole", bed, Parts())
    with pytest.raises(EngineError):
        part(tmp_path, bed, Parts(breaks_on=fifth(bed)))
    torn = tmp_path / "job" / ".work" / "stems" / "background.growing"
    with torn.open("r+b") as file:
        file.truncate(torn.stat().st_size - 4 * HOP - 3)
    again = part(tmp_path, bed, Parts())

    assert np.array_equal(again[1], whole[1]) and np.array_equal(again[2], whole[2])


def test_another_engine_starts_anew(bed: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        part(tmp_path, bed, Parts(breaks_on=fifth(bed)))
    engine = Parts(voices=0.25, info=fake.SEPARATE.load({"seed_version": "2"}).info)
    whole = part(tmp_path / "whole", bed, Parts(voices=0.25))
    again = part(tmp_path, bed, engine)

    assert engine.asked == 7
    assert np.array_equal(again[1], whole[1])


def test_a_recording_shorter_than_a_piece_is_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    short = np.random.default_rng(4).integers(-9000, 9000, (1234, 2), dtype=np.int16)
    wav.write_wav(path, short, RATE)

    _, vocals, background, context = part(tmp_path, path, Parts())

    assert np.array_equal(vocals + background, short)
    assert context.calls == {"separate.called": 1}


def test_a_job_without_a_separator_has_no_stems(bed: Path, tmp_path: Path) -> None:
    async def scenario() -> tuple[bool, Any]:
        context = job(tmp_path, bed, None)
        sound = asyncio.get_running_loop().create_future()
        source = Ingested(context.job.info, 0, 1000, bed, None, sound)  # type: ignore[arg-type]
        return separate.begin(context, source) is source, await source.separated()

    assert asyncio.run(scenario()) == (True, None)
    assert not (tmp_path / "job" / ".work" / "stems").exists()


def test_the_level_of_the_voices_is_that_of_their_loud_parts(tmp_path: Path) -> None:
    path = tmp_path / "voices.wav"
    wave = (np.sin(np.arange(RATE * 4) * 0.05) * 3276.8 * np.sqrt(2)).astype(np.int16)
    wave[RATE:] = 0
    wav.write_wav(path, np.stack([wave, wave], axis=1), RATE)

    assert separate.voices_dbfs(path) == pytest.approx(-20.0, abs=0.1)


@pytest.mark.parametrize(("voices", "dub"), [(-25.0, -25.0), (-120.0, SPEECH_DBFS), (-3.0, SPEECH_DBFS)])
def test_the_dub_is_as_loud_as_the_voices_it_replaces_where_that_is_believable(voices: float, dub: float) -> None:
    assert level_of_dub(voices) == dub
