"""The fetch use case: download a snapshot through the swarm, publish it, serve it."""
