"""How fast the draft voices speak: units of text (timing.units) a second at rate 1.0, by language, for the timing plan.

Method: `scripts/bench/speaking_rate.py` speaks a few everyday sentences of each language with espeak-ng 1.51 at its natural
175 words per minute (variant klatt), trims the silence at both ends, and divides all units by all seconds. A voice's own
median, measured while a job runs, replaces the figure after a few lines.
"""

from __future__ import annotations

ESPEAK = {
    "ar": 13.5,
    "ca": 16.5,
    "de": 17.6,
    "en": 16.9,
    "es": 16.9,
    "fr": 21.4,
    "hi": 10.9,
    "it": 16.8,
    "ja": 17.0,
    "ko": 12.5,
    "nl": 16.6,
    "pl": 15.3,
    "pt": 15.9,
    "ro": 15.2,
    "ru": 17.7,
    "tr": 13.9,
    "zh": 8.7,
}
"""Primary language -> units per second at rate 1.0."""
ELSEWHERE = 16.7
"""The median of the alphabets above, for languages that were not measured."""


def units_per_second(language: str) -> float:
    """Units per second of a draft voice in a language (BCP-47 tag) at rate 1.0."""
    return ESPEAK.get(language.replace("_", "-").split("-", maxsplit=1)[0].lower(), ELSEWHERE)
