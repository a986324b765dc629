"""How many leases a peer may hold: that follows from what it has delivered, never from what it says of itself. Pure.

1. A peer that has delivered nothing holds few leases, and all such peers of one address together hold a bounded number.
2. After leases that lapse without a delivery a peer gets one lease at a time, and none for a time that doubles.
   A delivery, a late one too, ends that.
3. A delivery that reaches no other peer is no delivery. A peer with many such deliveries counts as one that delivers
   nothing.
4. Leases lost to connections that come and go shrink the number for new peers of their address.
"""

from dataclasses import dataclass

UNPROVEN = 64
"""Leases of a peer before its first delivery, and that many more than twice what it delivered later."""
PROVE_WITHIN = 10.0
"""Seconds after which a lease of a peer that has delivered nothing is given to another peer."""
QUIET = 2.0
"""Seconds after which such a lease does not keep others from seeders."""
LEAST = 2
"""Leases that each of them may hold, however many there are."""
BARRED_FOR = 10.0
"""Seconds without leases after the first lapse; twice as long after each further one."""
MOST_DOUBLINGS = 5
IN_VAIN = 0.125
"""Share of deliveries that reached no other peer from which a peer counts as one that delivers nothing."""
MOST_OF_ADDRESS = 256
"""Leases of all peers of one address together that have delivered nothing."""
LEAST_OF_ADDRESS = 4
LOSSES = 4
"""Leases lost to departed peers of an address after which `MOST_OF_ADDRESS` is halved for it."""
MOST_ADDRESSES = 10_000
"""Most addresses with losses that are remembered."""


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

    @property
    def most(self) -> int:
        """Leases that it may hold."""
        return 1 if self.lapses else UNPROVEN + 2 * self.delivered

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


class AddressShares:
    """Leases of peers without a delivery, by address."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._losses: dict[str, int] = {}

    def room(self, address: str) -> int:
        """Leases that such peers of `address` may get in addition."""
        most = MOST_OF_ADDRESS >> min(self._losses.get(address, 0) // LOSSES, MOST_OF_ADDRESS.bit_length())
        return max(most, LEAST_OF_ADDRESS) - self._held.get(address, 0)

    def change(self, address: str, by: int) -> None:
        """They hold that many more."""
        if held := self._held.get(address, 0) + by:
            self._held[address] = held
        else:
            self._held.pop(address, None)

    def lose(self, address: str) -> None:
        """Such a peer of `address` has left with leases."""
        if address in self._losses or len(self._losses) < MOST_ADDRESSES:
            self._losses[address] = self._losses.get(address, 0) + 1

    def prove(self, address: str) -> None:
        """A peer of `address` has made its first delivery."""
        if address in self._losses:
            self._losses[address] //= 2

    def clear(self) -> None:
        """No peer is left."""
        self._held.clear()
        self._losses.clear()
