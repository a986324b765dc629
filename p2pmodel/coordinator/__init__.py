"""Leases, assembly of torrents, peer sets and the tracker protocol: what coordinators and peers share."""
