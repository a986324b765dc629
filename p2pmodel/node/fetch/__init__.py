"""Fetch a snapshot: download it through the swarm, publish it, serve it."""
