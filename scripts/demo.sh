#!/usr/bin/env bash
# Dubs a video and says where the result is: scripts/demo.sh VIDEO TO. An empty VIDEO means one made on the spot.
set -euo pipefail
video=$1 to=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

if [ -z "$video" ]; then
  video=$here/Output/demo.mp4
  [ -f "$video" ] || "$here/.venv/bin/python" "$here/scripts/make_demo_video.py" "$video"
fi
result=$("$here/.venv/bin/dub" run "$video" --to "$to")
printf '\nDubbed:\n%s\n\n' "$result"
echo "Play it with any player (VLC, mpv, a browser), or here: ffplay \"${result%%$'\n'*}\""
