"""Signatures and provenance of snapshots."""
