"""Media: the only door to ffmpeg and ffprobe, always under the guard, and to libav for files of our own."""
