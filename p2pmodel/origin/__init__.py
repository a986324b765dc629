"""Mirrors: hub metadata and ranged pulls. Answers of mirrors are bounded: see `metadata`."""
