"""Which piece a node pulls next, from which source, and what it has so far."""
