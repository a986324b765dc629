"""The use cases: fetch, seed, assembly, hub content; the only room where origin, swarm and store meet."""
