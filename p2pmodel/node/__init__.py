"""The use cases: seed and fetch; the only place where origin, swarm and store meet."""
