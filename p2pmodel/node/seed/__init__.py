"""Seed snapshots: mirror, build torrents, serve."""
