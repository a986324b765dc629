"""The bootstrap of a cluster: preflight, coordinator, seeders, daemons, and one snapshot on every host."""
