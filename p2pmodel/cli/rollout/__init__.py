"""`p2pmodel rollout`: the roll-outs of a coordinator on the command line."""
