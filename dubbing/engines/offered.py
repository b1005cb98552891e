"""Every voice of some engines in every language they speak, found out without loading any of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import replace

from dubbing.engines import registry
from dubbing.errors import DubbingError
from dubbing.languages import COMMON, native_name
from dubbing.types import Voice

SAMPLES = {
    "ca": "Bon dia. Així sona aquesta veu.",
    "de": "Guten Tag. So klingt diese Stimme.",
    "en": "Good morning. This is how the voice sounds.",
    "es": "Buenos días. Así suena esta voz.",
    "fr": "Bonjour. Voici comment sonne cette voix.",
    "it": "Buongiorno. Ecco come suona questa voce.",
    "nl": "Goedemorgen. Zo klinkt deze stem.",
    "pt": "Bom dia. É assim que soa esta voz.",
}
"""What a voice says of itself; by primary language."""
log = logging.getLogger(__name__)


def voices(engines: Collection[str]) -> Iterator[Voice]:
    """The voices of the speaking engines of these names; what an engine cannot tell is logged and left out."""
    for name in sorted(engines):
        try:
            spec = registry.spec(name)
            offered = spec.languages()
            regions = [tag for tag in COMMON if "-" in tag and offered.can(tag, tag)]
            languages = sorted({*offered.sources, *regions, *(COMMON if offered.any else ())})
        except DubbingError as error:
            log.warning("%s. %s", error.message, error.advice)
            continue
        for language in languages:
            try:
                # a voice of all languages is one of each
                yield from (replace(voice, language=language) for voice in spec.voices(language))
            except DubbingError as error:
                log.warning("%s: %s", name, error.message)


def sample_text(language: str) -> str:
    """Something to say in a language: a sentence, or its name and some numbers, which every engine can read."""
    primary = language.split("-", maxsplit=1)[0].lower()
    return SAMPLES.get(primary, f"{native_name(primary)}. 1, 2, 3, 4, 5, 6, 7.")
