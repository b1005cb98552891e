"""Subtitles in and out."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubbing.errors import FileMissingError, SubtitleError
from dubbing.subtitles import (
    LINE_CHARS,
    MAX_BYTES,
    MAX_CUES,
    detect,
    parse_subtitles,
    read_subtitles,
    to_ass,
    to_srt,
    to_vtt,
    wrap,
)
from dubbing.types import Segment

SRT = (
    "1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Hello</i>\r\nworld\r\n\r\n"
    "2\r\n00:00:03,000 --> 00:00:04,000\r\n{\\an8}Bye\r\n"
)
VTT = """WEBVTT - made by hand

STYLE
::cue { color: red }

NOTE
00:00:09.000 --> 00:00:10.000 is only a note?

intro
00:01.000 --> 00:02.500 align:start line:0
<v.loud Esme>Hello &amp; <00:00:01.500>welcome</v>

00:00:03.000 --> 00:00:04.000
Bye
"""
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname
Style: Default,Sans

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:02.50,Default,Anna,0,0,0,,{\\i1}Hello,{\\i0}\\Nworld
Comment: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,not spoken
Dialogue: 0,0:00:02.60,0:00:02.90,Default,,0,0,0,,{\\p1}m 0 0 l 100 0
Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,Bye
"""


def times(cues: tuple[Segment, ...]) -> list[tuple[int, int]]:
    return [(cue.start_ms, cue.end_ms) for cue in cues]


def test_srt_is_read_with_its_tags_taken_off():
    cues = parse_subtitles(SRT.encode())
    assert [cue.text for cue in cues] == ["Hello world", "Bye"]
    assert times(cues) == [(1000, 2500), (3000, 4000)]


def test_webvtt_is_read_with_voices_and_without_notes_and_styles():
    cues = parse_subtitles(VTT.encode())
    assert [(cue.speaker, cue.text) for cue in cues] == [("Esme", "Hello & welcome"), (None, "Bye")]
    assert times(cues) == [(1000, 2500), (3000, 4000)]


def test_ass_is_read_with_names_and_without_comments_and_drawings():
    cues = parse_subtitles(ASS.encode())
    assert [(cue.speaker, cue.text) for cue in cues] == [("Anna", "Hello, world"), (None, "Bye")]
    assert times(cues) == [(1000, 2500), (3000, 4000)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_the_usual_encodings_are_understood(encoding: str):
    text = "1\n00:00:01,000 --> 00:00:02,000\n¿Qué tal, señor?\n"
    assert parse_subtitles(text.encode(encoding))[0].text == "¿Qué tal, señor?"


@pytest.mark.parametrize(
    ("line", "speaker", "text"),
    [
        ("ANNA: Come here", "ANNA", "Come here"),
        ("- DR. O'NEIL: Yes", "DR. O'NEIL", "Yes"),
        ("JOSÉ MARÍA: Sí", "JOSÉ MARÍA", "Sí"),
        ("Note: this is said", None, "Note: this is said"),
        ("At 10:30 we go", None, "At 10:30 we go"),
        ("A: b", None, "A: b"),
    ],
)
def test_a_label_in_capitals_is_the_speaker(line: str, speaker: str | None, text: str):
    cue = parse_subtitles(f"1\n00:00:01,000 --> 00:00:02,000\n{line}\n".encode())[0]
    assert (cue.speaker, cue.text) == (speaker, text)


def srt_of(*cues: tuple[str, str]) -> bytes:
    return "\n\n".join(f"{i}\n{timing}\n{text}" for i, (timing, text) in enumerate(cues, 1)).encode()


def test_cues_out_of_order_are_put_in_order_and_overlaps_are_cut():
    cues = parse_subtitles(
        srt_of(("00:00:05,000 --> 00:00:06,000", "second"), ("00:00:01,000 --> 00:00:05,500", "first"))
    )
    assert times(cues) == [(1000, 5000), (5000, 6000)]


def test_cues_said_at_once_share_their_time_by_length():
    cues = parse_subtitles(srt_of(("00:00:01,000 --> 00:00:03,000", "abcd"), ("00:00:01,000 --> 00:00:03,000", "efgh")))
    assert times(cues) == [(1000, 2000), (2000, 3000)]


@pytest.mark.parametrize("end", ["00:00:01,000", "00:00:00,200"])
def test_a_cue_without_length_gets_one(end: str):
    cue = parse_subtitles(srt_of((f"00:00:01,000 --> {end}", "x" * 50)))[0]
    assert cue.end_ms - cue.start_ms == 3000


def test_text_that_is_a_number_stays_and_empty_cues_go():
    cues = parse_subtitles(b"1\n00:00:01,000 --> 00:00:02,000\n1984\n\n2\n00:00:02,000 --> 00:00:03,000\n<i></i>\n")
    assert [cue.text for cue in cues] == ["1984"]


def test_missing_numbers_and_missing_blank_lines_are_forgiven():
    cues = parse_subtitles(b"00:01,0 --> 00:02,0\none\n00:03,0 --> 00:04,0\ntwo\n\n\nand more\n")
    assert [cue.text for cue in cues] == ["one", "two and more"]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "neither"),
        (b"just words\n", "neither"),
        (b"\x00\x01\x02", "text"),
        (b"a" * (MAX_BYTES + 1), "2 MiB"),
        (b"1\n00:00:01,000 --> 00:00:02,000\n \n", "no cues"),
        (srt_of(("00:00:01,000 --> 00:00:02,000", "x" * 1001)), "longer than"),
        (srt_of(("99:00:01,000 --> 99:00:02,000", "late")), "24 hours"),
        (srt_of(*[("00:00:01,000 --> 00:00:02,000", "same time")] * 200), "too many cues at"),
        (b"WEBVTT\n", "no cues"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(data: bytes, word: str):
    with pytest.raises(SubtitleError) as caught:
        parse_subtitles(data, "mine.srt")
    assert word in caught.value.message
    assert "mine.srt" in caught.value.message


def test_too_many_cues_are_refused():
    one = "{h}:{m}:{s},0 --> {h}:{m}:{s},9\nx\n"
    lines = (one.format(h=i // 3600, m=i // 60 % 60, s=i % 60) for i in range(MAX_CUES + 1))
    with pytest.raises(SubtitleError, match=str(MAX_CUES)):
        parse_subtitles("".join(lines).encode())


def test_a_missing_file_is_a_missing_file(tmp_path: Path):
    with pytest.raises(FileMissingError):
        read_subtitles(tmp_path / "no.srt")


def test_a_file_is_read(tmp_path: Path):
    (tmp_path / "a.srt").write_text(SRT, "utf-8")
    assert len(read_subtitles(tmp_path / "a.srt")) == 2


def test_formats_are_told_by_content():
    assert [detect(text) for text in (SRT, VTT, ASS, "words")] == ["srt", "vtt", "ass", None]


def test_hostile_patterns_take_no_time():
    for text in ("{" * 900_000, "<" * 900_000, "<v " * 300_000, "A" * 900_000 + ":", "-->" * 300_000, "0:" * 450_000):
        with pytest.raises(SubtitleError):
            parse_subtitles(b"1\n00:00:01,000 --> 00:00:02,000\n" + text.encode())


@pytest.mark.parametrize("write", [to_srt, to_vtt, to_ass])
def test_text_cannot_break_out_of_its_cue(write):
    text = "a --> b <script>{\\p1} & \\N\n\n2\n00:00:05,000 --> 00:00:06,000\nDialogue: 0,0:00:01.00"
    cues = parse_subtitles(write([Segment(1000, 2000, text)]).encode())
    assert times(cues) == [(1000, 2000)]


def test_speakers_cannot_break_out_either():
    segment = Segment(1000, 2000, "hi", speaker="x>\n\n00:05.000 --> 00:06.000\n<b")
    assert times(parse_subtitles(to_vtt([segment]).encode())) == [(1000, 2000)]
    assert times(parse_subtitles(to_ass([segment]).encode())) == [(1000, 2000)]


@given(st.text("abc déñ", min_size=1, max_size=85).map(lambda t: " ".join(t.split())))
def test_wrapping_keeps_the_words_and_two_lines_where_it_can(text: str):
    lines = wrap(text).split("\n")
    assert " ".join(lines) == text
    longest_word = max((len(word) for word in text.split()), default=0)
    if longest_word <= 12 and len(text) <= 2 * LINE_CHARS - 12:
        assert len(lines) <= 2
        assert max(map(len, lines)) <= LINE_CHARS


def test_lines_are_balanced_and_chinese_is_parted_without_spaces():
    assert wrap("one two three four five six seven eight nine") == "one two three four five\nsix seven eight nine"
    chinese = "我" * 30
    assert [len(line) for line in wrap(chinese).split("\n")] == [21, 9]
    assert parse_subtitles(to_srt([Segment(0, 2000, chinese)]).encode())[0].text == chinese


@st.composite
def programmes(draw: st.DrawFn, step: int = 1) -> list[Segment]:
    """Segments one after the other, of any printable text, with or without speakers."""
    out, at = [], 0
    for _ in range(draw(st.integers(1, 8))):
        start = at + draw(st.integers(0, 5000))
        end = start + draw(st.integers(40, 9000))
        start, end = start // step * step, -(-end // step) * step
        words = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=12)
        text = " ".join(draw(st.lists(words, min_size=1, max_size=14)))
        out.append(Segment(start, end, text, speaker=draw(st.sampled_from([None, "ANNA", "Esme B"]))))
        at = end
    return out


@settings(max_examples=150, deadline=None)
@given(programmes())
@pytest.mark.parametrize("write", [to_srt, to_vtt])
def test_what_was_read_once_is_read_the_same_ever_after(write, segments: list[Segment]):
    """Text that looks like markup may change on the first trip; times never, and nothing on the second trip."""
    first = again(write, segments)
    times_given = {(s.start_ms, s.end_ms) for s in segments}
    assert {(s.start_ms, s.end_ms) for s in first} <= times_given
    if not any(": " in s.text for s in first):  # each trip takes one more label off "A: B: C"
        texts = [s.text for s in first]
        assert [s.text for s in again(write, first)] == texts


def again(write, segments) -> tuple[Segment, ...]:
    """Write and read; nothing when every text was markup alone."""
    try:
        return parse_subtitles(write(segments).encode())
    except SubtitleError as error:
        assert "no cues" in error.message
        return ()


PLAIN = st.text(st.characters(categories=("Ll", "Nd"), include_characters=" ,.!?'¿¡"), min_size=1, max_size=200)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(40, 9000), PLAIN.map(lambda t: " ".join(t.split())).filter(bool)),
        min_size=1,
        max_size=8,
    )
)
@pytest.mark.parametrize("write", [to_srt, to_vtt, to_ass])
def test_plain_words_and_times_come_back_exactly(write, cues: list[tuple[int, int, str]]):
    segments, at = [], 0
    for gap, length, text in cues:
        start, end = (at + gap) // 10 * 10, (at + gap + length) // 10 * 10 + 10
        segments.append(Segment(start, end, text))
        at = end
    back = parse_subtitles(write(segments).encode())
    assert [(s.start_ms, s.end_ms, s.text) for s in back] == [(s.start_ms, s.end_ms, s.text) for s in segments]


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"WEBVTT\n\n", b"[Events]\nDialogue:", b"1\n00:00:01,000 --> 00:00:02,000\n"]),
)
def test_any_bytes_are_parsed_or_refused_but_never_crash(data: bytes, start: bytes):
    try:
        cues = parse_subtitles(start + data)
    except SubtitleError:
        return
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(cues))
    assert all(cue.end_ms - cue.start_ms >= 40 and cue.text for cue in cues)
