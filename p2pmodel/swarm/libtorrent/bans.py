"""Whom to believe guilty when libtorrent bans a peer.

libtorrent bans the sender of a piece that fails, but of a piece that two peers filled together it sometimes blames the
honest one alone: about one ban in thirty, mostly close behind a right one. Every banned peer may come back from
another port a few seconds later, the honest as well as the guilty, and only the guilty is banned again and again. So
bans are weighed: a first one counts more than one in the shadow of another peer's, and an address is believed guilty
unless another is twice as much so.
"""

from collections.abc import Callable

SHADOW_SECONDS = 3.0
"""How long after a ban the pieces in flight may put the blame on the wrong peer."""


class Bans:
    """Bans of one torrent, weighed. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._weight: dict[str, int] = {}
        self._last: dict[str, float] = {}

    @property
    def addresses(self) -> frozenset[str]:
        """Those believed guilty by now."""
        most = max(self._weight.values(), default=0)
        return frozenset(address for address, weight in self._weight.items() if 2 * weight > most)

    def add(self, address: str) -> bool:
        """Take in a ban; returns whether that makes `address` believed guilty, which it was not before."""
        before = self.addresses
        now = self._clock()
        shadowed = any(now - last < SHADOW_SECONDS for other, last in self._last.items() if other != address)
        self._weight[address] = self._weight.get(address, 0) + (1 if shadowed else 2)
        self._last[address] = now
        return address in self.addresses - before
