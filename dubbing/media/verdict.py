"""What ffmpeg's exit code and words mean to a user (pure)."""

from __future__ import annotations

import re
import signal

from dubbing.errors import (
    DiskFullError,
    DubbingError,
    ForbiddenFormatError,
    MediaLimitError,
    MediaToolError,
    NoAudioError,
    PictureTooLargeError,
    TooManyStreamsError,
    TruncatedMediaError,
    UnreadableMediaError,
)

PLAYLISTS = ("hls", "dash", "concat", "sdp", "rtsp", "rtp", "imf", "webm_dash_manifest", "applehttp")
_FORBIDDEN = re.compile(r"\[(?:" + "|".join(PLAYLISTS) + r")[ ,@][^\]]*\] Format not on whitelist")
_SIGNATURES = (b"#EXTM3U", b"ffconcat", b"v=0", b"<MPD", b"<?xml", b"[playlist]", b"[InternetShortcut]", b"[Reference]")
_LIMIT_SIGNALS = {signal.SIGXCPU: "processor time", signal.SIGXFSZ: "disk", signal.SIGKILL: "memory or time"}


def is_playlist(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a playlist or a script of other files."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(_SIGNATURES):
        return True
    lines = text.splitlines()[:16]
    return any(line.startswith((b"file ", b"file:", b"ffconcat ", b"m=audio ", b"m=video ")) for line in lines)


def error_for(name: str, returncode: int, stderr: str, *, pixel_limit: int, stream_limit: int) -> DubbingError | None:
    """The error that a finished process stands for, or None when all is well."""
    if "exceeds specified max pixel count" in stderr:
        return PictureTooLargeError(name=name, limit=pixel_limit)
    if "exceeds max_streams" in stderr:
        return TooManyStreamsError(name=name, limit=stream_limit)
    # ffmpeg takes some of these for the end of its input and exits with 0.
    if limit := _limit_hit(returncode, stderr):
        return MediaLimitError(name=name, detail=limit)
    if "No space left on device" in stderr:
        return DiskFullError(folder="the output folder", free_mb=0, need_mb=1)  # disk_errors knows the figures
    if returncode == 0:
        return None
    return _input_error(name, stderr) or MediaToolError(name=name, detail=_last_line(stderr, returncode))


def _limit_hit(returncode: int, stderr: str) -> str | None:
    for number, what in _LIMIT_SIGNALS.items():
        if returncode == -number or f"received signal {int(number)}." in stderr:
            return what
    if "File too large" in stderr:
        return "disk"
    if "Cannot allocate memory" in stderr or "malloc of size" in stderr:
        return "memory"
    return None


def _input_error(name: str, stderr: str) -> DubbingError | None:
    """Errors that lie in the file a user gave; their words are ours, so that nothing of a file's content can leak."""
    if _FORBIDDEN.search(stderr):
        return ForbiddenFormatError(name=name)
    if "Format not on whitelist" in stderr:
        return UnreadableMediaError(name=name, detail="a container that is not supported")
    if "matches no streams" in stderr or "does not contain any stream" in stderr:
        return NoAudioError(name=name)
    unsure = "detected only with low score" in stderr
    no_index = "moov atom not found" in stderr and not unsure
    if no_index or "partial file" in stderr or "End of file" in stderr:
        return TruncatedMediaError(name=name, detail="its index is missing" if no_index else "data is missing")
    for phrase, detail in (
        ("Invalid data found", "no known container"),
        ("moov atom not found", "no known container"),
        ("could not find codec parameters", "its streams cannot be understood"),
        ("Decoder (codec", "there is no decoder for it"),
        ("Error while decoding", "its audio is damaged"),
    ):
        if phrase.lower() in stderr.lower():
            return UnreadableMediaError(name=name, detail=detail)
    return None


def _last_line(stderr: str, returncode: int) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {returncode}"
