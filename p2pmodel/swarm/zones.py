"""Zones of peers, and the traffic between zones.

A node adds its zone to the client name in the BitTorrent handshake (BEP 10). So each end of a connection receives the
zone of the other. Other programs have no zone.
"""

import re
from collections.abc import Iterable

from p2pmodel import __version__
from p2pmodel.core.network.connections import PeerConnection

_ZONE = re.compile(rb"(p2pmodel/\S+) zone=([A-Za-z0-9._-]{1,64})")


def client_name(zone: str) -> str:
    """The client name of a node in `zone`."""
    return f"p2pmodel/{__version__} zone={zone}"


def zone_of(client: bytes) -> str:
    """The zone in a client name; "" without one."""
    found = _ZONE.fullmatch(client)
    return found[2].decode() if found else ""


def program_of(client: bytes) -> str:
    """A client name without its zone."""
    found = _ZONE.fullmatch(client)
    return (found[1] if found else client).decode(errors="replace")


class ZoneTraffic:
    """Counts payload bytes from other zones than `zone`. Bytes between the last `update` and the end of a connection
    are not counted."""

    def __init__(self, zone: str) -> None:
        self.total = 0
        self._zone = zone
        self._seen: dict[str, int] = {}

    def update(self, connections: Iterable[PeerConnection]) -> None:
        """Count the bytes of all current connections since the last update."""
        seen = {c.address: c.downloaded for c in connections if c.zone != self._zone}
        for address, received in seen.items():
            before = self._seen.get(address, 0)
            self.total += received - (before if before <= received else 0)  # fewer: a new connection from that address
        self._seen = seen
