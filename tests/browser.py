"""Plays a result file in a real Chromium, as a phone or a desktop would: over HTTP with ranges, muted autoplay."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Error, sync_playwright

TYPES = {
    ".mp4": "video/mp4",
    ".m4a": "audio/mp4",
    ".webm": "video/webm",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
    ".vtt": "text/vtt",
}
PAGE = (
    b"<!doctype html><meta charset=utf-8><title>player</title>"
    b"<body style='margin:0'><video id=v muted playsinline controls width=640></video>"
)
QUIET = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-first-run",
    "--no-pings",
)
PLAY = """
async ([source, seconds]) => {
  const video = document.getElementById('v');
  const until = (name, ms) => new Promise((done) => {
    video.addEventListener(name, () => done(true), {once: true});
    video.addEventListener('error', () => done(false), {once: true});
    setTimeout(() => done(false), ms);
  });
  const loaded = until('loadedmetadata', 10000);
  video.src = source;
  await loaded;
  if (!video.error) {
    await video.play().catch(() => {});
    const wanted = Math.min(seconds, video.duration * 0.9), deadline = performance.now() + 10000 + 1000 * seconds;
    while (!video.error && video.currentTime < wanted && performance.now() < deadline)
      await new Promise((done) => requestAnimationFrame(done));
  }
  const tracks = video.audioTracks ? video.audioTracks.length : (video.webkitAudioDecodedByteCount > 0 ? 1 : 0);
  return {duration: Number.isFinite(video.duration) ? video.duration : 0, reached: video.currentTime,
          width: video.videoWidth, height: video.videoHeight, audio: tracks,
          error: video.error ? video.error.message || `code ${video.error.code}` : ''};
}
"""


@dataclass(frozen=True, slots=True)
class Playback:
    """What the browser's media element said."""

    duration_s: float
    reached_s: float
    """currentTime when playing was stopped; 0 when it never moved."""
    width: int
    """videoWidth; 0 for audio alone."""
    height: int
    audio_tracks: int
    """As the browser counts them; where it does not, 1 when it decoded any audio."""
    error: str
    """Empty when it played."""


class _Files(BaseHTTPRequestHandler):
    """One file at /media, a player at /, single byte ranges."""

    protocol_version = "HTTP/1.1"
    media: Path

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer(HTTPStatus.OK, "text/html", PAGE)
        elif self.path == "/media":
            self._send_media()
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"")

    def _send_media(self) -> None:
        size = self.media.stat().st_size
        kind = TYPES.get(self.media.suffix.lower(), "application/octet-stream")
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]), size - 1) if asked and asked[2] else size - 1
        if first > last:
            self._answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, kind, b"", {"Content-Range": f"bytes */{size}"})
            return
        with self.media.open("rb") as file:
            file.seek(first)
            body = file.read(last - first + 1)
        headers = {"Accept-Ranges": "bytes"} | ({"Content-Range": f"bytes {first}-{last}/{size}"} if asked else {})
        self._answer(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK, kind, body, headers)

    def _answer(self, status: HTTPStatus, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # players hang up in the middle of a range as a matter of course

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Stay silent."""


@contextmanager
def serve(media: Path) -> Iterator[str]:
    """The address of a player for one file, while the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Files", (_Files,), {"media": media}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def play(media: Path, *, seconds: float = 2.0, screenshot: Path | None = None) -> Playback:
    """Play `media` until `seconds` are reached (or nine tenths of it); the profile is new and thrown away.

    Raises playwright's Error when the browser itself does not start.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise Error("chromium is not installed")
    with serve(media) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        try:
            page = browser.new_page(viewport={"width": 640, "height": 400})
            page.goto(f"{address}/")
            found = page.evaluate(PLAY, [f"{address}/media", seconds])
            if screenshot is not None:
                page.screenshot(path=screenshot)
        finally:
            browser.close()
    return Playback(
        duration_s=found["duration"],
        reached_s=found["reached"],
        width=found["width"],
        height=found["height"],
        audio_tracks=found["audio"],
        error=found["error"],
    )
