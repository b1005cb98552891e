"""Engines: Protocols, choice, batching, and one file per engine."""
