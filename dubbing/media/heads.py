"""The same MP4 with another sound track first: browsers play the first and let a page choose no other.

A file of ours begins with an index (`moov`) in front of everything it points to. The index with two of its tracks
exchanged is as long as it was, so it can stand in for the beginning of the file and every offset stays right: a few
megabytes an hour beside the film give a second film that is played with the original's sound.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

PLAYABLE = frozenset({"aac", "mp3", "opus"})
"""Codecs of sound in MP4 that browsers play."""
_LARGEST = 256 << 20
"""Bytes of an index that are read; a day of film has about 60 MB."""
_TRACK_FLAGS = slice(17, 20)
"""Of a `trak` whose first box is `tkhd`: whether the track is enabled."""
_Box = tuple[bytes, int, int]
"""Type, first byte with its header, and the byte behind it."""


def with_sounds_exchanged(path: Path) -> bytes | None:
    """What the first bytes of an MP4 or M4A must be for its second sound track to be the first.

    None when there are not two, or the index does not come first.
    """
    with path.open("rb") as file:
        at = 0
        while len(start := file.read(16)) == 16:
            kind, size = _header(start)
            if kind == b"mdat" or size < 8 or at + size > _LARGEST:
                return None
            if kind == b"moov":
                file.seek(0)
                return _exchanged(file.read(at + size), at)
            at += size
            file.seek(at)
    return None


def _exchanged(head: bytes, moov: int) -> bytes | None:
    tracks = [box for box in _boxes(head, moov + 8, len(head)) if box[0] == b"trak"]
    sounds = [i for i, track in enumerate(tracks) if b"soun" in _handlers(head, track)]
    if len(sounds) < 2:
        return None
    first, second = sounds[:2]
    bodies = [head[start:stop] for _, start, stop in tracks]
    enabled, other = bodies[first], bodies[second]
    bodies[first] = other[: _TRACK_FLAGS.start] + enabled[_TRACK_FLAGS] + other[_TRACK_FLAGS.stop :]
    bodies[second] = enabled[: _TRACK_FLAGS.start] + other[_TRACK_FLAGS] + enabled[_TRACK_FLAGS.stop :]
    parts, at = [], 0
    for (_, start, stop), body in zip(tracks, bodies, strict=True):
        parts += [head[at:start], body]
        at = stop
    return b"".join([*parts, head[at:]])


def _handlers(head: bytes, track: _Box) -> Iterator[bytes]:
    """What a track's media is: `vide`, `soun` and so on."""
    for kind, start, stop in _boxes(head, track[1] + 8, track[2]):
        if kind == b"mdia":
            yield from (head[at + 16 : at + 20] for name, at, _ in _boxes(head, start + 8, stop) if name == b"hdlr")


def _boxes(head: bytes, start: int, stop: int) -> Iterator[_Box]:
    while start + 8 <= stop:
        kind, size = _header(head[start : start + 16])
        if size < 8 or start + size > stop:
            return
        yield kind, start, start + size
        start += size


def _header(data: bytes) -> tuple[bytes, int]:
    """Type and size, in bytes, of a box."""
    size, kind = struct.unpack_from(">I4s", data)
    if size == 1 and len(data) >= 16:
        size = struct.unpack_from(">Q", data, 8)[0]
    return kind, size
