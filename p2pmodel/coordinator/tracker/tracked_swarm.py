"""The clients of one torrent at a tracker, and which of them make up one node.

Each engine of a node with several announces as a client of its own. Peers are chosen by node, and a node counts once. A
client gets those engines of a node that have pieces it wants.
"""

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from p2pmodel.coordinator.tracker.peer_sets import PeerRecord, PeerSets
from p2pmodel.coordinator.tracker.sources import Role
from p2pmodel.swarm.peer_ids import ONLY_ENGINE, EngineNumber, engine_number, node_of

Event = Literal["", "started", "stopped", "completed", "paused"]
"""`paused`: the client has all the files it wants, but not all of the torrent (BEP 21)."""

UNKNOWN = 1 << 64
"""Bytes left of a client that does not send them."""


@dataclass(frozen=True, slots=True)
class Announce:
    """A client's announce. `left` is in bytes, None if it is not sent; `key` proves that it is the same client; `zone`
    is the label of its rack or site."""

    info_hash: bytes
    peer_id: bytes
    port: int
    left: int | None = None
    event: Event = ""
    numwant: int = 50
    key: bytes = b""
    zone: bytes = b""
    role: Role = ""

    @property
    def seeding(self) -> bool:
        """Whether the client has all pieces."""
        return self.left == 0 or self.event == "completed"


@dataclass(frozen=True, slots=True)
class TrackedPeer:
    """A listed client. An endpoint is a packed address and a big-endian port: 6 bytes (BEP 23) or 18 (BEP 7)."""

    peer_id: bytes
    endpoints: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """A swarm in numbers, by node; `completed` counts the downloads that ended while the swarm was known."""

    seeders: int = 0
    leechers: int = 0
    completed: int = 0


@dataclass(frozen=True, slots=True)
class ListedPeer:
    """A client with what it announced last."""

    peer: TrackedPeer
    seeding: bool
    left: int
    seen: float
    deadline: float
    role: Role = ""
    heard: tuple[float, ...] = ()
    """When each endpoint of `peer` was announced last."""
    engine: EngineNumber = ONLY_ENGINE
    node: bytes = b""
    """Name of its node; that of the client itself, if it has no other engine."""


@dataclass(slots=True)
class _TrackedNode:
    """The engines of a node, by identity."""

    engines: dict[bytes, ListedPeer]
    complete: bool = False

    def left(self, total: int) -> int:
        """Bytes that the node lacks of `total`. Each engine lacks those of the others, too, until the node has all
        that it wants: then each engine has all of it."""
        by_number = {entry.engine.number: entry.left for entry in self.engines.values()}
        count = max(entry.engine.count for entry in self.engines.values())
        least = min(by_number.values())
        if count == 1 or not least or max(by_number.values()) >= UNKNOWN:
            return least
        together = sum(total - left for left in by_number.values())
        return min(least, max(0, total - together))

    def is_shared_out(self) -> bool:
        """Whether each engine has other pieces."""
        return any(not entry.seeding for entry in self.engines.values())


class TrackedSwarm:
    """The clients of one torrent, by identity, the client of each endpoint, and the nodes. `places`: the endpoints of
    each address in all swarms."""

    __slots__ = ("_completed", "_earliest", "_endpoints", "_listed", "_nodes", "_places", "_seeders", "_sets", "_total")

    def __init__(self, sets: PeerSets, places: Counter[bytes]) -> None:
        self._places = places
        self._sets = sets
        self._listed: dict[bytes, ListedPeer] = {}
        self._endpoints: dict[bytes, bytes] = {}
        self._nodes: dict[bytes, _TrackedNode] = {}
        self._seeders = 0
        self._completed = 0
        self._earliest = float("inf")
        self._total = 0
        """Most bytes that a client lacked: at most those of the torrent."""

    def __len__(self) -> int:
        return len(self._listed)

    def counts(self) -> Counts:
        """The nodes, in numbers."""
        return Counts(self._seeders, len(self._nodes) - self._seeders, self._completed)

    def is_held(self) -> bool:
        """Whether a node that is no source has all pieces."""
        return any(
            node.complete and any(entry.role != "source" for entry in node.engines.values())
            for node in self._nodes.values()
        )

    def end_role(self, endpoint: bytes, dropped_at: float | None) -> None:
        """The node at `endpoint` has no role any more. With `dropped_at` it has gone."""
        identity = self._endpoints.get(endpoint)
        if identity is None:
            return
        for each in list(self._nodes[self._listed[identity].node].engines):
            if dropped_at is None:
                self._replace(each, replace(self._listed[each], role=""))
            else:
                self.drop(each, dropped_at)

    def node_at(self, endpoint: bytes) -> dict[bytes, bytes]:
        """The peer id of each endpoint of the node at `endpoint`; none if it is not known."""
        identity = self._endpoints.get(endpoint)
        if identity is None:
            return {}
        engines = self._nodes[self._listed[identity].node].engines
        return {each: entry.peer.peer_id for entry in engines.values() for each in entry.peer.endpoints}

    def entry(self, identity: bytes) -> ListedPeer | None:
        """The client's entry."""
        return self._listed.get(identity)

    def make_way(self, identity: bytes, endpoint: bytes, now: float) -> None:
        """Drop another identity with the client's endpoint: the same client before a restart."""
        holder = self._endpoints.get(endpoint)
        if holder is not None and holder != identity:
            self.drop(holder, now)

    def put(self, identity: bytes, entry: ListedPeer, request: Announce, *, stalled: bool) -> None:
        """List the client, in place of its previous entry."""
        was = self._unlist(identity)
        entry = replace(entry, engine=engine_number(request.peer_id))
        name = was.node if was is not None else self._name(identity, entry)
        entry = replace(entry, node=name)
        for endpoint in entry.peer.endpoints:
            self._endpoints[endpoint] = identity
            self._places[place_of(endpoint[:-2])] += 1
        if entry.left < UNKNOWN:
            self._total = max(self._total, entry.left)
        node = self._nodes.setdefault(name, _TrackedNode({}))
        was_known, was_complete = bool(node.engines), node.complete
        self._replace(identity, entry)
        left = node.left(self._total)
        self._count(node, complete=entry.seeding or not left)
        self._earliest = min(self._earliest, entry.deadline)
        several = entry.engine.count > 1
        ended = was_known and node.complete and not was_complete if several else request.event == "completed"
        self._completed += ended
        apart = request.role == "crossing" and not node.complete and not stalled
        self._sets.renew(name, PeerRecord(request.zone, node.complete, left, stalled, apart), entry.seen)

    def drop(self, identity: bytes, now: float) -> None:
        """Drop the client: it has gone."""
        entry = self._unlist(identity)
        if entry is not None and entry.node not in self._nodes:
            self._sets.leave(entry.node, now)

    def peers_for(self, identity: bytes, request: Announce) -> tuple[TrackedPeer, ...]:
        """At most `numwant` peers of other nodes."""
        entry, own = self._listed.get(identity), engine_number(request.peer_id)
        if entry is not None:
            chosen = self._sets.peers_for(entry.node, request.numwant)
        else:
            chosen = self._sets.sample_for(request.zone, request.numwant)
        node = node_of(request.peer_id)
        others = [each for name in chosen if name != node for each in self._engines_for(name, own, identity)]
        allowed = (other.peer for other in others if not _exclude_each_other(other.role, request.role))
        return tuple(allowed)[: request.numwant]

    def sweep(self, now: float) -> None:
        """Drop clients past their deadline."""
        if now < self._earliest:
            return
        for identity in [i for i, entry in self._listed.items() if entry.deadline <= now]:
            self.drop(identity, now)
        self._earliest = min((entry.deadline for entry in self._listed.values()), default=float("inf"))

    def _engines_for(self, name: bytes, own: EngineNumber, identity: bytes) -> Iterable[ListedPeer]:
        """The engines of a node that have pieces for the engine `own`; if each has all pieces, one of them, the
        same each time."""
        node = self._nodes[name]
        fitting = [entry for entry in node.engines.values() if entry.engine.has_use_for(own)]
        if len(fitting) <= 1 or node.is_shared_out():
            return fitting
        return (fitting[zlib.crc32(identity) % len(fitting)],)

    def _name(self, identity: bytes, entry: ListedPeer) -> bytes:
        """The node that a new client belongs to. Another client with the same number is a stranger that uses its id."""
        if entry.engine.count == 1:
            return identity
        name = node_of(entry.peer.peer_id)
        known = self._nodes.get(name)
        taken = known is not None and any(e.engine.number == entry.engine.number for e in known.engines.values())
        return identity if taken else name

    def _replace(self, identity: bytes, entry: ListedPeer) -> None:
        self._listed[identity] = entry
        self._nodes[entry.node].engines[identity] = entry

    def _count(self, node: _TrackedNode, *, complete: bool) -> None:
        self._seeders += complete - node.complete
        node.complete = complete

    def _unlist(self, identity: bytes) -> ListedPeer | None:
        entry = self._listed.pop(identity, None)
        if entry is None:
            return None
        node = self._nodes[entry.node]
        del node.engines[identity]
        if not node.engines:
            self._count(node, complete=False)
            del self._nodes[entry.node]
        for endpoint in entry.peer.endpoints:
            del self._endpoints[endpoint]
            place = place_of(endpoint[:-2])
            self._places[place] -= 1
            if not self._places[place]:
                del self._places[place]
        return entry


def place_of(host: bytes) -> bytes:
    """The bytes that count as one address: an IPv4 address, or an IPv6 /64."""
    return host[:8] if len(host) == 16 and not is_loopback(host) else host


def _exclude_each_other(one: Role, other: Role) -> bool:
    return "source" in (one, other) and not {one, other}.isdisjoint({"leaseholder", "crossing"})


def is_loopback(host: bytes) -> bool:
    """Whether a packed address (or the endpoint that starts with it) is a loopback address."""
    return host[0] == 127 if len(host) in (4, 6) else host[:16] == b"\0" * 15 + b"\1"
