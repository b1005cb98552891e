"""Engines that misbehave, as a third-party plug-in, and small pipelines. Imported by Ray's workers too."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.deployments import EngineReplica
from dubbing.engines import fake
from dubbing.engines.base import EngineSpec, TranslateItem, Translation
from dubbing.errors import EngineBrokenError, NoSpeechError, ProgramMissingError
from dubbing.types import Progress, Stage

PLUGINS = (
    "costly-translate",
    "deadly-translate",
    "brittle-translate",
    "slow-translate",
    "programless-speak",
    "crooked-speak",
)


class _Named(fake.FakeTranslate):
    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__("translate", options)
        self.info = dataclasses.replace(self.info, name=name)


class _Deadly(_Named):
    def run(self, items: Sequence[TranslateItem]) -> list[Translation]:
        if any("die" in item.text for item in items):
            os._exit(1)
        return super().run(items)


class _Brittle(_Named):
    def run(self, items: Sequence[TranslateItem]) -> list[Translation]:
        if any("break" in item.text for item in items):
            raise EngineBrokenError(name=self.info.name, detail="its program does not start again")
        return super().run(items)


def _programless(options: Mapping[str, Any]) -> Any:
    raise ProgramMissingError(program="espeak-ng", install="apt-get install espeak-ng")


def _crooked(options: Mapping[str, Any]) -> Any:
    raise ZeroDivisionError("a defect in the engine's loading code")


def _slow(options: Mapping[str, Any]) -> Any:
    """Loads for as long as there is no file `gate`."""
    while not Path(options["gate"]).exists():
        time.sleep(0.05)
    return _Named("slow-translate", options)


def _spec(name: str, base: EngineSpec, load: Callable[[Mapping[str, Any]], Any]) -> EngineSpec:
    return dataclasses.replace(base, name=name, load=load)


COSTLY = _spec("costly-translate", fake.TRANSLATE, lambda options: _Named("costly-translate", options))
DEADLY = _spec("deadly-translate", fake.TRANSLATE, lambda options: _Deadly("deadly-translate", options))
BRITTLE = _spec("brittle-translate", fake.TRANSLATE, lambda options: _Brittle("brittle-translate", options))
SLOW = _spec("slow-translate", fake.TRANSLATE, _slow)
PROGRAMLESS = _spec("programless-speak", fake.SPEAK, _programless)
CROOKED = _spec("crooked-speak", fake.SPEAK, _crooked)


class SpoilableReplica(EngineReplica):
    """A replica of a translator of CTranslate2 whose loaded model can be broken."""

    def pid(self) -> int:
        return os.getpid()

    def spoil(self, folder: str) -> None:
        """The model goes on with the weights in another folder."""
        import ctranslate2  # noqa: PLC0415 - only in the one replica that uses it

        engine: Any = self._engine
        engine._model._translator = ctranslate2.Translator(folder)


@dataclass(frozen=True)
class SmallJob:
    id: str
    engines: Mapping[str, str]
    targets: tuple[str, ...] = ("es",)
    folder: Path = Path()
    texts: tuple[str, ...] = ()


def english(text: str) -> TranslateItem:
    return TranslateItem(text, "en", "es")


async def translate_all(job: SmallJob, engines: Any, leaf: Any, report: Callable[[Progress], None]) -> list[str]:
    done: list[str] = []

    async def one(text: str) -> str:
        answer = await engines.translate["es"](english(text), lane=job.id)
        done.append(text)
        report(Progress(Stage.TRANSLATE, "es", len(done), len(job.texts)))
        return str(answer.text)

    return await asyncio.gather(*map(one, job.texts))


async def encode(job: SmallJob, engines: Any, leaf: Any, report: Callable[[Progress], None]) -> int:
    report(Progress(Stage.MIX, "es", os.getpid(), 100))
    return int(await leaf("mix", ffmpeg_forever, job.folder))


async def find_no_speech(job: SmallJob, engines: Any, leaf: Any, report: Callable[[Progress], None]) -> None:
    raise NoSpeechError(name="film.mp4")


async def find_no_speech_in_a_leaf(job: SmallJob, engines: Any, leaf: Any, report: Callable[[Progress], None]) -> None:
    await leaf("ingest", _silent, "film.mp4")


async def _silent(name: str) -> None:
    raise NoSpeechError(name=name)


async def ffmpeg_forever(folder: Path) -> int:
    """Encode an endless picture; `pids` gets a line `worker ffmpeg` at each start, `tidy` one at each orderly end."""
    program = await asyncio.create_subprocess_exec(
        *(
            "ffmpeg",
            "-nostdin",
            "-v",
            "error",
            "-re",
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=64x64:rate=5",
            "-f",
            "null",
            "-",
        )
    )
    with (folder / "pids").open("a") as pids:
        pids.write(f"{os.getpid()} {program.pid}\n")
    try:
        return await program.wait()
    finally:
        program.terminate()
        await program.wait()
        with (folder / "tidy").open("a") as tidy:
            tidy.write("ended\n")
