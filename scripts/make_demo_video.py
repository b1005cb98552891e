#!/usr/bin/env python3
"""Make a short talk to try the dubbing on: flite speaks English, ffmpeg draws the picture.

    scripts/make_demo_video.py OUTPUT.mp4

About 20 s, 1280x720, H.264 and AAC. flite and not espeak-ng: recognisers understand it far better.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import wave
from pathlib import Path

SENTENCES = (
    "Hello, and welcome to this short film.",
    "Today I want to show you a small house near the sea.",
    "My family has lived here for a long time, and every summer our friends come to visit us.",
    "In the morning we drink coffee in the garden and listen to the birds.",
    "Thank you for watching, and see you again soon.",
)
VOICE = "slt"
PAUSE_MS = 700
PICTURE = "gradients=size=320x180:rate=25:speed=0.02:c0=0x14213d:c1=0x2a9d8f:c2=0xe9c46a:nb_colors=3:seed=7"
WAVES = "showwaves=size=1280x180:mode=cline:rate=25:colors=white,format=yuva420p,colorchannelmixer=aa=0.6"


def speak(text: str, wav: Path) -> None:
    subprocess.run(["flite", "-voice", VOICE, "-t", text, "-o", str(wav)], check=True, stdin=subprocess.DEVNULL)


def join(parts: list[Path], output: Path) -> float:
    """Join the sentences with pauses; returns the length in seconds."""
    with wave.open(str(output), "wb") as joined:
        for index, part in enumerate(parts):
            with wave.open(str(part), "rb") as one:
                if index == 0:
                    joined.setparams(one.getparams())
                silence = bytes(2 * (one.getframerate() * PAUSE_MS // 1000))
                joined.writeframes(silence + one.readframes(one.getnframes()) + silence)
        return joined.getnframes() / joined.getframerate()


def film(speech: Path, duration_s: float, output: Path) -> None:
    picture = "[0:v]scale=1280:720[back];[back][waves]overlay=0:H-h-60,format=yuv420p[picture]"
    graph = f"[1:a]asplit[voice][drawn];[drawn]{WAVES}[waves];{picture}"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", PICTURE, "-i", str(speech)]
    command += ["-filter_complex", graph, "-map", "[picture]", "-map", "[voice]", "-t", f"{duration_s:.3f}"]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "24", "-c:a", "aac", "-b:a", "128k", "-ar", "48000"]
    command += ["-movflags", "+faststart", "-metadata:s:a:0", "language=eng", str(output)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def main() -> int:
    if len(sys.argv) != 2:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    output = Path(sys.argv[1])
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".demo-") as folder:
        parts = [Path(folder) / f"{index}.wav" for index in range(len(SENTENCES))]
        for text, part in zip(SENTENCES, parts, strict=True):
            speak(text, part)
        duration_s = join(parts, Path(folder) / "speech.wav")
        film(Path(folder) / "speech.wav", duration_s, Path(folder) / output.name)
        (Path(folder) / output.name).replace(output)
    print(f"made {output}: {len(SENTENCES)} spoken sentences", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
