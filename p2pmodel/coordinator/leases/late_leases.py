"""Leases that a peer may take over for which no other piece is free. Pure.

Near the end all pieces are leased, and one peer that is slow or never pulls makes all others wait. A peer with nothing
else to download takes the piece over. So a piece may be downloaded twice, but only while a peer would be idle.
"""

from collections.abc import Mapping

from p2pmodel.coordinator.leases.peer import LeasePeer
from p2pmodel.coordinator.leases.seats import Seats

AFTER, OVERTAKEN = 2.0, 4.0
"""Seconds, and multiples of the usual time, after which a lease of a peer that delivers is late."""
AT_FIRST = 5.0
"""Seconds after which any lease is late, while no peer delivers. A slow first piece may take longer."""


def late_leases(peers: Mapping[str, LeasePeer], seats: Seats, now: float, *, delivering: bool) -> dict[int, str]:
    """The holders of late leases, by piece. `delivering`: peers that deliver can take them over."""
    others = seats.patience if delivering else max(AT_FIRST, seats.first)
    proven = max(AFTER, OVERTAKEN * seats.usual)
    late: dict[int, str] = {}
    for name, peer in peers.items():
        if peer.leased:
            before = now - (proven if peer.record.proven else others)
            late |= {piece: name for piece, since in peer.leased.items() if since < before}
    return late
