"""The preflight: what a node needs for a snapshot, checked before anything moves; alone, `p2pmodel doctor`."""
