"""Weighing of libtorrent's bans, which sometimes hit an honest peer.

libtorrent bans the sender of a piece that fails. If two peers sent one piece together, it sometimes bans the honest one
alone: about one ban in thirty, mostly soon after a right one. Every banned peer can reconnect from another port a few
seconds later, and only a guilty one is banned repeatedly. So a ban soon after the ban of another peer weighs less. An
address counts as guilty unless another one has twice its weight.
"""

from collections.abc import Callable

SHADOW_SECONDS = 3.0
"""Seconds after a ban in which pieces in flight may cause the ban of an honest peer."""


class Bans:
    """Weighted bans of one torrent. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._weight: dict[str, int] = {}
        self._last: dict[str, float] = {}

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses that count as guilty now."""
        most = max(self._weight.values(), default=0)
        return frozenset(address for address, weight in self._weight.items() if 2 * weight > most)

    def add(self, address: str) -> bool:
        """Add a ban; whether `address` counts as guilty now, and did not before."""
        before = self.addresses
        now = self._clock()
        shadowed = any(now - last < SHADOW_SECONDS for other, last in self._last.items() if other != address)
        self._weight[address] = self._weight.get(address, 0) + (1 if shadowed else 2)
        self._last[address] = now
        return address in self.addresses - before
