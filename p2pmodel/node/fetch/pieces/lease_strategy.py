"""Pull the pieces that a coordinator leases to this node, and state what the node demands."""

import time

from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.node.fetch.pieces.strategy import FeedState

CONNECT_WITHIN = 1.5
"""Seconds after joining in which a connection to a peer that has a piece comes up, if such a peer exists."""
AHEAD = 0.5
"""Seconds of pulling that are leased ahead."""
MOST_LEASED = 64


class LeaseStrategy:
    """The leases of one transfer; satisfies `PieceStrategy`.

    `mean_piece` is the mean piece size in bytes: pieces of small files are smaller than the torrent's piece length.
    `connect_within` replaces CONNECT_WITHIN.
    """

    refills_at_once = True

    def __init__(self, mean_piece: float, *, connect_within: float | None = None) -> None:
        self._mean_piece = mean_piece
        self._connect_within = connect_within
        self._began = time.monotonic()
        self._grant: Grant | None = None
        self._late = False
        self._demanded_from_seeders = False

    @property
    def connected_at(self) -> float:
        """When (`time.monotonic()`) mirrors are asked at the latest: peers that may have the pieces connect first."""
        return self._began + (CONNECT_WITHIN if self._connect_within is None else self._connect_within)

    @property
    def refused(self) -> bool:
        """Whether the coordinator leases no more pieces from mirrors, because the swarm's budget is spent."""
        return self._grant is not None and self._grant.refused

    @property
    def has_others(self) -> bool:
        """Whether the coordinator serves other peers of the swarm, too."""
        return self._grant is not None and self._grant.peers > 1

    def take(self, grant: Grant | None, *, late: bool) -> None:
        """Replace the grant (None: no coordinator); `late`: peers that may have the pieces must connect first."""
        self._grant, self._late = grant, late

    async def prepare(self, now: float) -> None:
        """Nothing: a grant arrives by itself."""

    def choose(self, state: FeedState) -> list[int]:
        """Leased orphan pieces that are not pulled yet."""
        if self._grant is None or self._is_early(state):
            return []
        if self._demanded_from_seeders and not state.from_seeders:
            return []  # leased for a seeder: only a new grant accounts for the budget of the mirrors
        orphans = state.orphans
        return [p for p in self._grant.pieces if p in orphans and p not in state.refused and p not in state.in_flight]

    def demand(self, state: FeedState) -> Demand:
        """The demand to send to the coordinator."""
        self._demanded_from_seeders = state.from_seeders
        can_pull = state.can_pull and not self._is_early(state)
        ahead = 2 + int(state.rate * AHEAD / self._mean_piece)
        orphans = state.orphans
        return Demand(
            scarce=bits_of(orphans if state.from_seeders else orphans - state.refused),
            from_seeders=state.from_seeders,
            want=min(ahead, MOST_LEASED) if can_pull else 0,
            origin_bytes=state.origin_bytes,
            leased=bits_of(state.in_flight),
        )

    def _is_early(self, state: FeedState) -> bool:
        """Whether peers that may have the pieces have had no time to connect yet. Seeders are spared only when no peer
        can have anything: all peers start together."""
        return self._grant is not None and (self._late or not state.from_seeders) and state.now < self.connected_at
