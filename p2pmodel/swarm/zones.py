"""What came from peers of other zones.

A node says its zone in the name that BitTorrent clients give each other when they shake hands (BEP 10), so each end
of a connection knows it without asking anybody. Who says none, such as other programs, is of none.
"""

import re
from collections.abc import Iterable

from p2pmodel import __version__
from p2pmodel.core.connections import PeerConnection

_ZONE = re.compile(rb"(p2pmodel/\S+) zone=([A-Za-z0-9._-]{1,64})")


def client_name(zone: str) -> str:
    """The name of a client of `zone`."""
    return f"p2pmodel/{__version__} zone={zone}"


def zone_of(client: bytes) -> str:
    """The zone in a client's name; "" if there is none."""
    found = _ZONE.fullmatch(client)
    return found[2].decode() if found else ""


def program_of(client: bytes) -> str:
    """A client's name without its zone."""
    found = _ZONE.fullmatch(client)
    return (found[1] if found else client).decode(errors="replace")


class ZoneTraffic:
    """Counts payload bytes from other zones than `zone`, look by look: what a connection brings between the last look
    and its end is not seen."""

    def __init__(self, zone: str) -> None:
        self.total = 0
        self._zone = zone
        self._seen: dict[str, int] = {}

    def look(self, connections: Iterable[PeerConnection]) -> None:
        """Take in all connections as they are now. Looks must come in their order."""
        seen = {c.address: c.downloaded for c in connections if c.zone != self._zone}
        for address, received in seen.items():
            before = self._seen.get(address, 0)
            self.total += received - (before if before <= received else 0)  # fewer: a new connection from there
        self._seen = seen
