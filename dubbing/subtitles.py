"""SRT, WebVTT and ASS in and out. What users give is parsed to segments; what we write is written anew, escaped."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dubbing.errors import FileMissingError, SubtitleError
from dubbing.types import Segment

Format = Literal["srt", "vtt", "ass"]
MAX_BYTES = 2 << 20
MAX_CUES = 10_000
MAX_CUE_CHARS = 1_000
MAX_MS = 24 * 3_600_000
LINE_CHARS = 42
_SHORTEST_MS = 40
"""One picture; cues that cannot have this much of their own are refused."""
_KEEP_MS = 300
"""An overlapped cue is cut at the next one's start when this much of it is left."""
_MS_PER_CHAR = 60

_CLOCK = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"^\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s|$)")
_NUMBER = re.compile(r"^\s*\d{1,9}\s*$")
_TAG = re.compile(r"</?[a-zA-Z0-9][^<>]*>|\{[^{}]*\}|</>")
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]+)>")
_LABEL = re.compile(r"^(?:-\s*)?([\w .'-]{2,40}):\s+(?=\S)")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\u200b]")
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")


def read_subtitles(path: Path) -> tuple[Segment, ...]:
    """Parse a subtitle file. Raises FileMissingError, SubtitleError."""
    return parse_subtitles(_bytes(path), path.name)


def parse_subtitles(data: bytes, name: str = "subtitles") -> tuple[Segment, ...]:
    """Parse SRT, WebVTT or ASS to segments in order, without overlaps or empty ones. Raises SubtitleError."""
    text = decode_text(data, name)
    kind = detect(text)
    if kind is None:
        raise SubtitleError(name=name, detail="neither SRT nor WebVTT nor ASS")
    reader = {"srt": _srt, "vtt": _vtt, "ass": _ass}[kind]
    cues: list[Segment] = []
    for cue in reader(text):
        if not cue.text:
            continue
        if len(cue.text) > MAX_CUE_CHARS:
            raise SubtitleError(name=name, detail=f"a cue is longer than {MAX_CUE_CHARS} characters")
        if max(cue.start_ms, cue.end_ms) > MAX_MS:
            raise SubtitleError(name=name, detail="a cue lies beyond 24 hours")
        cues.append(cue)
        if len(cues) > MAX_CUES:
            raise SubtitleError(name=name, detail=f"more than {MAX_CUES} cues")
    if not cues:
        raise SubtitleError(name=name, detail="it has no cues")
    return _repaired(cues, name)


def decode_text(data: bytes, name: str = "subtitles") -> str:
    """The text of a subtitle or transcript file: UTF-8 with or without BOM, else Latin-1. Raises SubtitleError."""
    if len(data) > MAX_BYTES:
        raise SubtitleError(name=name, detail="larger than 2 MiB")
    if b"\0" in data:
        raise SubtitleError(name=name, detail="not a text file in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def detect(text: str) -> Format | None:
    """Which format a text is in, by its content; None when it is none of ours."""
    head = text.lstrip()
    if head.startswith("WEBVTT"):
        return "vtt"
    if re.search(r"^\[(Script Info|Events)\]", head, re.MULTILINE) and "Dialogue:" in head:
        return "ass"
    if any(_TIMING.match(line) for line in text.split("\n")):
        return "srt"
    return None


def to_srt(segments: Sequence[Segment]) -> str:
    """SubRip. Characters that players take for markup are replaced by their look-alikes."""
    cues = (
        f"{i}\n{_clock(s.start_ms, ',')} --> {_clock(s.end_ms, ',')}\n{wrap(_plain(s.text))}\n"
        for i, s in enumerate(segments, 1)
    )
    return "\n".join(cues)


def to_vtt(segments: Sequence[Segment]) -> str:
    """WebVTT, speakers as voice tags."""
    cues = ["WEBVTT\n"]
    for s in segments:
        voice = f"<v {_name(s.speaker)}>" if s.speaker and _name(s.speaker) else ""
        text = html.escape(wrap(_clean(s.text)), quote=False)
        cues.append(f"{_clock(s.start_ms, '.')} --> {_clock(s.end_ms, '.')}\n{voice}{text}\n")
    return "\n".join(cues)


def to_ass(segments: Sequence[Segment], width: int = 1920, height: int = 1080) -> str:
    """Advanced SubStation Alpha for a picture of this size; times in centiseconds."""
    font = f"Default,Sans,{height // 18},&H00FFFFFF,&H00FFFFFF,&H00000000,&H80000000"
    head = [
        "[Script Info]",
        "ScriptType: v4.00+",
        f"PlayResX: {width}",
        f"PlayResY: {height}",
        "WrapStyle: 2",
        "",
        "[V4+ Styles]",
        "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, "
        "Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, "
        "MarginL, MarginR, MarginV, Encoding",
        f"Style: {font},0,0,0,0,100,100,0,0,1,2,1,2,40,40,40,1",
        "",
        "[Events]",
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text",
    ]
    for s in segments:
        text = wrap(_plain(s.text).replace("\\", "\u29f5")).replace("\n", "\\N")
        name = _name(s.speaker or "").replace(",", " ").replace(";", " ")
        head.append(f"Dialogue: 0,{_centi(s.start_ms)},{_centi(s.end_ms)},Default,{name},0,0,0,,{text}")
    return "\n".join(head) + "\n"


def wrap(text: str) -> str:
    """Two balanced lines of at most 42 characters where the text allows it, more lines where it does not."""
    if len(text) <= LINE_CHARS and not (_WIDE.search(text) and len(text) > LINE_CHARS // 2):
        return text
    breaks = [i for i, c in enumerate(text) if c == " " and i <= LINE_CHARS and len(text) - i - 1 <= LINE_CHARS]
    if breaks:
        at = min(breaks, key=lambda i: abs(i - len(text) / 2))
        return f"{text[:at]}\n{text[at + 1 :]}"
    if " " not in text and _WIDE.search(text):
        return _wrap_wide(text)
    return "\n".join(textwrap.wrap(text, LINE_CHARS, break_long_words=False, break_on_hyphens=False))


def _wrap_wide(text: str) -> str:
    """Chinese and Japanese have no spaces and take twice the room; lines part between two such characters only."""
    lines, line = [], ""
    for c in text:
        if len(line) >= LINE_CHARS // 2 and _WIDE.match(c) and _WIDE.match(line[-1]):
            lines.append(line)
            line = ""
        line += c
    return "\n".join([*lines, line])


def _srt(text: str) -> Iterator[Segment]:
    lines = text.split("\n")
    at = [i for i, line in enumerate(lines) if _TIMING.match(line)]
    for i, following in zip(at, [*at[1:], len(lines)], strict=True):
        body = lines[i + 1 : following]
        if following < len(lines) and body and _NUMBER.match(body[-1]):
            body = body[:-1]
        yield _cue(lines[i], body)


def _vtt(text: str) -> Iterator[Segment]:
    for block in re.split(r"\n[ \t]*\n", text):
        lines = block.split("\n")
        for i, line in enumerate(lines):
            if _TIMING.match(line):
                cue = _cue(line, lines[i + 1 :])
                yield replace(cue, text=_clean(html.unescape(cue.text)))
                break


def _ass(text: str) -> Iterator[Segment]:
    fields = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]
    in_events = False
    for line in text.split("\n"):
        if line.startswith("["):
            in_events = line.strip() == "[Events]"
        key, _, value = line.partition(":")
        if in_events and key == "Format":
            fields = [field.strip().lower() for field in value.split(",")]
        if not in_events or key != "Dialogue" or _DRAWING.search(value):
            continue
        row = dict(zip(fields, value.split(",", len(fields) - 1), strict=False))
        timing = _TIMING.match(f"{row.get('start', '').strip()} --> {row.get('end', '').strip()}")
        if timing is None:
            continue
        words = re.sub(r"\\[Nnh]", " ", row.get("text", ""))
        cue = _segment(timing, words)
        yield replace(cue, speaker=_clean(row.get("name", "")) or cue.speaker)


def _cue(timing: str, body: list[str]) -> Segment:
    match = _TIMING.match(timing)
    assert match is not None
    lines = [line.strip() for line in body if line.strip()]
    text = ""
    for line in lines:
        glue = "" if not text or (_WIDE.match(text[-1]) and _WIDE.match(line)) else " "
        text += glue + line
    return _segment(match, text)


def _segment(timing: re.Match[str], raw: str) -> Segment:
    times = timing.groups()
    voice = _VOICE.search(raw)
    text = _clean(_TAG.sub("", raw))
    speaker = _clean(html.unescape(voice.group(1))) if voice else None
    if speaker is None and (label := _LABEL.match(text)) and label.group(1).isupper():
        speaker, text = label.group(1), text[label.end() :]
    return Segment(_ms(times[:4]), _ms(times[4:]), text, speaker=speaker or None)


def _repaired(cues: Iterable[Segment], name: str) -> tuple[Segment, ...]:
    """In order, every cue with a length of its own. Refuses what cannot be told apart."""
    out: list[Segment] = []
    for given in sorted(cues, key=lambda one: one.start_ms):
        cue = given
        if cue.end_ms - cue.start_ms < _SHORTEST_MS:
            cue = replace(cue, end_ms=cue.start_ms + max(1000, _MS_PER_CHAR * len(cue.text)))
        if out and cue.start_ms < out[-1].end_ms:
            out[-1], cue = _parted(out[-1], cue, name)
        out.append(cue)
    return tuple(out)


def _parted(first: Segment, second: Segment, name: str) -> tuple[Segment, Segment]:
    """Two overlapping cues one after the other."""
    cut, end = second.start_ms, second.end_ms
    if cut - first.start_ms < _KEEP_MS:  # said at once: share the time by the length of the words
        end = max(first.end_ms, end)
        share = len(first.text) / (len(first.text) + len(second.text))
        cut = first.start_ms + round((end - first.start_ms) * share)
    if min(cut - first.start_ms, end - cut) < _SHORTEST_MS:
        raise SubtitleError(name=name, detail=f"too many cues at {_clock(second.start_ms, '.')}")
    return replace(first, end_ms=cut), replace(second, start_ms=cut, end_ms=end)


def _clean(text: str) -> str:
    """One line, single spaces, nothing invisible."""
    return " ".join(_CONTROL.sub(" ", text).split())


def _plain(text: str) -> str:
    """Text that no player takes for markup or timing."""
    return _clean(text).translate(str.maketrans("<>{}", "\u2039\u203a()"))


def _name(speaker: str) -> str:
    return _clean(re.sub(r"[<>&]", " ", speaker))[:40].strip()


def _ms(parts: Sequence[str | None]) -> int:
    hours, minutes, seconds, fraction = parts
    return (int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)) * 1000 + int(
        (fraction or "0").ljust(3, "0")
    )


def _clock(ms: int, point: str) -> str:
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def _centi(ms: int) -> str:
    return f"{ms // 3_600_000}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000 // 10:02}"


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileMissingError(name=path.name)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def is_plain_text(path: Path) -> bool:
    """Whether the file is words without times. Raises SubtitleError as `read_subtitles` does."""
    return detect(decode_text(_bytes(path), path.name)) is None


def read_text(path: Path) -> str:
    """The words of a plain text. Raises SubtitleError when there are none."""
    text = decode_text(_bytes(path), path.name).strip()
    if not any(char.isalnum() for char in text):
        raise SubtitleError(name=path.name, detail="it has no words")
    return text
