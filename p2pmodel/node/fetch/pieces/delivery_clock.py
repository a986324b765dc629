"""Whether the sources of a transfer deliver. Pure: times in seconds are passed in.

A source is as good as the bytes that come from it, whatever its connection says. After `bound` seconds in which all
sources together delivered less than a `trickle` (`core/pace`), the transfer goes round its peers and leases: it joins
the seeders in the swarm, pulls from them without leases, and then from the mirrors. That ends when peers deliver again.
It begins earlier each time: peers that deliver only what this node has pulled for them would make it wait for most of
the time.
"""

from collections.abc import Callable

from p2pmodel.core.pace import trickle

LEAST = 16 << 10
"""Bytes below which nothing was delivered, whatever the limit: one block of a peer."""

LEAST_SHARE = 1 / 4
"""Share of the bound that is waited for at least."""


class DeliveryClock:
    """Measures how long nothing was delivered. `bound` as above, in seconds; it starts at `now`. `limit` returns the
    download limit in bytes a second; 0: none."""

    def __init__(self, bound: float, now: float, limit: Callable[[], int] = int) -> None:
        self.bound = bound
        self._limit = limit
        self._since = now
        self._patience = bound
        self._swarm = self._http = 0

    def received(self, swarm: int, http: int, now: float) -> None:
        """Peers have sent `swarm` bytes so far, seeders and mirrors `http` bytes over HTTP."""
        least = self.least(self._patience)
        delivered = swarm - self._swarm >= least or (http - self._http >= least and not self.is_silent(now))
        if delivered:
            if self.is_silent(now):
                self._patience = max(self._patience / 2, LEAST_SHARE * self.bound)
            self._since = now
        if delivered or swarm < self._swarm:
            self._swarm = swarm
        if delivered or http < self._http:
            self._http = http

    def is_silent(self, now: float) -> bool:
        """Whether nothing was delivered within the bound."""
        return now - self._since >= self._patience

    def least(self, seconds: float) -> int:
        """Bytes within `seconds` that count as delivered."""
        return max(LEAST, int(trickle(self._limit()) * seconds))
