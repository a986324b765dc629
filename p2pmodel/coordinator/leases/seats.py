"""How many leases for seeders may be given now, to peers of good standing and to doubtful ones. Pure.

1. `PieceWindow` finds how many keep the seeders busy. Peers of good standing get as many, whatever doubtful ones hold.
2. Doubtful peers get those that are left, and one in `TRIAL` at least: with a small part of the pieces each can show
   that it delivers.
3. Quiet leases (`LeaseCounts`) keep no other peer from seeders. Before the first piece has come, twice as many others
   are tried: the more peers never pull, the longer all others would wait.
"""

from collections.abc import Iterable

from p2pmodel.coordinator.leases.lease_counts import LeaseCounts
from p2pmodel.coordinator.leases.peer import LeasePeer, Standing
from p2pmodel.coordinator.leases.piece_window import PieceWindow

SLOW = 3.0
"""How many times longer than usual a peer's leases may take."""
QUIET = 2.0
"""Seconds for which a lease is not quiet, as long as it is not known how long a piece takes."""
QUIET_AT_FIRST = 0.4
"""The same while few are out: all peers are tried soon, and a few leases too many do not burden the seeders."""
LATE_AT_LEAST = 1.0
"""The same once it is known."""
TRIAL = 8
"""One in so many of the leases is for doubtful peers, if such peers wait."""


class Seats:
    """The leases that `counts` counts. `first`: seconds that the first piece of a peer may take."""

    def __init__(self, counts: LeaseCounts, first: float) -> None:
        self._counts = counts
        self._window = PieceWindow()
        self.first = first
        self._delivered: float | None = None
        """When a piece came last."""

    @property
    def usual(self) -> float:
        """Seconds that a piece takes, smoothed; 0 before the first has come."""
        return self._window.usual

    @property
    def patience(self) -> float:
        """Seconds after which a lease is quiet."""
        if self._delivered is not None:
            return max(LATE_AT_LEAST, SLOW * self.usual)
        few = self._in_use("new", "doubtful") < self._window.FIRST
        return QUIET_AT_FIRST if few else max(QUIET, self.first / 4)

    def took(self, seconds: float, now: float) -> None:
        """Note that a piece came `seconds` after it was leased."""
        self._window.took(seconds, self._counts.peers["proven"] + self._counts.peers["new"])
        self._delivered = now

    def look(self, peers: Iterable[LeasePeer], now: float) -> None:
        """Count the quiet leases anew."""
        stalled = self._delivered is not None and now - self._delivered > self.patience
        self._counts.look(peers, now - self.patience, stalled=stalled)

    def room(self, free: int, *, doubtful: bool) -> int:
        """Leases that may be given, with `free` pieces, to doubtful peers or to others."""
        size = self._window.size(free)
        if self._delivered is None:
            return size + self._counts.quiet_for_seeders("new", "doubtful") - self._in_use("new", "doubtful")
        left = size - self._in_use("proven", "new")
        return max(left, size // TRIAL, 1) - self._in_use("doubtful") if doubtful else left

    def _in_use(self, *standings: Standing) -> int:
        return self._counts.for_seeders(*standings) - self._counts.quiet_for_seeders(*standings)
