"""Tiny models made by the tests themselves, in the files and layouts of the real ones."""
