"""Which peers of a swarm a tracker lists to a peer.

Inside a zone (a rack, a site) peers form one `LinkGraph`. A few peers of each zone, its gateways, form another graph
across all zones, and get peers of both. So pieces from another zone come through a gateway, about once for each gateway
at most, and spread inside the zone. Peers without a zone form a zone like any other.

A source gets no more peers than others, because a libtorrent node unchokes every peer that connects. With 1,000
downloaders on one seeder each gets a thousandth of its uplink: the first complete piece that can be exchanged appears a
thousand times later than it might, all peers request the same scarce pieces, and each connection may hold 8 MiB of send
buffer. With some sixty peers the uplink is as full, and the rest of the swarm is two or three hops away. So a peer that
downloads gets sources first, as long as sources have room. A peer that completes becomes a source, and drops its links
to other sources.

The longest-serving peers of a zone are its gateways. A gateway that goes is replaced at once. A gateway goes to the end
of the line if it got nothing since its last announce, if most of its zone has overtaken it (pieces from outside come by
another way), or if it does not announce while its zone gets nothing. Clients keep their connections, so pieces may go
on crossing through the old gateway.

Peers that pull over HTTP what other zones have (`PeerRecord.apart`) need no gateway: two of them in different zones are
not listed to each other, until one is complete or gets nothing.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from p2pmodel.coordinator.tracker.link_graph import LinkGraph, LinkRules

_SOURCES_FIRST = 2


@dataclass(frozen=True, slots=True)
class ZoneRules:
    """Rules for gateways: their number in each zone, the seconds before one may be replaced, and the seconds without an
    announce after which one counts as silent."""

    gateways: int = 2
    patience: float = 75.0
    silence: float = 45.0
    fresh: int = 5
    """New links for a peer that got nothing since its last announce."""


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """State of a peer. `left` in bytes; `stalled`: it wants more, and got nothing for a while."""

    zone: bytes = b""
    source: bool = False
    left: int = 0
    stalled: bool = False
    apart: bool = False
    """Whether the peer pulls pieces of other zones over HTTP. Such gateways are not listed to each other."""


class PeerSets:
    """The peers of one swarm. A peer is identified by bytes that the caller chooses; times are seconds of any clock."""

    __slots__ = ("_apart", "_crossing", "_left", "_links", "_rng", "_rules", "_zone_of", "_zones")

    def __init__(self, rng: random.Random, links: LinkRules | None = None, rules: ZoneRules | None = None) -> None:
        self._rng = rng
        self._links = links or LinkRules()
        self._rules = rules or ZoneRules()
        self._zones: dict[bytes, _Zone] = {}
        self._zone_of: dict[bytes, _Zone] = {}
        self._left: dict[bytes, int] = {}
        self._crossing = LinkGraph(rng, self._links)
        self._apart: set[bytes] = set()

    def renew(self, peer: bytes, record: PeerRecord, now: float) -> None:
        """Add `peer`, or update its state."""
        zone = self._zone_of.get(peer)
        if zone is not None and zone.label != record.zone:
            self.leave(peer, now)
        is_new = peer not in self._zone_of
        zone = self._zones.get(record.zone)
        if zone is None:
            zone = self._zones[record.zone] = _Zone(record.zone, LinkGraph(self._rng, self._links), {})
        self._zone_of[peer] = zone
        self._left[peer] = record.left
        (self._apart.add if record.apart else self._apart.discard)(peer)
        zone.graph.add(peer, source=record.source)
        if peer in zone.gateways:
            zone.gateways[peer].seen = now
        if record.stalled:
            self._dismiss_silent(zone, now)
        if self._fails_its_zone(peer, zone, record, now):
            self._dismiss(peer, zone, now)
        self._appoint(zone, now)
        fresh = self._rules.fresh if record.stalled else 0
        zone.graph.top_up(peer, fresh)
        if not is_new:
            zone.graph.level(peer)
        if peer in zone.gateways:
            self._crossing.add(peer, source=record.source)
            self._crossing.top_up(peer, fresh)

    def leave(self, peer: bytes, now: float) -> None:
        """Remove `peer`, if it is present."""
        zone = self._zone_of.pop(peer, None)
        if zone is None:
            return
        del self._left[peer]
        self._apart.discard(peer)
        zone.graph.discard(peer)
        zone.gateways.pop(peer, None)
        self._crossing.discard(peer)
        self._appoint(zone, now)
        if not zone.graph:
            del self._zones[zone.label]

    def peers_for(self, peer: bytes, count: int) -> list[bytes]:
        """At most `count` peers to list to `peer`.

        If that is not all, a source gets downloading peers first, and a downloading peer a few sources first.
        """
        zone = self._zone_of.get(peer)
        if zone is None:
            return []
        outside = self._crossing.links(peer)
        if peer in self._apart:
            outside = [other for other in outside if other not in self._apart]
        found = list(dict.fromkeys(zone.graph.links(peer) + outside))
        if len(found) <= count:
            return found
        self._rng.shuffle(found)
        source = zone.graph.is_source(peer)
        first = [other for other in found if self._zone_of[other].graph.is_source(other) != source]
        return list(dict.fromkeys((first if source else first[:_SOURCES_FIRST]) + found))[:count]

    def sample_for(self, zone: bytes, count: int) -> list[bytes]:
        """At most `count` peers for a client of `zone` that is not in the swarm: of its zone, else of any zone."""
        known = self._zones.get(zone)
        return (known.graph if known else self._crossing).sample(count)

    def gateways(self, zone: bytes) -> tuple[bytes, ...]:
        """The gateways of `zone`."""
        known = self._zones.get(zone)
        return tuple(known.gateways) if known else ()

    def _fails_its_zone(self, peer: bytes, zone: "_Zone", record: PeerRecord, now: float) -> bool:
        gateway = zone.gateways.get(peer)
        if gateway is None or record.source or now - gateway.since < self._rules.patience:
            return False
        if not self._could_replace(zone):
            return False
        return record.stalled or self._is_overtaken(peer, zone.graph)

    def _could_replace(self, zone: "_Zone") -> bool:
        return len(self._zones) > 1 and len(zone.graph) > len(zone.gateways)

    def _dismiss_silent(self, zone: "_Zone", now: float) -> None:
        silent = [gateway for gateway, state in zone.gateways.items() if now - state.seen > self._rules.silence]
        for gateway in silent:
            if self._could_replace(zone):
                self._dismiss(gateway, zone, now)

    def _is_overtaken(self, peer: bytes, others: Iterable[bytes]) -> bool:
        mine = self._left[peer]
        ahead = [self._left[other] < mine for other in others if other != peer]
        return 2 * sum(ahead) > len(ahead)

    def _dismiss(self, peer: bytes, zone: "_Zone", now: float) -> None:
        """Replace a gateway; it goes to the end of the line."""
        del zone.gateways[peer]
        self._crossing.discard(peer)
        zone.graph.requeue(peer)
        self._appoint(zone, now)

    def _appoint(self, zone: "_Zone", now: float) -> None:
        """Fill the zone's places for gateways with the peers that have been there longest."""
        for peer in zone.graph:
            if len(zone.gateways) >= self._rules.gateways:
                return
            if peer not in zone.gateways:
                zone.gateways[peer] = _Gateway(since=now, seen=now)
                self._crossing.add(peer, source=zone.graph.is_source(peer))
                self._crossing.top_up(peer)


@dataclass(frozen=True, slots=True)
class _Zone:
    label: bytes
    graph: LinkGraph
    gateways: dict[bytes, "_Gateway"]


@dataclass(slots=True)
class _Gateway:
    """When a peer became a gateway, and when it last announced."""

    since: float
    seen: float
