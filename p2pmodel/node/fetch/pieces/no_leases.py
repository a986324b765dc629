"""A leaseholder that asks for nothing."""

from p2pmodel.node.fetch.pieces.feed import PieceFeed
from p2pmodel.swarm.engine import SwarmTorrent


class NoLeases:
    """Stands for a `Leaseholder` where nothing is missing or no coordinator is configured."""

    shuns_seeders = False

    def arrived(self, piece: int) -> None:
        """Nothing to report."""

    def complain(self, piece: int, peer: str) -> None:
        """Nothing to report to."""

    def complain_of_seeders(self, piece: int) -> None:
        """Nothing to report to."""

    def hold(self, torrent: SwarmTorrent, feed: PieceFeed) -> None:
        """Nothing to hold."""

    async def run(self) -> None:
        """Nothing to follow."""
