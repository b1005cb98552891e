"""Tiny models in the real formats, so that the real loading code runs where no weights can be had."""
