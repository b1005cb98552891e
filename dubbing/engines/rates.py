"""How fast the draft voices speak: characters per second at rate 1.0, by language, for the timing plan.

Method: `scripts/bench/speaking_rate.py` speaks four or five everyday sentences of each language with espeak-ng 1.51 at
its natural 175 words per minute (variant klatt), trims the silence at both ends, and divides all characters by all
seconds. Characters are counted as they are written, spaces and punctuation included. A voice's own median, measured
while a job runs, replaces the figure after a few lines.
"""

from __future__ import annotations

ESPEAK = {
    "ar": 11.4,
    "ca": 18.3,
    "de": 19.4,
    "en": 18.9,
    "es": 18.7,
    "fr": 23.2,
    "hi": 15.8,
    "it": 18.3,
    "ja": 8.2,
    "ko": 7.2,
    "nl": 18.4,
    "pl": 16.7,
    "pt": 17.6,
    "ro": 16.8,
    "ru": 19.3,
    "tr": 14.9,
    "zh": 3.0,
}
"""Primary language -> characters per second at rate 1.0. Japanese was measured in kana."""
ELSEWHERE = 18.3
"""The median of the alphabets above, for languages that were not measured."""


def espeak_characters_per_second(language: str) -> float:
    """Characters per second of espeak-ng in a language (BCP-47 tag) at rate 1.0."""
    return ESPEAK.get(language.replace("_", "-").split("-", maxsplit=1)[0].lower(), ELSEWHERE)
