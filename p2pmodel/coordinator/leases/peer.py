"""One peer of `coordinator/leases`, and the order in which waiting peers get leases. Pure.

How many leases a peer may hold follows from what it has delivered, never from what it says of itself:

1. A peer that has delivered nothing holds few leases. The number grows with what it delivers.
2. After leases that lapse without a delivery a peer gets one lease at a time, and none for a time that doubles.
   A delivery, a late one too, ends that.
3. A delivery that reaches no other peer is no delivery. A peer with many such deliveries counts as one that delivers
   nothing.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.origin_budget import OriginCount

UNPROVEN = 64
"""Most leases of a peer before its first delivery."""
LEAST, GROWTH = 2, 2
"""Leases that a peer may hold once it delivers, and that many more for each piece that it has delivered."""
PROVE_WITHIN = 10.0
"""Seconds after which a lease of a peer that has delivered nothing is given to another peer."""
BARRED_FOR = 10.0
"""Seconds without leases after the first lapse; twice as long after each further one."""
MOST_DOUBLINGS = 5
IN_VAIN = 0.125
"""Share of deliveries that reached no other peer from which a peer counts as one that delivers nothing."""


@dataclass(slots=True)
class DeliveryRecord:
    """One peer's record."""

    delivered: int = 0
    in_vain: int = 0
    """Deliveries that reached no other peer."""
    lapses: int = 0
    """Times that leases lapsed since the last delivery."""
    barred_until: float = 0.0

    @property
    def proven(self) -> bool:
        """Whether it delivers."""
        return self.delivered > 0 and not self.lapses

    def most(self, share: int) -> int:
        """Leases that it may hold, if `share` is its share of the pieces: a part of an equal one."""
        if self.lapses:
            return 1
        return max(min(share, UNPROVEN), LEAST + GROWTH * self.delivered if self.delivered else 1)

    def is_barred(self, now: float) -> bool:
        """Whether it gets no lease now, as long as others can take it."""
        return now < self.barred_until

    def deliver(self, pieces: int) -> None:
        """It delivered that many pieces."""
        self.delivered += pieces
        if self.in_vain <= IN_VAIN * self.delivered:
            self.lapses, self.barred_until = 0, 0.0

    def lapse(self, now: float) -> None:
        """Some of its leases ended without a delivery. The first time this may be one slow piece among many."""
        before = self.lapses if self.delivered else self.lapses + 1
        if before:
            self.barred_until = now + BARRED_FOR * 2 ** min(before - 1, MOST_DOUBLINGS)
        self.lapses += 1

    def deliver_in_vain(self, now: float) -> None:
        """A piece that it delivered reached no other peer."""
        self.in_vain += 1
        if self.in_vain > IN_VAIN * self.delivered and not self.is_barred(now):
            self.lapse(now)


Standing = Literal["proven", "new", "doubtful"]
"""Whether a peer delivers; `LeaseCounts` distinguishes the others."""

SILENCE = 5.0
"""Seconds without a message after which a peer counts as gone."""
OUT_FOR = 30.0
"""Seconds for which a delivered piece is left to spread."""


MOST_LAPSED = 4096
"""Leases that ended without a delivery and are remembered, by peer."""


@dataclass(slots=True)
class LeasePeer:
    """Times in seconds."""

    demand: Demand
    seen: float
    address: str
    origin: OriginCount
    wanted: int = 0
    """Scarce pieces that it can get by a lease alone."""
    record: DeliveryRecord = field(default_factory=DeliveryRecord)
    lapsed: dict[int, float] = field(default_factory=dict)
    """When each lease began that ended without a delivery, by piece: it may come late."""
    counted: tuple[bool, Standing, int] = (False, "new", 0)
    """What `LeaseCounts` has of it: whether its leases are for seeders, its standing, and their number."""
    leased: dict[int, float] = field(default_factory=dict)
    """When each lease began, by piece."""
    delivered: list[tuple[float, int]] = field(default_factory=list)
    """When it downloaded which pieces under a lease; the older are dropped."""
    took: float = 0.0
    """Seconds that its leases take, smoothed; 0 before the first has ended."""
    tried: float = 0.0
    """When the last one ended."""
    longest: float = 0.0
    """Seconds that the longest took."""

    @property
    def count(self) -> int:
        """Pieces it has delivered in all."""
        return self.record.delivered

    def note(self, seconds: float, now: float, *, ended: bool = False) -> None:
        """Note that a lease took `seconds`; `ended`: that it ended then without a delivery, and would take longer."""
        self.took = (self.took + seconds) / 2 if self.took else seconds
        self.longest = max(self.longest, 2 * seconds if ended else seconds)
        self.tried = now

    def forfeit(self, pieces: Iterable[int]) -> None:
        """Leases of `pieces` end without a delivery."""
        self.lapsed |= {piece: self.leased[piece] for piece in pieces}
        while len(self.lapsed) > MOST_LAPSED:
            del self.lapsed[next(iter(self.lapsed))]

    def pop_late(self) -> dict[int, float]:
        """Forget the lapsed leases of which the piece is there by now; returns when each began."""
        come = {piece: since for piece, since in self.lapsed.items() if not self.demand.scarce >> piece & 1}
        for piece in come:
            del self.lapsed[piece]
        return come

    @property
    def doubtful(self) -> bool:
        """Whether it, or its address, holds leases and does not deliver."""
        return self.counted[1] == "doubtful"

    @property
    def waits(self) -> bool:
        """Whether it would take another lease."""
        return len(self.leased) < self.demand.want and self.wanted != 0

    @property
    def earliest_expiry(self) -> float:
        """When it, a lease or a delivery may expire at the earliest."""
        delivered = self.delivered[0][0] if self.delivered else float("inf")
        leased = min(self.leased.values(), default=float("inf"))
        return min(self.seen + SILENCE, delivered + OUT_FOR, leased + PROVE_WITHIN)


NamedPeer = tuple[str, LeasePeer]


def by_leases(peers: Iterable[NamedPeer]) -> Iterator[NamedPeer]:
    """Those with the fewest leases first, then in the order of `peers`. Lazy: most grants end with the first few."""
    others: dict[int, list[NamedPeer]] = {}
    for name, peer in peers:
        if peer.leased:
            others.setdefault(len(peer.leased), []).append((name, peer))
        else:
            yield name, peer
    for count in sorted(others):
        yield from others[count]


def by_address(peers: Iterable[NamedPeer], leases_at: Callable[[str], int]) -> Iterator[NamedPeer]:
    """Those without a lapsed lease first, then those of the address with the fewest leases, then by their own leases,
    then in the order of `peers`. A peer that has got a lease, and waits for another, comes again.

    So an address with many peers gets no more than one with a few, as long as both wait.
    """
    number = itertools.count()

    def entry(name: str, peer: LeasePeer) -> tuple[int, int, int, int, str, LeasePeer]:
        return peer.record.lapses, leases_at(peer.address), len(peer.leased), next(number), name, peer

    heap = [entry(name, peer) for name, peer in peers]
    heapq.heapify(heap)
    while heap:
        _, counted, held, _, name, peer = first = heapq.heappop(heap)
        if leases_at(peer.address) > counted:  # others of its address have got some meanwhile
            heapq.heappush(heap, (first[0], leases_at(peer.address), *first[2:]))
            continue
        yield name, peer
        if len(peer.leased) > held and peer.waits:
            heapq.heappush(heap, entry(name, peer))
