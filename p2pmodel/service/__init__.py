"""The HTTP applications of a node (control API, hub endpoint, metrics) and the long-running roles that serve them."""
