"""Directories imported into the cache as snapshots."""
