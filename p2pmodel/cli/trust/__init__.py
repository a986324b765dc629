"""Signatures and provenance of snapshots, and the certificate authority of a cluster."""
