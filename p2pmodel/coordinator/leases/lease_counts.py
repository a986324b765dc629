"""How many leases are out: by source, by the standing of their holders, and by address. Pure.

A lease that its holder probably does not use is *quiet*. It keeps its piece, but no other peer from the seeders. One of
a peer that delivers is quiet only while pieces arrive: a seeder that stalls makes all of them late.

A peer that has delivered nothing is new, and as good as others. It is doubtful after a lease that lapsed, and where
peers of its address lease and do not deliver: their leases are quiet, or they left with leases.
"""

from collections import Counter
from collections.abc import Iterable

from p2pmodel.coordinator.leases.peer import UNPROVEN, LeasePeer, Standing

SHARE = 2
"""A peer may hold an equal share of the free pieces, divided by this, before it has delivered much."""
MOST_OF_ADDRESS = 256
"""Leases in use of all peers of one address together that do not deliver."""
LEAST_OF_ADDRESS = 4
DOUBTFUL_FROM, DOUBTFUL_SHARE = 2, 4
"""So many quiet or lost leases make an address doubtful, if they are one in so many of those that are out."""
MOST_ADDRESSES = 10_000
"""Most addresses with losses that are remembered."""


class LeaseCounts:
    """Counts of the leases of all present peers. `note` whatever changes of a peer."""

    def __init__(self) -> None:
        self._out: Counter[tuple[bool, Standing]] = Counter()
        """By whether they are for seeders, and by the standing of the holder."""
        self._quiet: Counter[tuple[bool, Standing]] = Counter()
        self._unproven_at: Counter[str] = Counter()
        """Leases of peers that do not deliver, by address."""
        self._quiet_at: Counter[str] = Counter()
        self._lost_at: dict[str, int] = {}
        """Leases that lapsed, or that departed peers had; halved by each peer that begins to deliver."""
        self.peers: Counter[Standing] = Counter()
        """Present peers, by standing."""

    def enter(self, peer: LeasePeer) -> None:
        """Count a new peer."""
        peer.counted = peer.demand.from_seeders, self._standing(peer), 0
        self._add(peer, 1)

    def leave(self, peer: LeasePeer) -> None:
        """Count a peer no more."""
        self._add(peer, -1)

    def note(self, peer: LeasePeer) -> None:
        """Bring the counts up to date with this peer."""
        before = peer.counted
        own = not peer.record.proven and before[2]  # its leases, without which its standing is judged
        if not own and before == (peer.demand.from_seeders, self._standing(peer), len(peer.leased)):
            return  # as after most messages
        self._add(peer, -1)
        peer.counted = peer.demand.from_seeders, self._standing(peer), len(peer.leased)
        self._add(peer, 1)

    def look(self, peers: Iterable[LeasePeer], before: float, *, stalled: bool) -> None:
        """Count the quiet leases: those that began `before` that time."""
        holders = [(p, sum(since < before for since in p.leased.values())) for p in peers if p.leased]
        self._quiet_at.clear()
        for peer, quiet in holders:
            if quiet and not peer.record.proven:
                self._quiet_at[peer.address] += quiet
        self._quiet.clear()
        for peer, quiet in holders:
            self.note(peer)  # addresses become doubtful
            near, standing, _ = peer.counted
            if not (stalled and peer.record.proven):
                self._quiet[near, standing] += quiet

    def lose(self, address: str) -> None:
        """A peer of `address` has held leases and has not delivered."""
        if address in self._lost_at or len(self._lost_at) < MOST_ADDRESSES:
            self._lost_at[address] = self._lost_at.get(address, 0) + 1

    def prove(self, address: str) -> None:
        """A peer of `address` has made its first delivery."""
        if address in self._lost_at:
            self._lost_at[address] //= 2

    def clear(self) -> None:
        """No peer is left."""
        self._quiet_at.clear()
        self._lost_at.clear()

    @property
    def any_out(self) -> bool:
        """Whether any lease is out."""
        return any(self._out.values())

    @property
    def delivering(self) -> int:
        """Leases of peers that deliver."""
        return self._out[True, "proven"] + self._out[False, "proven"]

    @property
    def for_mirrors(self) -> int:
        """Leases of peers that download from mirrors."""
        return self._out[False, "proven"] + self._out[False, "new"] + self._out[False, "doubtful"]

    def for_seeders(self, *standings: Standing) -> int:
        """Leases for seeders, of peers of these standings."""
        return sum(self._out[True, standing] for standing in standings)

    def quiet_for_seeders(self, *standings: Standing) -> int:
        """Those of them that were quiet at the last look."""
        return sum(min(self._quiet[True, standing], self._out[True, standing]) for standing in standings)

    def unproven_at(self, address: str) -> int:
        """Leases that peers of `address` hold which do not deliver."""
        return self._unproven_at[address]

    def may_hold(self, peer: LeasePeer, free: int, present: int) -> int:
        """Leases that one of `present` peers may get in addition, with `free` pieces that no peer downloads."""
        held = len(peer.leased)
        if present == 1:
            return peer.record.most(UNPROVEN) - held
        most = peer.record.most(max((free + held) // (SHARE * present), 1))
        if peer.record.proven:
            return most - held
        if self.delivering and self._standing(peer) == "doubtful":
            most = 1
        return min(most - held, self._room_at(peer.address, free))

    def may_adopt(self, peer: LeasePeer, free: int) -> int:
        """Leases that a new peer may report as its own, with `free` pieces that no peer downloads.

        More than the peer would get anew: it is downloading these pieces, and another would download them again.
        """
        most = 1 if self._standing(peer) == "doubtful" else UNPROVEN
        return max(min(most, self._room_at(peer.address, free)), 0)

    def _room_at(self, address: str, free: int) -> int:
        """Leases that peers of `address` that do not deliver may get in addition."""
        held = self._unproven_at[address]
        most = max(min((free + held) // SHARE, MOST_OF_ADDRESS), LEAST_OF_ADDRESS)
        return most - max(held - self._quiet_at[address], 0)

    def _standing(self, peer: LeasePeer) -> Standing:
        if peer.record.proven:
            return "proven"
        failed = self._quiet_at[peer.address] + self._lost_at.get(peer.address, 0)
        doubtful = failed >= max(DOUBTFUL_FROM, self._unproven_at[peer.address] // DOUBTFUL_SHARE)
        return "doubtful" if doubtful or peer.record.lapses else "new"

    def _add(self, peer: LeasePeer, sign: int) -> None:
        near, standing, count = peer.counted
        self._out[near, standing] += sign * count
        self.peers[standing] += sign
        if standing != "proven":
            self._unproven_at[peer.address] += sign * count
            if not self._unproven_at[peer.address]:
                del self._unproven_at[peer.address]
