"""The first minutes of a long dub play in a browser while the rest is made, and leave no trace in what is made."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dubbing import config, pipeline
from dubbing.artifacts import JobFolder, Names
from dubbing.engines.base import EngineClient, Engines, SpeakItem
from dubbing.errors import MediaToolError
from dubbing.prepare import prepare
from dubbing.roads import LocalRoad
from dubbing.stages.context import Context, LocalLeaf
from dubbing.stages.ingest import Ingested, Sound
from dubbing.stages.preview import FROM_MS, LEAST_MS, MOST_MS, Previews
from dubbing.stages.target import Beginning
from dubbing.timing import Limits
from dubbing.types import DubRequest, Job, JobResult, Speech
from tests import browser
from tests.e2e import jobs

LINES = 92
EACH_MS = 2000
HELD_FROM = 48
"""Lines from here on wait until the gate is opened: by then three blocks of lines are spoken."""
WITHIN_S = 240.0


class Gate:
    """An engine in front of which late lines wait."""

    def __init__(self, engine: EngineClient[SpeakItem, Speech]) -> None:
        self.info, self._engine = engine.info, engine
        self.open = asyncio.Event()

    async def __call__(self, item: SpeakItem, *, lane: str) -> Speech:
        if int(item.text.split()[-2]) >= HELD_FROM:
            await self.open.wait()
        return await self._engine(item, lane=lane)


class LeafWithout(LocalLeaf):
    """Leaf work in this process, of which one stage's fails."""

    def __init__(self, stage: str) -> None:
        self.stage, self.done, self.was_asked = stage, list[str](), asyncio.Event()

    async def __call__(self, stage: str, fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        self.done.append(stage)
        if stage == self.stage:
            self.was_asked.set()
            raise MediaToolError(name="film.mp4", detail="a disk broke")
        return await super().__call__(stage, fn, *args)


@pytest.fixture(scope="module")
def film(media_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real minutes with people in them, and `film.srt` with what is said."""
    path = tmp_path_factory.mktemp("preview") / "film.mp4"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-stream_loop", "18", "-i", media_dir / "od_englishvideo.mp4"]
    subprocess.run([*command, "-c", "copy", path], check=True)
    cues = [(i * EACH_MS, i * EACH_MS + 1500, f"This is sentence {i} here.") for i in range(LINES)]
    path.with_suffix(".srt").write_text(jobs.srt(cues))
    return path


def dub(
    film: Path,
    output: Path,
    meanwhile: Callable[[Job], Awaitable[None]],
    leaf: LocalLeaf | None = None,
) -> JobResult:
    """Dub the film; `meanwhile` runs beside it, and when it ends the late lines may be spoken."""

    async def run() -> JobResult:
        request = DubRequest(
            film, ("es",), output, transcript=film.with_suffix(".srt"), engines=dict(jobs.FAKES), source_language="en"
        )
        job = dataclasses.replace(await prepare(request, config.load({}, env_file=None)), preview=True)
        with JobFolder(job.folder).lock():
            async with LocalRoad() as road:
                engines = road.engines(job)
                gate = Gate(engines.speak["es"])
                engines = dataclasses.replace(engines, speak={"es": gate})
                work = asyncio.ensure_future(pipeline.run(job, engines, leaf or LocalLeaf(), lambda progress: None))
                try:
                    await meanwhile(job)
                    gate.open.set()
                    return await work
                finally:
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)

    return asyncio.run(run())


def preview_of(job: Job) -> Path:
    return Names(job.folder).preview("es", audio_only=False)


async def there(path: Path) -> None:
    """Wait until the file is there."""

    async def look() -> None:
        while not path.exists():
            await asyncio.sleep(0.05)

    await asyncio.wait_for(look(), WITHIN_S)


def results(output: Path) -> dict[str, str]:
    """Hashes of what the user gets, except what tells the time."""
    kept = [path for path in (output / "film").iterdir() if path.suffix in (".mp4", ".mkv", ".srt", ".vtt")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


@pytest.mark.timeout(900)
def test_the_first_minutes_play_in_a_browser_before_the_job_is_done_and_the_dub_is_the_same_without_them(
    film: Path, tmp_path: Path, require_program: Any
) -> None:
    require_program("chromium", "chromium-browser")
    seen: list[browser.Playback] = []
    made: list[tuple[int, int]] = []

    async def watch(job: Job) -> None:
        await there(preview_of(job))
        seen.append(await asyncio.to_thread(browser.play, preview_of(job)))
        made.append(identity(preview_of(job)))
        raise InterruptedError  # as a worker that is killed

    async def watch_again(job: Job) -> None:
        await there(preview_of(job))
        made.append(identity(preview_of(job)))
        assert not Names(job.folder).video("es", audio_only=False).exists()

    failing = LeafWithout("preview")

    async def tried(job: Job) -> None:
        await asyncio.wait_for(failing.was_asked.wait(), WITHIN_S)

    with pytest.raises(InterruptedError):
        dub(film, tmp_path / "with", watch)
    dub(film, tmp_path / "with", watch_again)
    without = dub(film, tmp_path / "without", tried, leaf=failing)

    (playback,) = seen
    assert playback.error == "" and playback.reached_s >= 2 and playback.audio_tracks == 1
    assert playback.width > 0
    assert LEAST_MS <= playback.duration_s * 1000 <= MOST_MS + 500
    assert made[0] == made[1], "a run that goes on keeps the preview that is there"
    assert not list((tmp_path / "with").rglob("*preview*.mp4")) and not list((tmp_path / "with").rglob("*.part*"))
    assert without.state == "done"
    assert "es: no preview: " in (tmp_path / "without" / "film" / "job.log").read_text()
    assert results(tmp_path / "with") == results(tmp_path / "without")


def identity(path: Path) -> tuple[int, int]:
    """Differs for a file that was written anew."""
    return path.stat().st_ino, path.stat().st_mtime_ns


@pytest.mark.parametrize(
    ("wanted", "duration_ms", "codec", "is_dubbed", "until_ms", "begun"),
    [
        (True, FROM_MS, "h264", False, LEAST_MS, True),
        (True, FROM_MS, None, False, LEAST_MS, True),
        (False, FROM_MS, "h264", False, LEAST_MS, False),
        (True, FROM_MS - 1, "h264", False, LEAST_MS, False),
        (True, FROM_MS, "theora", False, LEAST_MS, False),
        (True, FROM_MS, "h264", True, LEAST_MS, False),
        (True, FROM_MS, "h264", False, LEAST_MS - 1, False),
    ],
)
def test_only_long_dubs_that_nobody_can_see_yet_get_a_preview(
    tmp_path: Path, wanted: bool, duration_ms: int, codec: str | None, is_dubbed: bool, until_ms: int, begun: bool
) -> None:
    names, leaf = Names(tmp_path), LeafWithout("preview")
    if is_dubbed:
        names.video("es", codec is None).touch()
    request = SimpleNamespace(audio_track=1, keep_background=False, source=tmp_path / "film.mp4")
    facts = {"source_id": "x", "loudness_lufs": -16.0, "true_peak_dbtp": -1.5, "max_duration_min": 9}
    job: Any = SimpleNamespace(preview=wanted, targets=("es",), request=request, **facts)
    context = Context(job, JobFolder(tmp_path), Engines(), leaf, lambda progress: None, logging.getLogger("test"))
    info: Any = SimpleNamespace(video=codec and SimpleNamespace(codec=codec))

    async def sound() -> Sound:
        return Sound(duration_ms, -20.0, [])

    async def scenario() -> None:
        source = Ingested(info, 0, duration_ms, tmp_path / "bed.wav", None, asyncio.ensure_future(sound()))
        target: Any = SimpleNamespace(tag="es", limits=Limits(), beginning=lambda: Beginning([], [], until_ms))
        previews = Previews(context, source)
        previews.look(target)
        previews.look(target)
        if begun:
            await asyncio.wait_for(leaf.was_asked.wait(), WITHIN_S)
        await previews.stop()

    asyncio.run(scenario())

    assert leaf.done == ["preview"] * begun
