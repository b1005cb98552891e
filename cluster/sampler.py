"""What voices there are, written down for the pages, and the samples that they ask for, spoken by the engines of the jobs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from cluster.clients import open_engines
from dubbing import voicebook
from dubbing.engines import offered
from dubbing.engines.base import SpeakItem
from dubbing.errors import DubbingError
from dubbing.media import wav
from dubbing.types import Voice

log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0
END_S = 5.0
LANE = "samples"
"""Lines of jobs and samples take turns in a batch."""


class Sampler:
    """Speaks what is wished for in a thread of its own, until `close`. A disk or an engine that fails stops no job."""

    def __init__(self, state: Path, engines: Sequence[str]) -> None:
        """`state`: the state folder; `engines`: names of the speaking engines that are deployed."""
        self._state, self._engines = state, engines
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Speak nothing more."""
        self._stopping.set()
        self._thread.join(END_S)

    def _keep(self) -> None:
        try:
            voicebook.write(self._state, offered.voices(self._engines))
        except OSError as error:
            log.warning("The voices could not be written down: %s", error)
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                for voice in voicebook.wishes(self._state):
                    voicebook.grant(self._state, voice, self._sample(voice))
            except OSError as error:
                log.warning("A sample could not be kept: %s", error)

    def _sample(self, voice: Voice) -> bytes | None:
        """A WAV file; None when the engine cannot speak it."""
        try:
            return asyncio.run(_spoken(voice))
        except (DubbingError, RayError, RayServeException) as error:
            log.warning("No sample of %s: %s", voice.id, error)
            return None


async def _spoken(voice: Voice) -> bytes:
    engines = await open_engines({"speak": voice.engine}, [voice.language])
    item = SpeakItem(offered.sample_text(voice.language), voice.language, voice.id)
    speech = await engines.speak[voice.language](item, lane=LANE)
    sound = speech.audio.tobytes()
    return wav.header(len(sound), 1, speech.sample_rate) + sound
