"""The swarms of a BitTorrent tracker and their peers (BEP 3, 7), bounded in memory and in time.

`PeerSets` decides which peers are listed to a peer.

Invariants: an endpoint is listed once in a swarm; a client is listed once in a swarm, with at most MOST_ENDPOINTS
endpoints; a swarm without peers is dropped. The engines of one node are clients of their own, and count as one node.

A client that listens on several addresses announces from each of them, with the same port. An announce from another
address and another port means that the client has moved.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2pmodel.coordinator.tracker.peer_sets import PeerSets, ZoneRules
from p2pmodel.coordinator.tracker.tracked_swarm import (
    UNKNOWN,
    Announce,
    Counts,
    Event,
    ListedPeer,
    TrackedPeer,
    TrackedSwarm,
    is_loopback,
    place_of,
)

SLOW_PACE = 300.0
"""Longest seconds between announces of clients that ignore the tracker's interval (libtorrent's, and so qBittorrent's
and Deluge's, default min_announce_interval)."""

MOST_ENDPOINTS = 8
"""Most endpoints of one client."""

_SWEEP_ALL = 60.0
_REGULAR: tuple[Event, ...] = ("", "paused")


@dataclass(frozen=True, slots=True)
class AnnounceAnswer:
    """The answer to an announce."""

    counts: Counts
    peers: tuple[TrackedPeer, ...]


class TrackedSwarms:
    """The peers of every swarm. `interval` is the seconds between announces that the tracker requests of clients.

    A client that announces in that interval is dropped two intervals after its last announce; one that is slower, or
    new, after twice the slow pace. `max_peers` bounds all swarms together, `max_swarm` each one, `max_address` the
    clients of one address (IPv6: /64) in all swarms: a client beyond that gets peers but is not listed.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        rng: random.Random,
        *,
        interval: float = 30.0,
        max_peers: int = 65_536,
        max_swarm: int = 16_384,
        max_address: int = 8_192,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._interval = interval
        # Two announces: at the first a new gateway gets its peers, the second shows what came from them.
        self._zone_rules = ZoneRules(patience=2.5 * interval, silence=1.5 * interval)
        self._max_peers = max_peers
        self._max_swarm = max_swarm
        self._max_address = max_address
        self._places: Counter[bytes] = Counter()
        """Endpoints of each address in all swarms."""
        self._swarms: dict[bytes, TrackedSwarm] = {}
        self._peers = 0
        self._next_sweep = clock() + _SWEEP_ALL

    def announce(self, request: Announce, host: bytes, advertised: tuple[bytes, ...] = ()) -> AnnounceAnswer:
        """Take the announce of the client at `host` (packed address, 4 or 16 bytes), and answer it.

        The client is listed at the endpoints `advertised`, or else at `host` and its port.
        """
        now = self._clock()
        swarm = self._swarm(request.info_hash, now)
        before = len(swarm)
        endpoints = advertised[:MOST_ENDPOINTS] or (host + request.port.to_bytes(2, "big"),)
        # Without a key nothing proves that a client moved: its address is then part of its identity.
        identity = request.peer_id + (b"key" + request.key if request.key else b"at" + host)
        for endpoint in endpoints:
            swarm.make_way(identity, endpoint, now)
        was = swarm.entry(identity)
        if request.event == "stopped":
            swarm.drop(identity, now)
        elif was or self._has_room(swarm, before, host):
            listed = dict.fromkeys(endpoints, now)
            if was and not advertised:
                listed = _others(was, endpoints[0], now - self._interval / 2) | listed
            entry = _merge(was, request, listed, now, self._deadline(was, request, now))
            swarm.put(identity, entry, request, stalled=self._is_stalled(was, request, now))
        self._peers += len(swarm) - before
        counts = swarm.counts()
        peers = () if request.event == "stopped" else swarm.peers_for(identity, request)
        if not swarm:
            del self._swarms[request.info_hash]
        return AnnounceAnswer(counts, peers if is_loopback(host) else tuple(_outside(peers)))

    def end_role(self, info_hash: bytes, endpoint: bytes, *, drop: bool = False) -> None:
        """The node at `endpoint` has no role any more. `drop`: it is not listed until it announces."""
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            return
        before = len(swarm)
        swarm.end_role(endpoint, self._clock() if drop else None)
        self._peers += len(swarm) - before

    def node_at(self, info_hash: bytes, endpoint: bytes) -> dict[bytes, bytes]:
        """The peer id of each endpoint of the node at `endpoint`; none if it is not known."""
        swarm = self._swarms.get(info_hash)
        return {} if swarm is None else swarm.node_at(endpoint)

    def counts(self, info_hash: bytes) -> Counts:
        """Counts of one swarm; zeros for an unknown one."""
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            return Counts()
        self._sweep(info_hash, swarm, self._clock())
        return swarm.counts()

    def is_held(self, info_hash: bytes) -> bool:
        """Whether a peer that is no source has all pieces."""
        swarm = self._swarms.get(info_hash)
        return swarm is not None and swarm.is_held()

    def info_hashes(self) -> tuple[bytes, ...]:
        """Info-hashes of all swarms."""
        self._sweep_all(self._clock())
        return tuple(self._swarms)

    def _swarm(self, info_hash: bytes, now: float) -> TrackedSwarm:
        if now >= self._next_sweep:
            self._sweep_all(now)
        swarm = self._swarms.get(info_hash)
        if swarm is not None:
            self._sweep(info_hash, swarm, now)
        return self._swarms.setdefault(info_hash, swarm or self._new_swarm())

    def _new_swarm(self) -> TrackedSwarm:
        return TrackedSwarm(PeerSets(self._rng, rules=self._zone_rules), self._places)

    def _has_room(self, swarm: TrackedSwarm, before: int, host: bytes) -> bool:
        if len(swarm) >= self._max_swarm or self._places[place_of(host)] >= self._max_address:
            return False
        return self._peers - before + len(swarm) < self._max_peers

    def _deadline(self, was: ListedPeer | None, request: Announce, now: float) -> float:
        # An event may come at any time; only regular announces show a client's interval.
        on_pace = was is not None and request.event in _REGULAR and now - was.seen <= 1.5 * self._interval
        return now + 2 * (self._interval if on_pace else max(self._interval, SLOW_PACE))

    def _is_stalled(self, was: ListedPeer | None, request: Announce, now: float) -> bool:
        if was is None or request.event or request.seeding or now - was.seen < self._interval / 2:
            return False
        return request.left is None or request.left >= was.left

    def _sweep_all(self, now: float) -> None:
        for info_hash, swarm in list(self._swarms.items()):
            self._sweep(info_hash, swarm, now)
        self._next_sweep = now + _SWEEP_ALL

    def _sweep(self, info_hash: bytes, swarm: TrackedSwarm, now: float) -> None:
        before = len(swarm)
        swarm.sweep(now)
        self._peers += len(swarm) - before
        if not swarm:
            del self._swarms[info_hash]


def _others(was: ListedPeer, endpoint: bytes, since: float) -> dict[bytes, float]:
    """The client's other endpoints that are still its own: those of the other family (BEP 7), and those of the same
    port that it announced `since` then."""
    kept = {
        other: heard
        for other, heard in zip(was.peer.endpoints, was.heard, strict=True)
        if other != endpoint and (len(other) != len(endpoint) or (other[-2:] == endpoint[-2:] and heard >= since))
    }
    return dict(list(kept.items())[1 - MOST_ENDPOINTS :])


def _merge(
    was: ListedPeer | None, request: Announce, endpoints: dict[bytes, float], now: float, deadline: float
) -> ListedPeer:
    """The client's new entry, with `endpoints` and when each was announced."""
    peer = TrackedPeer(request.peer_id, tuple(endpoints))
    left = UNKNOWN if request.left is None else request.left
    same = was.peer if was and was.peer == peer else peer
    return ListedPeer(same, request.seeding, left, now, deadline, request.role, tuple(endpoints.values()))


def is_link_local(host: bytes) -> bool:
    """Whether a packed address (or the endpoint that starts with it) is valid on one link only."""
    return host[:2] == b"\xa9\xfe" if len(host) in (4, 6) else host[0] == 0xFE and host[1] & 0xC0 == 0x80


def _outside(peers: Iterable[TrackedPeer]) -> Iterable[TrackedPeer]:
    """`peers` without loopback and link-local addresses, which a client on another machine cannot reach."""
    for peer in peers:
        endpoints = tuple(e for e in peer.endpoints if not (is_loopback(e) or is_link_local(e)))
        if endpoints:
            yield peer if len(endpoints) == len(peer.endpoints) else TrackedPeer(peer.peer_id, endpoints)
