"""A process of its own around one decoder: pocketsphinx keeps the interpreter lock, so threads would not use two cores.

Protocol on standard input: a JSON line `{"bytes": n, "text": words or null, "whole": bool}`, then n bytes of mono
16 kHz 16-bit audio. Answer on standard output: a JSON list of `[word, start_ms, end_ms, posterior]`. It ends with its
input.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from dubbing.engines.pronounce import letter_to_sound

FRAME_MS = 10


def main(mode: str, options: dict[str, Any]) -> None:
    """Serve one decoder until the input ends. `mode` is `transcribe` or `align`; options go to the decoder."""
    from pocketsphinx import Decoder  # noqa: PLC0415 - the parent imports this module, and never needs it

    if mode == "align":
        options["lm"] = None
    decoder = Decoder(loglevel="FATAL", cmn="batch", **options)
    into, out = sys.stdin.buffer, sys.stdout.buffer
    while header := into.readline():
        request = json.loads(header)
        audio = into.read(request["bytes"])
        # Fresh acoustic state: the decoder's scores otherwise depend on what it heard before, and no line could be made
        # again byte for byte.
        decoder.reinit_feat()
        if request["text"] is not None:
            _teach(decoder, request["text"])
            decoder.set_align_text(request["text"])
        words = _decode(decoder, audio, whole=request["whole"])
        out.write(json.dumps(words).encode() + b"\n")
        out.flush()


def _teach(decoder: Any, text: str) -> None:
    for word in set(text.split()):
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, " ".join(letter_to_sound(word)), False)


def _decode(decoder: Any, audio: bytes, *, whole: bool) -> list[tuple[str, int, int, float]]:
    """Words of an utterance; if it is not whole, the text goes on after the audio and the last words are guesses."""
    decoder.start_utt()
    decoder.process_raw(audio, full_utt=True)
    partial = [] if whole else _words(decoder)
    decoder.end_utt()
    return _words(decoder) if whole else partial


def _words(decoder: Any) -> list[tuple[str, int, int, float]]:
    if decoder.hyp() is None:
        return []
    found = []
    for segment in decoder.seg() or ():
        if segment.word[0] not in "<[+":
            word = segment.word.split("(", maxsplit=1)[0]
            found.append((word, segment.start_frame * FRAME_MS, (segment.end_frame + 1) * FRAME_MS, segment.prob))
    return found
