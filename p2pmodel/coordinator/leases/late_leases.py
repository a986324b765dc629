"""Leases that are late: which a peer may take over for which no other piece is free, and which end. Pure.

Near the end all pieces are leased, and one peer that is slow or never pulls makes all others wait. A peer with nothing
else to download takes the piece over. So a piece may be downloaded twice, but only while a peer would be idle.

Before the end a lease may be overtaken: others that began much later have been delivered. Its holder would deliver it
late, and then be the only one to have it: all peers would wait for its uplink. So it ends, and another peer gets the
piece, at the cost of a second copy of that piece at most. A source that stalls overtakes nothing.
"""

from collections.abc import Mapping

from p2pmodel.coordinator.leases.peer import PROVE_WITHIN, LeasePeer
from p2pmodel.coordinator.leases.seats import LATE_AT_LEAST, Seats

AFTER, OVERTAKEN = 2.0, 4.0
"""Seconds, and multiples of the usual time, after which a lease of a peer that delivers is late."""
AT_FIRST = 5.0
"""Seconds after which any lease is late, while no peer delivers. A slow first piece may take longer."""
OVERDUE = 8.0
"""Multiples of the usual time after which a lease is given to another peer, too."""
OVERDUE_AT_LEAST = 20.0
"""Seconds before which no lease of a peer that delivers is overdue."""


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


def ended_leases(peer: LeasePeer, seats: Seats, now: float, *, shared: bool) -> dict[int, float]:
    """When those leases of `peer` began that end without a delivery, by piece. `shared`: it downloads from a source
    that all share, so that the leases of others tell how long its own should take."""
    least = OVERDUE_AT_LEAST if peer.record.proven else max(PROVE_WITHIN, seats.first)
    before = now - max(least, OVERDUE * seats.usual)
    if shared:
        before = max(before, seats.front - max(LATE_AT_LEAST, OVERTAKEN * seats.usual))
    return {piece: since for piece, since in peer.leased.items() if since < before}
