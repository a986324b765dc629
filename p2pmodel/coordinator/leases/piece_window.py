"""How many pieces the seeders of a swarm are asked for at a time. Pure."""


class PieceWindow:
    """The number of pieces that keep the seeders busy, and no more: what is requested together is whole together, late.

    While a piece takes less than `ENOUGH` seconds, or less than twice its best time, the window grows. In a large swarm
    a piece takes longer for another reason: each peer also downloads from all others, and the seeder is one of many
    that share its downlink. Then somewhat more than one piece for each peer keeps the seeder busy (8 peers at
    50 Mbit/s: 0.3 seconds' worth left it idle for 7 % of the time). That many are reached at once, or the seeder would
    be half idle in the first second. A peer exchanges with the peers it is connected to, `NEIGHBOURS` at most at first.
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
        if self._size < self.A_PEER * min(peers, self.NEIGHBOURS):
            step = 1.0
        else:
            step = 0.25 if self.usual < max(self.ENOUGH, 2 * self._best) else -0.25
        self._size = min(max(self._size + step, self.LEAST), self.MOST)
