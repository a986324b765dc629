"""Several engines of one node as one engine."""
