"""Trust: the signatures of snapshots."""
