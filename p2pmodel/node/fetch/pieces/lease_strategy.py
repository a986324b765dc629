"""Pull the pieces that a coordinator leases to this node, and state what the node demands."""

import time
from collections.abc import Mapping

from p2pmodel.coordinator.leases.demand import Crossing, Demand, Grant
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.node.fetch.pieces.feed_ports import FeedState

CONNECT_WITHIN = 1.5
"""Seconds after joining in which a connection to a peer that has a piece comes up, if such a peer exists."""
AHEAD = 0.5
"""Seconds of pulling that are leased ahead."""
MOST_LEASED = 64
AT_FIRST = 16
"""Most pieces that a node without others pulls at a time while its rate is not known."""


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
        self.crossings: Mapping[int, Crossing] = {}
        """Pieces to pull from nodes of other zones."""

    @property
    def connected_at(self) -> float:
        """When (`time.monotonic()`) mirrors are asked at the latest: peers that may have the pieces connect first."""
        return self._began + self.connect_within

    @property
    def connect_within(self) -> float:
        """Seconds in which a connection to a peer comes up, if there is one."""
        return CONNECT_WITHIN if self._connect_within is None else self._connect_within

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
        self.crossings = {each.piece: each for each in (grant and grant.crossings) or ()}

    async def prepare(self, now: float) -> None:
        """Nothing: a grant arrives by itself."""

    def choose(self, state: FeedState) -> list[int]:
        """Orphan pieces that are leased or cross, and are not pulled yet. Where no peer connects to this node, any:
        what others deliver would be leased to it late, and count as delivered in vain."""
        if state.http_only and state.from_seeders:
            waiting = sorted(state.orphans - state.refused - state.in_flight)
            return waiting[: max(0, self._ahead(state) - len(state.in_flight))]
        if self._grant is None or state.handed_over or (self._late and self._is_early(state)):
            return []
        orphans = state.orphans
        return [p for p in (*self._leased(state), *self.crossings) if p in orphans and p not in state.in_flight]

    def _leased(self, state: FeedState) -> list[int]:
        if self._grant is None or self._is_early(state) or not state.can_pull:
            return []
        if self._demanded_from_seeders and not state.from_seeders:
            return []  # leased for a seeder: only a new grant accounts for the budget of the mirrors
        return [piece for piece in self._grant.pieces if piece not in state.refused]

    def demand(self, state: FeedState) -> Demand:
        """The demand to send to the coordinator."""
        self._demanded_from_seeders = state.from_seeders
        can_pull = state.can_pull and not (state.http_only or state.handed_over or self._is_early(state))
        orphans = state.orphans
        return Demand(
            scarce=bits_of(orphans | self._owed(state) if state.from_seeders else orphans - state.refused),
            from_seeders=state.from_seeders,
            want=self._ahead(state) if can_pull else 0,
            origin_bytes=state.origin_bytes,
            leased=0 if state.http_only else bits_of(state.in_flight),
        )

    def _ahead(self, state: FeedState) -> int:
        """Pieces to pull at a time: two more than `AHEAD` takes. A node without others, which keeps nothing from them,
        asks for one more with each piece that comes, until its rate is known."""
        if not state.rate and not self.has_others:
            return min(2 + state.pulled, AT_FIRST)
        return min(2 + int(state.rate * AHEAD / self._mean_piece), MOST_LEASED)

    def _owed(self, state: FeedState) -> set[int]:
        """Missing pieces that are leased to this node. The peer that has them may be a seeder, which this node has
        joined in the swarm: to the coordinator they would be delivered, and no other peer would get them."""
        return {p for p in self._grant.pieces if p in state.missing} if self._grant else set()

    def _is_early(self, state: FeedState) -> bool:
        """Whether peers that may have the pieces have had no time to connect yet. Seeders are spared only when no peer
        can have anything: all peers start together."""
        return self._grant is not None and (self._late or not state.from_seeders) and state.now < self.connected_at
