"""Torrents, magnets and the swarm engine. The only room that imports libtorrent."""
