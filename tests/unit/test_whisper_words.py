"""From tokens and alignment to segments of words."""

from __future__ import annotations

from typing import Any

from dubbing.engines.hallucination import Decoding
from dubbing.engines.whisper_words import Judged, Piece, segments, split

STAMPS, TEXT = 1000, 900
SURE = Decoding("We are here.", -0.1, 0.0)


def stamp(seconds: float) -> int:
    return STAMPS + round(seconds * 50)


def cut(*tokens: int, length_ms: int = 10_000) -> list[Piece]:
    return split(tokens, timestamps_from=STAMPS, text_below=TEXT, length_ms=length_ms)


def word(text: str, start: float, end: float, tokens: int = 1, probability: float = 0.9) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end, "tokens": [7] * tokens, "probability": probability}


def timed(
    pieces: list[Piece],
    *words: dict[str, Any],
    spans: tuple[tuple[int, int], ...] = ((0, 10_000),),
    decoding: Decoding = SURE,
    offset_ms: int = 0,
) -> list[Judged]:
    return segments(pieces, words, decoding, spans=spans, length_ms=10_000, offset_ms=offset_ms)


def test_timestamps_part_the_text() -> None:
    assert cut(stamp(0), 1, 2, stamp(1), stamp(1.4), 3, stamp(2)) == [Piece(0, 1000, (1, 2)), Piece(1400, 2000, (3,))]


def test_text_without_timestamps_fills_the_audio_and_an_open_end_is_its_end() -> None:
    assert cut(1, 2) == [Piece(0, 10_000, (1, 2))]
    assert cut(stamp(0), 1, stamp(1), stamp(1), 2) == [Piece(0, 1000, (1,)), Piece(1000, 10_000, (2,))]


def test_timestamps_alone_and_special_tokens_are_no_text() -> None:
    assert cut(stamp(0), stamp(3)) == cut(950, 951) == cut() == []


def test_a_timestamp_after_the_audio_is_its_end() -> None:
    assert cut(stamp(0), 1, stamp(28)) == [Piece(0, 10_000, (1,))]


def test_words_go_to_the_piece_in_which_they_begin_and_times_count_from_the_job() -> None:
    pieces = [Piece(0, 1000, (1, 2)), Piece(1400, 2000, (3, 4))]
    first, second = timed(
        pieces, word(" We", 0.1, 0.4), word(" are", 0.4, 0.9), word(" here.", 1.5, 1.9, tokens=2), offset_ms=60_000
    )
    assert (first.segment.text, second.segment.text) == ("We are", "here.")
    assert [(w.text, w.start_ms, w.end_ms) for w in first.segment.words] == [
        ("We", 60_100, 60_400),
        ("are", 60_400, 60_900),
    ]
    assert (second.segment.start_ms, second.segment.end_ms, second.segment.confidence) == (61_500, 61_900, 0.9)


def test_words_without_spaces_stay_without_spaces() -> None:
    [judged] = timed([Piece(0, 1000, (1, 2))], word("你好", 0.1, 0.4), word("世界。", 0.4, 0.9))
    assert judged.segment.text == "你好世界。"


def test_silence_is_taken_out_of_words_and_every_word_gets_some_time() -> None:
    pieces = [Piece(0, 4000, (1, 2, 3))]
    [judged] = timed(
        pieces, word(" We", 0.0, 2.2), word(" are", 2.2, 2.2), word(" here.", 2.2, 4.0), spans=((2000, 2500),)
    )
    times = [(w.start_ms, w.end_ms) for w in judged.segment.words]
    assert times == [(2000, 2200), (2200, 2220), (2200, 2500)]


def test_a_segment_where_nobody_speaks_is_dropped_and_its_neighbour_kept() -> None:
    pieces = [Piece(0, 1000, (1,)), Piece(5000, 7000, (2,))]
    kept, dropped = timed(pieces, word(" We", 0.1, 0.9), word(" Thanks.", 5.0, 6.9), spans=((0, 1000),))
    assert (kept.verdict.action, dropped.verdict.action) == ("keep", "drop")
    assert dropped.segment.words == ()


def test_doubtful_words_are_kept_with_little_confidence() -> None:
    [judged] = timed([Piece(0, 1000, (1,))], word(" We", 0.1, 0.9), decoding=Decoding("We", -1.2, 0.1))
    assert judged.verdict.action == "doubt"
    assert judged.segment.confidence == judged.segment.words[0].confidence == 0.3


def test_a_phrase_that_goes_on_over_segments_is_said_once_and_doubted() -> None:
    pieces = [Piece(i * 1000, i * 1000 + 1000, (1, 2)) for i in range(6)]
    words = [w for i in range(6) for w in (word(" Thank", i, i + 0.4), word(" you.", i + 0.4, i + 0.9))]
    [judged] = timed(pieces, *words, decoding=Decoding(" Thank you." * 6, -0.1, 0.0))
    assert (judged.segment.text, judged.verdict.action) == ("Thank you.", "doubt")
