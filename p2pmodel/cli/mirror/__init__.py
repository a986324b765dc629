"""p2pmodel mirror: serve this cache as a hub endpoint, sync it, check its log."""
