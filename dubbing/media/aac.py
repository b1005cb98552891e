"""AAC in process, packet by packet, so that pieces encoded apart join without a seam (ADTS: one header per packet)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Float32Audio = npt.NDArray[np.float32]
FRAME = 1024
"""Samples per packet."""
RATE = 48_000
PRE_ROLL = 16
"""Packets encoded before a piece and dropped again: windows overlap by one, the state settles in a few."""
POST_ROLL = 3
"""Packets encoded behind a piece and dropped: one overlap, one of look-ahead, one spare."""
# About half of the default coder's time. Noise substitution and intensity stereo save bits that are not short here.
_OPTIONS = {"aac_coder": "fast", "aac_tns": "0", "aac_pns": "0", "aac_is": "0"}


def packets(blocks: Iterable[Float32Audio], start: int, bitrate: int) -> Iterator[tuple[int, bytes]]:
    """Encode stereo blocks of shape (frames, 2), the first beginning at sample `start`.

    Yields (sample, packet): decoding the packet gives the 1024 samples from `sample` on.
    """
    codec = av.CodecContext.create("aac", "w")
    codec.sample_rate, codec.layout, codec.format, codec.bit_rate = RATE, "stereo", "fltp", bitrate
    codec.options = _OPTIONS
    at = 0
    for block in blocks:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.T), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, at
        at += block.shape[0]
        for packet in codec.encode(frame):
            yield start + packet.pts, bytes(packet)
    for packet in codec.encode(None):
        yield start + packet.pts, bytes(packet)


def adts(packet: bytes) -> bytes:
    """The packet with its ADTS header: AAC-LC, 48 kHz, stereo."""
    size = len(packet) + 7
    return bytes((0xFF, 0xF1, 0x4C, 0x80 | size >> 11, size >> 3 & 0xFF, (size & 7) << 5 | 0x1F, 0xFC)) + packet


def adts_packets(data: bytes) -> Iterator[bytes]:
    """The packets, headers included, of an ADTS stream."""
    at = 0
    while at + 7 <= len(data):
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        if data[at] != 0xFF or size < 7:
            raise ValueError(f"no ADTS header at byte {at}")
        yield data[at : at + size]
        at += size


def tail_offset(path: Path, count: int) -> int:
    """Byte offset of the last `count` packets of an ADTS file, or 0 when it has fewer."""
    sizes = [len(packet) for packet in adts_packets(path.read_bytes())]
    return sum(sizes[: max(0, len(sizes) - count)])


def decode(data: bytes) -> Iterator[av.AudioFrame]:
    """Planar float32 frames of 1024 samples, one per packet of an ADTS stream."""
    codec = av.CodecContext.create("aac", "r")
    for packet in adts_packets(data):
        yield from codec.decode(av.Packet(packet))
    yield from codec.decode(None)
