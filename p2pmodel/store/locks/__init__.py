"""Locks of files and contents, between processes, machines and the hub's clients."""
