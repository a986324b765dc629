"""Announces, peer lists and the connections the tracker suggests."""
