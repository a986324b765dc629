"""The leases: the peers' side as a model, and the coordinator's by the real `Leases`."""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pmodel.coordinator.client.connection import LEAST_PAUSE
from p2pmodel.coordinator.leases.crossings import ZonedLeases
from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.coordinator.leases.messages import HEARTBEAT
from p2pmodel.coordinator.server.sessions import GATHER, GATHER_A_PEER, heartbeats_of
from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.pace import Rate
from p2pmodel.node.fetch.pieces.lease_strategy import AHEAD, MOST_LEASED


@dataclass(slots=True)
class Cost:
    """The cost of the coordinator's decisions: calls, and CPU seconds in them."""

    tells: int = 0
    grants: int = 0
    leased: int = 0
    tell_seconds: float = 0.0
    grant_seconds: float = 0.0


@dataclass(slots=True)
class _SimulatedLeaseholder:
    rate: Rate
    sent: float = -1.0
    """Time of its last message."""
    next_message: float = 0.0
    granted: Grant | None = None
    pulling: set[int] = field(default_factory=set)
    """Pieces from scarce sources, and from nodes of other zones."""


class Coordination:
    """Messages of all peers and the grants.

    `scarce` gives the pieces that a peer lacks and only a source has, `held` those that it has, bit p for piece p.
    """

    def __init__(
        self,
        leases: ZonedLeases,
        piece_length: int,
        delay: float,
        scarce: Callable[[int], int],
        held: Callable[[int], int] | None = None,
    ) -> None:
        self._leases = leases
        self._piece_length = piece_length
        self._delay = delay
        self._scarce = scarce
        self._held = held
        """None: no node serves others zones."""
        self._now = 0.0
        self._peers: dict[int, _SimulatedLeaseholder] = {}
        self._due: list[tuple[float, int]] = []
        self._grants_at: float | None = None
        self._grants: list[tuple[float, dict[int, Grant]]] = []
        self.near = True
        """Whether there is a seeder to pull from."""
        self.can_pull = True
        """Whether there is any source to pull from."""
        self.cost = Cost()

    def join(self, node: int, when: float, zone: int = 0) -> None:
        """The peer sends its first message at that time."""
        if self._held is not None:
            self._leases.enter(str(node), f"zone{zone}", str(node))
        self._peers[node] = _SimulatedLeaseholder(Rate(lambda: self._now))
        self._plan(node, when)

    def leave(self, node: int, now: float) -> None:
        """Its connection ends: it is complete, or dead."""
        if self._peers.pop(node, None):
            self._leases.leave(str(node))
            self._grant_soon(now)

    def pulled(self, node: int, piece: int, size: int, now: float) -> None:
        """A leased piece has arrived at the peer."""
        if peer := self._peers.get(node):
            self._now = now
            peer.pulling.discard(piece)
            peer.rate.add(size)
            self.changed(node, now)

    def stopped(self, node: int, piece: int) -> None:
        """The peer no longer pulls the piece."""
        if peer := self._peers.get(node):
            peer.pulling.discard(piece)

    def changed(self, node: int, now: float) -> None:
        """The peer's state has changed, so it sends a message soon."""
        peer = self._peers[node]
        self._plan(node, max(now + self._delay, peer.sent + LEAST_PAUSE))

    def all_changed(self, now: float) -> None:
        """The state of all peers has changed."""
        for node in self._peers:
            self.changed(node, now)

    def step(self, now: float) -> list[tuple[int, int, int | None]]:
        """Deliver messages. Returns the nodes, the pieces that they begin to pull, and the node of another zone that
        sends each; None: a source."""
        self._now = now
        while self._due and self._due[0][0] <= now:
            when, node = heapq.heappop(self._due)
            peer = self._peers.get(node)
            if peer and peer.next_message == when:
                self._send(node, peer, now)
        if self._grants_at is not None and self._grants_at <= now:
            self._grant(now)
        return self._receive(now)

    def _plan(self, node: int, when: float) -> None:
        peer = self._peers[node]
        if peer.next_message <= self._now or when < peer.next_message:
            peer.next_message = when
            heapq.heappush(self._due, (when, node))

    def _send(self, node: int, peer: _SimulatedLeaseholder, now: float) -> None:
        demand = self._demand(node, peer)
        began = time.process_time()
        self._leases.update(str(node), demand, now)
        self.cost.tell_seconds += time.process_time() - began
        self.cost.tells += 1
        peer.sent = now
        peer.next_message = now + HEARTBEAT * heartbeats_of(len(self._peers))
        heapq.heappush(self._due, (peer.next_message, node))
        self._grant_soon(now)

    def _demand(self, node: int, peer: _SimulatedLeaseholder) -> Demand:
        ahead = 2 + int(peer.rate.value() * AHEAD / self._piece_length)
        return Demand(
            scarce=self._scarce(node),
            from_seeders=self.near,
            want=min(ahead, MOST_LEASED) if self.can_pull else 0,
            leased=bits_of(peer.pulling),
            held=self._held(node) if self._held else 0,
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
        changed = {}
        for name, grant in grants.items():
            peer = self._peers.get(int(name))
            if peer is None or peer.granted is grant:
                continue
            before, peer.granted = peer.granted or Grant(), grant
            if (before.pieces, before.crossings) != (grant.pieces, grant.crossings):
                self.cost.leased += len(set(grant.pieces) - set(before.pieces))
                changed[int(name)] = grant
        if changed:
            self._grants.append((now + self._delay, changed))

    def _receive(self, now: float) -> list[tuple[int, int, int | None]]:
        begun: list[tuple[int, int, int | None]] = []
        while self._grants and self._grants[0][0] <= now:
            for node, grant in self._grants.pop(0)[1].items():
                if peer := self._peers.get(node):
                    crossing = [(node, c.piece, int(c.address)) for c in grant.crossings or ()]
                    pulls = [*((node, piece, None) for piece in grant.pieces), *crossing]
                    begun += [each for each in pulls if each[1] not in peer.pulling]
                    peer.pulling.update(piece for _, piece, _ in pulls)
        return begun
