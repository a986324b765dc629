"""Verbs about the snapshots in the cache: ls, rm, import, verify, torrent."""
