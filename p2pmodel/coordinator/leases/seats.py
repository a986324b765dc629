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


class PieceWindow:
    """The number of pieces that keep the seeders busy, and no more: what is requested together is whole together, late.

    While a piece takes less than `ENOUGH` seconds, or less than twice its best time, the window grows. In a large swarm
    a piece takes longer for another reason: each peer also downloads from all others, and the seeder is one of many
    that share its downlink. Then somewhat more than one piece for each peer keeps the seeder busy (8 peers at
    50 Mbit/s: 0.3 seconds' worth left it idle for 7 % of the time). That many are reached at once, or the seeder would
    be half idle in the first second. A peer exchanges with the peers it is connected to, `NEIGHBOURS` at most at first.
    One peer alone has none to exchange with, and reaches the number that keeps the seeder busy at once.
    Where that many pieces are less than `ENOUGH` seconds, the seeder was idle for 5 % (8 peers, 1.07 GB at 100 Mbit/s:
    1.08 of the bound with 0.3 seconds, 1.065 with 0.6, 1.07 with 1). Near the end the window shrinks, so that the last
    pieces do not all wait to be exchanged at the same time.
    """

    LEAST = 2
    MOST = 4096
    ENOUGH = 0.6
    A_PEER = 1.25
    NEIGHBOURS = 51
    OF_THE_REST = 2

    FIRST = 64
    """Pieces that may be requested before the first one has come."""

    def __init__(self) -> None:
        self._size = float(self.LEAST)
        self._best = float("inf")
        self.usual = 0.0
        """Seconds that a piece takes, smoothed."""

    def size(self, rest: int) -> int:
        """Pieces to request now, with `rest` pieces that no peer downloads yet."""
        return int(min(self._size, max(2 * self.LEAST, rest / self.OF_THE_REST)))

    def took(self, seconds: float, peers: int) -> None:
        """Note that a piece came `seconds` after it was leased, to one of `peers`."""
        self._best = min(self._best * 1.01, seconds)  # links change: the best time expires
        self.usual += (seconds - self.usual) / 8 if self.usual else seconds
        if self._size < self.A_PEER * min(peers, self.NEIGHBOURS) or (peers <= 1 and self.usual < self.ENOUGH):
            step = 1.0
        else:
            step = 0.25 if self.usual < max(self.ENOUGH, 2 * self._best) else -0.25
        self._size = min(max(self._size + step, self.LEAST), self.MOST)


class Seats:
    """The leases that `counts` counts. `first`: seconds that the first piece of a peer may take."""

    def __init__(self, counts: LeaseCounts, first: float) -> None:
        self._counts = counts
        self._window = PieceWindow()
        self.first = first
        self._delivered: float | None = None
        """When a piece came last."""
        self.front = float("-inf")
        """When the lease began that began last of those that were delivered."""

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
        self.front = max(self.front, now - seconds)

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
