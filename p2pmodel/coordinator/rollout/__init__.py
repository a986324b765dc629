"""Roll-outs: a snapshot on its way to the nodes of a cluster, and how far each node is. Pure."""
