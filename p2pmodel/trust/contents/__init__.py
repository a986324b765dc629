"""What snapshots may contain: formats of weights, licences, file patterns."""
