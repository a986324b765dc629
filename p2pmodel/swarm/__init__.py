"""Torrents, the engine, the tracker codec. The only room that imports libtorrent."""
