"""The swarm engine on libtorrent."""
