"""`p2pmodel mirror`: serve the cache as a hub endpoint, sync snapshots into it, verify its sync log."""
