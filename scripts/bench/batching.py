"""What batches across jobs bring, on real replicas, coordinators and the real pipeline, with engines of a known cost.

    python scripts/bench/batching.py [--short] [--json FILE]

The engines are doubles whose batch of n lines costs a + b * n, really slept: the figures do not depend on a model, and
little on the cores. Every figure is a ratio within one run, or a count.

    overhead      eight jobs of lines through coordinators, Serve and replica, against the same lines in the bare batcher
    mean batch    of four jobs at once, as a part of the largest
    together      eight whole jobs (video in, dubbed video out) at once, against one after the other
    behind        a job of 4 lines while one of 1,000 lines is being spoken, against the same job alone
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.fake_nodes import FakeCluster  # noqa: E402 - the tree of this script comes first, installed or not

JOBS = 8
WINDOW = 32
"""Lines a job has in flight, as in the stages."""
TRANSLATE = {"base_ms": 240, "item_ms": 10, "max_batch": 16}
"""0.25 s for one line, 0.4 s for 16."""
SPEAK = {"base_ms": 1000, "item_ms": 20, "max_batch": 16}
"""1.02 s for one line, 1.32 s for 16: a decoder's steps cost about the same whatever the size of the batch."""
FAKES = {"translate": "fake-translate", "speak": "fake-speak"}
FILM_LINES, CLIP_LINES = 1000, 4
CUE_MS = 1000
PAIRS, ENOUGH = 3, 0.6
"""The whole jobs run one by one and at once at most so often, and not again after a ratio as good as that."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    lines: int
    """Of each of the jobs that only translate."""
    alone: int
    """How often the clip runs alone."""
    behind: int
    """How often it runs behind the film; each run meets the film's batches at another moment."""


FULL, SHORT = Size(64, 5, 10), Size(32, 2, 4)


def items(job: str, lines: int) -> list[Any]:
    """Lines to translate."""
    from dubbing.engines.base import TranslateItem  # noqa: PLC0415

    return [TranslateItem(f"Line {n} of {job}.", "en", "es") for n in range(lines)]


async def only_translate(job: Any, engines: Any, leaf: Any, report: Callable[[Any], None]) -> tuple[float, float]:
    """The pipeline of the jobs that only translate: begins when all have begun; (start, end) on the machine's clock."""
    from dubbing import pipeline  # noqa: F401, PLC0415 - so that later jobs find it imported, as on a server that is warm
    from dubbing.stages.context import in_order  # noqa: PLC0415

    lines, translate = items(job.id, job.lines), engines.translate["es"]
    (job.meeting / job.id).touch()
    while len(list(job.meeting.iterdir())) < job.together:  # noqa: ASYNC110 - they are in other processes
        await asyncio.sleep(0.01)
    start = time.monotonic()
    await in_order(lambda item: translate(item, lane=job.id), lines, WINDOW)
    return start, time.monotonic()


async def bare(jobs: int, lines: int) -> float:
    """Seconds of the same lines in the batcher alone, in this process."""
    from dubbing.engines import registry  # noqa: PLC0415
    from dubbing.engines.batching import MicroBatcher  # noqa: PLC0415
    from dubbing.stages.context import in_order  # noqa: PLC0415

    engine = registry.spec("fake-translate").load(TRANSLATE)
    batcher: MicroBatcher[Any, Any] = MicroBatcher(
        engine.run, max_size=engine.info.max_batch, bucket=engine.bucket, name="bare"
    )

    async def one(name: str) -> None:
        await in_order(lambda item: batcher(item, lane=name), items(name, lines), WINDOW)

    start = time.monotonic()
    await asyncio.gather(*(one(f"job {n}") for n in range(jobs)))
    took = time.monotonic() - start
    await batcher.aclose()
    return took


class Bench:
    """The measurements, on a Ray with the engines on it."""

    def __init__(self, fake: FakeCluster, size: Size) -> None:
        self._fake, self._size = fake, size
        self._folder = fake.folder / "media"
        self._folder.mkdir()

    async def run(self) -> dict[str, Any]:
        """All figures."""
        found: dict[str, Any] = {}
        async with self._road("scripts.bench.batching:only_translate") as road:
            # Eight at first: the workers that start for them serve everything that follows.
            found |= await self._overhead(road)
            found |= await self._four(road)
        async with self._road("dubbing.pipeline:run") as road:
            found |= await self._together(road)
            found |= await self._behind(road)
        return found

    def _road(self, entry: str) -> Any:
        from cluster.road import RayRoad  # noqa: PLC0415
        from dubbing.config import Settings  # noqa: PLC0415

        deployments = [
            {
                "name": name,
                "max_ongoing_requests": 512,
                "ray_actor_options": {"num_cpus": 0.1},
                "user_config": {"linger_s": 0.02},
            }
            for name in ("Translator", "Speaker")
        ]
        engines = {"translate": {"fake-translate": TRANSLATE}, "speak": {"fake-speak": SPEAK}}
        app = {"name": "engines", "route_prefix": None, "import_path": "cluster.app:build"}
        app |= {"args": {"engines": engines}, "deployments": deployments}
        path = self._fake.folder / "serve.yaml"
        path.write_text(json.dumps({"proxy_location": "Disabled", "applications": [app]}))  # JSON is YAML
        settings = Settings(ray_address=self._fake.address, serve_config=path)
        return RayRoad(settings, log_dir=self._fake.folder / "kept", engine_args={}, entry=entry)

    async def _overhead(self, road: Any) -> dict[str, Any]:
        alone = await bare(JOBS, self._size.lines)
        before = await stats("Translator")
        spans = await self._translate(road, JOBS, "eight")
        after = await stats("Translator")
        served = max(end for _, end in spans) - min(start for start, _ in spans)
        say(f"{JOBS} jobs of {self._size.lines} lines: bare {alone:.2f} s, served {served:.2f} s")
        return {
            "bare_s": alone,
            "served_s": served,
            "overhead": served / alone - 1,
            "batches_of_eight": after.batches - before.batches,
        }

    async def _four(self, road: Any) -> dict[str, Any]:
        before = await stats("Translator")
        await self._translate(road, 4, "four")
        after = await stats("Translator")
        mean = (after.items - before.items) / (after.batches - before.batches)
        say(f"4 jobs of {self._size.lines} lines: mean batch {mean:.1f} of {TRANSLATE['max_batch']}")
        return {"mean_batch": mean, "fill": mean / TRANSLATE["max_batch"]}

    async def _translate(self, road: Any, jobs: int, name: str) -> list[tuple[float, float]]:
        meeting = self._folder / name
        meeting.mkdir()
        chosen = {"translate": FAKES["translate"]}
        work = [
            SimpleNamespace(
                id=f"{name}-{n}",
                engines=chosen,
                targets=("es",),
                lines=self._size.lines,
                meeting=meeting,
                together=jobs,
            )
            for n in range(jobs)
        ]
        return await asyncio.gather(*(road.run_job(job, lambda progress: None) for job in work))

    async def _together(self, road: Any) -> dict[str, Any]:
        videos = [self._video(f"clip{n}", CLIP_LINES, tone=300 + 20 * n) for n in range(JOBS + 1)]
        # The first whole job pays for what is imported late, on either side of the comparison.
        await self._dub(road, videos.pop(), "warm")
        pairs: list[dict[str, Any]] = []
        # Media work needs cores, and other programs can only take them away: the least of a few pairs is nearest the truth.
        while len(pairs) < PAIRS and not any(pair["together"] <= ENOUGH for pair in pairs):
            pairs.append(await self._pair(road, videos, len(pairs)))
        return {**min(pairs, key=lambda pair: pair["together"]), "pairs": len(pairs)}

    async def _pair(self, road: Any, videos: Sequence[Path], number: int) -> dict[str, Any]:
        before = await stats("Speaker")
        serial = await clocked(self._one_by_one(road, videos, f"serial{number}"))
        between = await stats("Speaker")
        at_once = await clocked(asyncio.gather(*(self._dub(road, video, f"at-once{number}") for video in videos)))
        after = await stats("Speaker")
        say(f"{JOBS} whole jobs of {CLIP_LINES} lines: one by one {serial:.1f} s, at once {at_once:.1f} s")
        return {
            "serial_s": serial,
            "at_once_s": at_once,
            "together": at_once / serial,
            "speak_batches": [between.batches - before.batches, after.batches - between.batches],
        }

    async def _one_by_one(self, road: Any, videos: Sequence[Path], run: str) -> None:
        for video in videos:
            await self._dub(road, video, run)

    async def _behind(self, road: Any) -> dict[str, Any]:
        clip = self._video("clip", CLIP_LINES, tone=700)
        film = self._video("film", FILM_LINES, tone=800)
        alone = [await clocked(self._dub(road, clip, f"alone{n}")) for n in range(self._size.alone)]
        spoken = asyncio.Event()

        def watch(progress: Any) -> None:
            if progress.stage.value == "speak" and progress.done:
                spoken.set()

        running = asyncio.ensure_future(self._dub(road, film, "film", watch))
        watching = asyncio.ensure_future(spoken.wait())
        await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
        behind = [await clocked(self._dub(road, clip, f"behind{n}")) for n in range(self._size.behind)]
        assert not running.done(), "the film should still be spoken"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        say(f"a clip of {CLIP_LINES} lines: alone {rounded(alone)} s, behind a film {rounded(behind)} s")
        ratio = statistics.fmean(behind) / statistics.fmean(alone)
        return {"alone_s": alone, "behind_s": behind, "behind": ratio}

    async def _dub(self, road: Any, video: Path, run: str, report: Callable[[Any], None] = lambda p: None) -> None:
        """Everything from the file to the dub, in an output folder of this run."""
        from dubbing.artifacts import JobFolder  # noqa: PLC0415
        from dubbing.config import Settings  # noqa: PLC0415
        from dubbing.prepare import prepare  # noqa: PLC0415
        from dubbing.types import DubRequest  # noqa: PLC0415

        output = self._folder / run
        request = DubRequest(video, ("es",), output, transcript=video.with_suffix(".srt"), engines=FAKES)
        job = await prepare(request, Settings(output_dir=output))
        with JobFolder(job.folder).lock():
            result = await road.run_job(job, report)
        assert result.state == "done", f"{result.state}: {result.warnings}"

    def _video(self, name: str, lines: int, *, tone: int) -> Path:
        """A small video with a hum of its own, and a transcript of so many lines beside it."""
        path = self._folder / f"{name}.mp4"
        length = str(lines * CUE_MS / 1000 + 1)
        sources = [
            f"testsrc=size=64x36:rate=2:duration={length}",
            f"sine=frequency={tone}:sample_rate=16000:duration={length}",
        ]
        inputs = [word for source in sources for word in ("-f", "lavfi", "-i", source)]
        encode = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *inputs, *encode, path], check=True)
        cues = [f"{n + 1}\n{stamp(n * CUE_MS)} --> {stamp((n + 1) * CUE_MS - 300)}\nLine {n}.\n" for n in range(lines)]
        path.with_suffix(".srt").write_text("\n".join(cues))
        return path


async def stats(deployment: str) -> Any:
    """What the batcher of a deployment's only replica has done so far."""
    from ray import serve  # noqa: PLC0415

    return await serve.get_deployment_handle(deployment, "engines").stats.remote()


async def clocked(work: Awaitable[Any]) -> float:
    """Seconds it took."""
    start = time.monotonic()
    await work
    return time.monotonic() - start


def stamp(ms: int) -> str:
    """As in SRT."""
    return f"{ms // 3600000:02}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"


def rounded(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="fewer lines, as the test does")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an end by `finally`, which leaves nothing running
    # Room for what the jobs and replicas hold, and for two leaf tasks. The workers of all of them are kept: a warm server.
    fake = FakeCluster({"CPU": 4, "job_slot": JOBS + 1}, {}, workers=24)
    try:
        fake.start()
        found = asyncio.run(Bench(fake, SHORT if arguments.short else FULL).run())
    finally:
        fake.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps(found))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
