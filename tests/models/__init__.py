"""Tiny models with random weights, in the formats of the real ones: what they say is noise, how they are loaded is real."""
