"""Settings of most tests, which have no mirror that could vouch for a torrent, and trackers on loopback."""

NO_MIRROR = {"P2PMODEL_SWARM_TRUST": "coordinator", "P2PMODEL_SWARM_FOREIGN_TRACKERS": "any"}
