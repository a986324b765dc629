"""Which peers of a swarm a tracker tells a peer of.

Inside a zone (a rack, a site) peers form one `LinkGraph`; a few of each zone, its gateways, form another one across all
zones, and are told of both. So what comes from another zone comes through a gateway, about once for each gateway at
most, and spreads inside the zone. Peers without a zone are a zone like any other.

Why a source is given no more peers than others. A libtorrent node unchokes whoever connects: with 1,000 downloaders on
one seeder each gets a thousandth of its uplink, so the first whole piece that could be passed on appears a thousand
times later than it might, everybody asks for the same scarce pieces, and each connection may hold 8 MiB of send buffer.
With some sixty the uplink is as full, and the rest of the swarm is two or three hops away. So a peer that downloads is
given sources first, as long as sources have room; who completes becomes one, and drops its links to others.

The longest-serving peers of a zone are its gateways. One that goes is replaced at once; one that got nothing since its
last announce, or that most of its zone has overtaken (what comes from outside comes by another way), or that is not
heard of while its zone gets nothing, goes to the end of the line. Clients keep the connections they have, so what
crossed through the old one may go on crossing.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from p2pmodel.coordinator.link_graph import LinkGraph, LinkRules

_SOURCES_FIRST = 2


@dataclass(frozen=True, slots=True)
class ZoneRules:
    """How zones are held together: peers of each that cross, the seconds each is given to show what it does, and the
    seconds without an announce after which one is not waited for."""

    gateways: int = 2
    patience: float = 75.0
    silence: float = 45.0
    fresh: int = 5
    """New links for whoever got nothing since its last announce."""


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """How a peer fares. `left` in bytes; `stalled`: it wants more, and got nothing for a while."""

    zone: bytes = b""
    source: bool = False
    left: int = 0
    stalled: bool = False


class PeerSets:
    """The peers of one swarm. A peer is whatever bytes the caller knows it by; times are seconds of any clock."""

    __slots__ = ("_crossing", "_left", "_links", "_rng", "_rules", "_zone_of", "_zones")

    def __init__(self, rng: random.Random, links: LinkRules | None = None, rules: ZoneRules | None = None) -> None:
        self._rng = rng
        self._links = links or LinkRules()
        self._rules = rules or ZoneRules()
        self._zones: dict[bytes, _Zone] = {}
        self._zone_of: dict[bytes, _Zone] = {}
        self._left: dict[bytes, int] = {}
        self._crossing = LinkGraph(rng, self._links)

    def renew(self, peer: bytes, standing: PeerRecord, now: float) -> None:
        """`peer` has come, or is still there."""
        zone = self._zone_of.get(peer)
        if zone is not None and zone.label != standing.zone:
            self.leave(peer, now)
        zone = self._zones.get(standing.zone)
        if zone is None:
            zone = self._zones[standing.zone] = _Zone(standing.zone, LinkGraph(self._rng, self._links), {})
        self._zone_of[peer] = zone
        self._left[peer] = standing.left
        zone.graph.add(peer, source=standing.source)
        if peer in zone.gateways:
            zone.gateways[peer].seen = now
        if standing.stalled:
            self._dismiss_silent(zone, now)
        if self._fails_its_zone(peer, zone, standing, now):
            self._dismiss(peer, zone, now)
        self._appoint(zone, now)
        fresh = self._rules.fresh if standing.stalled else 0
        zone.graph.top_up(peer, fresh)
        if peer in zone.gateways:
            self._crossing.add(peer, source=standing.source)
            self._crossing.top_up(peer, fresh)

    def leave(self, peer: bytes, now: float) -> None:
        """`peer` has gone; nothing happens if it was not there."""
        zone = self._zone_of.pop(peer, None)
        if zone is None:
            return
        del self._left[peer]
        zone.graph.discard(peer)
        zone.gateways.pop(peer, None)
        self._crossing.discard(peer)
        self._appoint(zone, now)
        if not zone.graph:
            del self._zones[zone.label]

    def told(self, peer: bytes, count: int) -> list[bytes]:
        """Whom to tell `peer` of, at most `count`: if that is not all, a source first some that download, and who
        downloads a few sources."""
        zone = self._zone_of.get(peer)
        if zone is None:
            return []
        found = list(dict.fromkeys(zone.graph.links(peer) + self._crossing.links(peer)))
        if len(found) <= count:
            return found
        self._rng.shuffle(found)
        source = zone.graph.is_source(peer)
        first = [other for other in found if self._zone_of[other].graph.is_source(other) != source]
        return list(dict.fromkeys((first if source else first[:_SOURCES_FIRST]) + found))[:count]

    def strangers(self, zone: bytes, count: int) -> list[bytes]:
        """At most `count` peers for one that is not taken in: of its zone, or of any if there is none of it."""
        known = self._zones.get(zone)
        return (known.graph if known else self._crossing).sample(count)

    def gateways(self, zone: bytes) -> tuple[bytes, ...]:
        """Those of `zone` that are told of other zones."""
        known = self._zones.get(zone)
        return tuple(known.gateways) if known else ()

    def _fails_its_zone(self, peer: bytes, zone: "_Zone", standing: PeerRecord, now: float) -> bool:
        office = zone.gateways.get(peer)
        if office is None or standing.source or now - office.since < self._rules.patience:
            return False
        if not self._could_replace(zone):
            return False
        return standing.stalled or self._is_overtaken(peer, zone.graph)

    def _could_replace(self, zone: "_Zone") -> bool:
        return len(self._zones) > 1 and len(zone.graph) > len(zone.gateways)

    def _dismiss_silent(self, zone: "_Zone", now: float) -> None:
        silent = [gateway for gateway, office in zone.gateways.items() if now - office.seen > self._rules.silence]
        for gateway in silent:
            if self._could_replace(zone):
                self._dismiss(gateway, zone, now)

    def _is_overtaken(self, peer: bytes, others: Iterable[bytes]) -> bool:
        mine = self._left[peer]
        ahead = [self._left[other] < mine for other in others if other != peer]
        return 2 * sum(ahead) > len(ahead)

    def _dismiss(self, peer: bytes, zone: "_Zone", now: float) -> None:
        """Another takes its place; it comes after everybody else."""
        del zone.gateways[peer]
        self._crossing.discard(peer)
        zone.graph.requeue(peer)
        self._appoint(zone, now)

    def _appoint(self, zone: "_Zone", now: float) -> None:
        """Fill the zone's places for gateways with those that have been there longest."""
        for peer in zone.graph:
            if len(zone.gateways) >= self._rules.gateways:
                return
            if peer not in zone.gateways:
                zone.gateways[peer] = _Office(since=now, seen=now)
                self._crossing.add(peer, source=zone.graph.is_source(peer))
                self._crossing.top_up(peer)


@dataclass(frozen=True, slots=True)
class _Zone:
    label: bytes
    graph: LinkGraph
    gateways: dict[bytes, "_Office"]


@dataclass(slots=True)
class _Office:
    """Since when a peer has been a gateway, and when it was last heard of."""

    since: float
    seen: float
