"""The peers' side of the leases and the coordinator's, which is the product's own `Leases`."""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pmodel.coordinator.client.connection import LEAST_PAUSE
from p2pmodel.coordinator.lease_messages import HEARTBEAT
from p2pmodel.coordinator.leases import Demand, Leases, bits_of
from p2pmodel.coordinator.server.sessions import GATHER, GATHER_A_PEER
from p2pmodel.core.rate import Rate
from p2pmodel.node.fetch.piece_feed import AHEAD, MOST_LEASED


@dataclass(slots=True)
class Cost:
    """What the coordinator's decisions took: calls, and CPU seconds in them."""

    tells: int = 0
    grants: int = 0
    leased: int = 0
    tell_seconds: float = 0.0
    grant_seconds: float = 0.0


@dataclass(slots=True)
class _SimulatedLeaseholder:
    rate: Rate
    told: float = -1.0
    tells_at: float = 0.0
    granted: tuple[int, ...] = ()
    pulling: set[int] = field(default_factory=set)


class Coordination:
    """Words of all peers and the answers. `scarce` tells of a peer what it lacks as only a source has it."""

    def __init__(
        self,
        leases: Leases,
        piece_length: int,
        delay: float,
        scarce: Callable[[int], int],
    ) -> None:
        self._leases = leases
        self._piece_length = piece_length
        self._delay = delay
        self._scarce = scarce
        self._now = 0.0
        self._peers: dict[int, _SimulatedLeaseholder] = {}
        self._due: list[tuple[float, int]] = []
        self._grants_at: float | None = None
        self._answers: list[tuple[float, dict[int, tuple[int, ...]]]] = []
        self.near = True
        """Whether there is a seeder to pull from."""
        self.can_pull = True
        """Whether there is anybody."""
        self.cost = Cost()

    def join(self, node: int, when: float) -> None:
        """The peer says its first word then."""
        self._peers[node] = _SimulatedLeaseholder(Rate(lambda: self._now))
        self._plan(node, when)

    def leave(self, node: int, now: float) -> None:
        """Its connection ends: it has all, or is dead."""
        if self._peers.pop(node, None):
            self._leases.leave(str(node))
            self._grant_soon(now)

    def brought(self, node: int, piece: int, size: int, now: float) -> None:
        """What the peer pulled is here."""
        if peer := self._peers.get(node):
            self._now = now
            peer.pulling.discard(piece)
            peer.rate.add(size)
            self.changed(node, now)

    def stopped(self, node: int, piece: int) -> None:
        """It pulls that no more."""
        if peer := self._peers.get(node):
            peer.pulling.discard(piece)

    def changed(self, node: int, now: float) -> None:
        """There is news of the peer."""
        peer = self._peers[node]
        self._plan(node, max(now + self._delay, peer.told + LEAST_PAUSE))

    def all_changed(self, now: float) -> None:
        """As of all peers."""
        for node in self._peers:
            self.changed(node, now)

    def step(self, now: float) -> list[tuple[int, int]]:
        """Let words pass. The nodes, and the pieces that they begin to pull."""
        self._now = now
        while self._due and self._due[0][0] <= now:
            when, node = heapq.heappop(self._due)
            peer = self._peers.get(node)
            if peer and peer.tells_at == when:
                self._tell(node, peer, now)
        if self._grants_at is not None and self._grants_at <= now:
            self._grant(now)
        return self._heard(now)

    def _plan(self, node: int, when: float) -> None:
        peer = self._peers[node]
        if peer.tells_at <= self._now or when < peer.tells_at:
            peer.tells_at = when
            heapq.heappush(self._due, (when, node))

    def _tell(self, node: int, peer: _SimulatedLeaseholder, now: float) -> None:
        demand = self._demand(node, peer)
        began = time.process_time()
        self._leases.update(str(node), demand, now)
        self.cost.tell_seconds += time.process_time() - began
        self.cost.tells += 1
        peer.told = now
        peer.tells_at = now + HEARTBEAT
        heapq.heappush(self._due, (peer.tells_at, node))
        self._grant_soon(now)

    def _demand(self, node: int, peer: _SimulatedLeaseholder) -> Demand:
        coming = peer.rate.value()
        ahead = 2 + int(coming * AHEAD / self._piece_length)
        return Demand(
            scarce=self._scarce(node),
            from_seeders=self.near,
            want=min(ahead, MOST_LEASED) if self.can_pull else 0,
            leased=bits_of(peer.pulling),
        )

    def _grant_soon(self, now: float) -> None:
        if self._grants_at is None:
            self._grants_at = now + GATHER + GATHER_A_PEER * len(self._peers)

    def _grant(self, now: float) -> None:
        self._grants_at = None
        began = time.process_time()
        grants = self._leases.grant(now)
        self.cost.grant_seconds += time.process_time() - began
        self.cost.grants += 1
        news = {}
        for name, grant in grants.items():
            peer = self._peers.get(int(name))
            if peer and peer.granted != grant.pieces:
                self.cost.leased += len(set(grant.pieces) - set(peer.granted))
                peer.granted = grant.pieces
                news[int(name)] = grant.pieces
        if news:
            self._answers.append((now + self._delay, news))

    def _heard(self, now: float) -> list[tuple[int, int]]:
        begun = []
        while self._answers and self._answers[0][0] <= now:
            for node, pieces in self._answers.pop(0)[1].items():
                if peer := self._peers.get(node):
                    begun += [(node, piece) for piece in pieces if piece not in peer.pulling]
                    peer.pulling.update(pieces)
        return begun
