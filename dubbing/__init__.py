"""Dubbing Pipeline: a video goes in, the same video speaking other languages comes out."""

__version__ = "0.1.0"
