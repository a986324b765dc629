"""Torrents of snapshots: built, read from a file or a bundle, named, and their trackers."""
