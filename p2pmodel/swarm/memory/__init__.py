"""The in-memory twin of the swarm engine, for tests."""
