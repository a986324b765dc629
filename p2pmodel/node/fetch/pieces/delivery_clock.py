"""Whether the sources of a transfer deliver. Pure: times in seconds are passed in.

A source is as good as the bytes that come from it, whatever its connection says. After `bound` seconds in which all
sources together delivered less than a `trickle` (`core/pace`), the transfer goes round its peers and leases: it joins
the seeders in the swarm, pulls from them without leases, and then from the mirrors. That ends when peers deliver again.
It begins earlier each time: peers that deliver only what this node has pulled for them would make it wait for most of
the time.

Where seeders or mirrors then deliver a trickle as the peers do, the slow link is this node's own. Going round is in
vain: it ends, and begins later each time. Else such a node would take a copy of its own from the mirrors, and would
still be at it when its link is quick again.
"""

from collections.abc import Callable

from p2pmodel.core.pace import trickle

LEAST = 16 << 10
"""Bytes below which nothing was delivered, whatever the limit: one block of a peer."""

LAST_SHARE = 0.3
"""Share of the bound that is waited for where only the last pieces are missing, and peers have all of them."""
LEAST_SHARE, MOST_TIMES = 1 / 4, 8
"""Share of the bound that is waited for at least, and multiple of it that is waited for at most."""


class DeliveryClock:
    """Measures how long nothing was delivered. `bound` as above, in seconds; it starts at `now`. `limit` returns the
    download limit in bytes a second; 0: none."""

    def __init__(self, bound: float, now: float, limit: Callable[[], int] = int) -> None:
        self.bound = bound
        self._limit = limit
        self._since = now
        self._patience = bound
        self._swarm = self._http = 0
        self.last = False
        """Whether only the last pieces are missing, and connected peers have all of them. A peer that pulled one under
        a lease, with a slow link, is the only one to have it: all others would wait for its uplink."""
        self._round: tuple[float, int, int] | None = None
        """While silent: when the transfer began to go round, or was last seen to have gained by it, and both counts."""

    def received(self, swarm: int, http: int, now: float) -> None:
        """Peers have sent `swarm` bytes so far, seeders and mirrors `http` bytes over HTTP."""
        least = self.least(self._wait)
        silent = self.is_silent(now)
        delivered = swarm - self._swarm >= least or (http - self._http >= least and not silent)
        if delivered:
            before = self._patience
            self._patience = max(before / 2, LEAST_SHARE * self.bound) if silent else min(before, self.bound)
        delivered = delivered or (silent and self._is_in_vain(swarm, http, now))
        if delivered:
            self._since, self._round = now, None
        if delivered or swarm < self._swarm:
            self._swarm = swarm
        if delivered or http < self._http:
            self._http = http

    def _is_in_vain(self, swarm: int, http: int, now: float) -> bool:
        """Whether all sources have delivered a trickle for as long as the bound: the next time begins later."""
        if self._round is None or swarm < self._round[1] or http < self._round[2]:
            self._round = now, swarm, http
        began, swarm_before, http_before = self._round
        if now - began < self.bound:
            return False
        self._round = now, swarm, http
        most = self.least(now - began)
        if not all(LEAST <= came < most for came in (swarm - swarm_before, http - http_before)):
            return False
        self._patience = min(max(2 * self._patience, self.bound), MOST_TIMES * self.bound)
        return True

    def is_silent(self, now: float) -> bool:
        """Whether nothing was delivered within the bound."""
        return now - self._since >= self._wait

    @property
    def _wait(self) -> float:
        return min(self._patience, LAST_SHARE * self.bound) if self.last else self._patience

    def least(self, seconds: float) -> int:
        """Bytes within `seconds` that count as delivered."""
        return max(LEAST, int(trickle(self._limit()) * seconds))


TRIAL = 3.0
"""Seconds of a trial, or the bound of the clock where that is shorter."""


class SeederTrial:
    """Trials of the seeders, one after the other, as long as `clock` is silent: whether they deliver over HTTP.

    While a transfer goes round its peers and leases, it asks the seeders first. A seeder that sends a trickle does not
    fail, so without a trial the mirrors would never be asked.
    """

    def __init__(self, clock: DeliveryClock) -> None:
        self._clock = clock
        self._within = min(TRIAL, clock.bound)
        self._began: tuple[float, int] | None = None
        self.failed = False
        """Whether they delivered a trickle, or nothing, in this silence."""

    def look(self, received: int, now: float, *, silent: bool) -> None:
        """They have sent `received` bytes so far."""
        if not silent:
            self._began, self.failed = None, False
        elif self._began is None or received < self._began[1]:
            self._began = now, received
        elif now - self._began[0] >= self._within:
            self.failed = self.failed or received - self._began[1] < self._clock.least(self._within)
            self._began = now, received
