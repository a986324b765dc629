"""How many leases a peer may hold: that follows from what it has delivered, never from what it says of itself. Pure.

1. A peer that has delivered nothing holds few leases. The number grows with what it delivers.
2. After leases that lapse without a delivery a peer gets one lease at a time, and none for a time that doubles.
   A delivery, a late one too, ends that.
3. A delivery that reaches no other peer is no delivery. A peer with many such deliveries counts as one that delivers
   nothing.
"""

from dataclasses import dataclass

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
