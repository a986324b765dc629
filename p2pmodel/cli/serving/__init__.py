"""`p2pmodel serve` and `p2pmodel chat`: a model from nothing to its answers."""
