"""The swarms of a BitTorrent tracker and their peers (BEP 3, 7), bounded in memory and in time.

`PeerSets` decides which peers are listed to a peer.

Invariants: an endpoint is listed once in a swarm; a client is listed once in a swarm, with at most MOST_ENDPOINTS
endpoints; a swarm without peers is dropped.

A client that listens on several addresses announces from each of them, with the same port. An announce from another
address and another port means that the client has moved.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from p2pmodel.coordinator.tracker.peer_sets import PeerRecord, PeerSets, ZoneRules
from p2pmodel.coordinator.tracker.sources import Role

Event = Literal["", "started", "stopped", "completed", "paused"]
"""`paused`: the client has all the files it wants, but not all of the torrent (BEP 21)."""

SLOW_PACE = 300.0
"""Longest seconds between announces of clients that ignore the tracker's interval (libtorrent's, and so qBittorrent's
and Deluge's, default min_announce_interval)."""

MOST_ENDPOINTS = 8
"""Most endpoints of one client."""

_PEER_ID = 20
"""Length of a peer id, with which an identity begins."""
_SWEEP_ALL = 60.0
_UNKNOWN = 1 << 64
"""Bytes left of a client that does not send them."""
_REGULAR: tuple[Event, ...] = ("", "paused")


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
    """A swarm in numbers; `completed` counts the downloads that ended while the swarm was known."""

    seeders: int = 0
    leechers: int = 0
    completed: int = 0


@dataclass(frozen=True, slots=True)
class AnnounceAnswer:
    """The answer to an announce."""

    counts: Counts
    peers: tuple[TrackedPeer, ...]


@dataclass(frozen=True, slots=True)
class _ListedPeer:
    peer: TrackedPeer
    seeding: bool
    left: int
    seen: float
    deadline: float
    role: Role = ""
    heard: tuple[float, ...] = ()
    """When each endpoint of `peer` was announced last."""


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
        self._swarms: dict[bytes, _TrackedSwarm] = {}
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
        """The client at `endpoint` has no role any more. `drop`: it is not listed until it announces."""
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            return
        before = len(swarm)
        swarm.end_role(endpoint, self._clock() if drop else None)
        self._peers += len(swarm) - before

    def peer_id_at(self, info_hash: bytes, endpoint: bytes) -> bytes:
        """The peer id of the client at `endpoint`; b"" if none is known."""
        swarm = self._swarms.get(info_hash)
        return b"" if swarm is None else swarm.peer_id_at(endpoint)

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

    def _swarm(self, info_hash: bytes, now: float) -> "_TrackedSwarm":
        if now >= self._next_sweep:
            self._sweep_all(now)
        swarm = self._swarms.get(info_hash)
        if swarm is not None:
            self._sweep(info_hash, swarm, now)
        return self._swarms.setdefault(info_hash, swarm or self._new_swarm())

    def _new_swarm(self) -> "_TrackedSwarm":
        return _TrackedSwarm(PeerSets(self._rng, rules=self._zone_rules), self._places)

    def _has_room(self, swarm: "_TrackedSwarm", before: int, host: bytes) -> bool:
        if len(swarm) >= self._max_swarm or self._places[_place(host)] >= self._max_address:
            return False
        return self._peers - before + len(swarm) < self._max_peers

    def _deadline(self, was: _ListedPeer | None, request: Announce, now: float) -> float:
        # An event may come at any time; only regular announces show a client's interval.
        on_pace = was is not None and request.event in _REGULAR and now - was.seen <= 1.5 * self._interval
        return now + 2 * (self._interval if on_pace else max(self._interval, SLOW_PACE))

    def _is_stalled(self, was: _ListedPeer | None, request: Announce, now: float) -> bool:
        if was is None or request.event or request.seeding or now - was.seen < self._interval / 2:
            return False
        return request.left is None or request.left >= was.left

    def _sweep_all(self, now: float) -> None:
        for info_hash, swarm in list(self._swarms.items()):
            self._sweep(info_hash, swarm, now)
        self._next_sweep = now + _SWEEP_ALL

    def _sweep(self, info_hash: bytes, swarm: "_TrackedSwarm", now: float) -> None:
        before = len(swarm)
        swarm.sweep(now)
        self._peers += len(swarm) - before
        if not swarm:
            del self._swarms[info_hash]


class _TrackedSwarm:
    """The clients of one torrent, by identity, and the client of each endpoint. `places`: as in `TrackedSwarms`."""

    __slots__ = ("_completed", "_earliest", "_endpoints", "_listed", "_places", "_seeders", "_sets")

    def __init__(self, sets: PeerSets, places: Counter[bytes]) -> None:
        self._places = places
        self._sets = sets
        self._listed: dict[bytes, _ListedPeer] = {}
        self._endpoints: dict[bytes, bytes] = {}
        self._seeders = 0
        self._completed = 0
        self._earliest = float("inf")

    def __len__(self) -> int:
        return len(self._listed)

    def counts(self) -> Counts:
        return Counts(self._seeders, len(self._listed) - self._seeders, self._completed)

    def is_held(self) -> bool:
        return any(entry.seeding and entry.role != "source" for entry in self._listed.values())

    def end_role(self, endpoint: bytes, dropped_at: float | None) -> None:
        identity = self._endpoints.get(endpoint)
        if identity is None:
            return
        if dropped_at is None:
            self._listed[identity] = replace(self._listed[identity], role="")
        else:
            self.drop(identity, dropped_at)

    def peer_id_at(self, endpoint: bytes) -> bytes:
        return self._endpoints.get(endpoint, b"")[:_PEER_ID]

    def entry(self, identity: bytes) -> _ListedPeer | None:
        return self._listed.get(identity)

    def make_way(self, identity: bytes, endpoint: bytes, now: float) -> None:
        """Drop another identity with the client's endpoint: the same client before a restart."""
        holder = self._endpoints.get(endpoint)
        if holder is not None and holder != identity:
            self.drop(holder, now)

    def put(self, identity: bytes, entry: _ListedPeer, request: Announce, *, stalled: bool) -> None:
        """List the client, in place of its previous entry."""
        self._unlist(identity)
        self._listed[identity] = entry
        for endpoint in entry.peer.endpoints:
            self._endpoints[endpoint] = identity
            self._places[_place(endpoint[:-2])] += 1
        self._seeders += entry.seeding
        self._earliest = min(self._earliest, entry.deadline)
        self._completed += request.event == "completed"
        self._sets.renew(identity, PeerRecord(request.zone, entry.seeding, entry.left, stalled), entry.seen)

    def drop(self, identity: bytes, now: float) -> None:
        """Drop the client: it has gone."""
        self._unlist(identity)
        self._sets.leave(identity, now)

    def peers_for(self, identity: bytes, request: Announce) -> tuple[TrackedPeer, ...]:
        """At most `numwant` other peers."""
        if identity in self._listed:
            chosen = self._sets.peers_for(identity, request.numwant)
        else:
            chosen = self._sets.sample_for(request.zone, request.numwant)
        others = (self._listed[other] for other in chosen)
        return tuple(other.peer for other in others if not _exclude_each_other(other.role, request.role))

    def sweep(self, now: float) -> None:
        """Drop clients past their deadline."""
        if now < self._earliest:
            return
        for identity in [i for i, entry in self._listed.items() if entry.deadline <= now]:
            self.drop(identity, now)
        self._earliest = min((entry.deadline for entry in self._listed.values()), default=float("inf"))

    def _unlist(self, identity: bytes) -> None:
        entry = self._listed.pop(identity, None)
        if entry is not None:
            self._seeders -= entry.seeding
            for endpoint in entry.peer.endpoints:
                del self._endpoints[endpoint]
                place = _place(endpoint[:-2])
                self._places[place] -= 1
                if not self._places[place]:
                    del self._places[place]


def _place(host: bytes) -> bytes:
    """What counts as one address: an IPv4 address, or an IPv6 /64."""
    return host[:8] if len(host) == 16 and not is_loopback(host) else host


def _exclude_each_other(one: Role, other: Role) -> bool:
    return {one, other} == {"source", "leaseholder"}


def _others(was: _ListedPeer, endpoint: bytes, since: float) -> dict[bytes, float]:
    """The client's other endpoints that are still its own: those of the other family (BEP 7), and those of the same
    port that it announced `since` then."""
    kept = {
        other: heard
        for other, heard in zip(was.peer.endpoints, was.heard, strict=True)
        if other != endpoint and (len(other) != len(endpoint) or (other[-2:] == endpoint[-2:] and heard >= since))
    }
    return dict(list(kept.items())[1 - MOST_ENDPOINTS :])


def _merge(
    was: _ListedPeer | None, request: Announce, endpoints: dict[bytes, float], now: float, deadline: float
) -> _ListedPeer:
    """The client's new entry, with `endpoints` and when each was announced."""
    peer = TrackedPeer(request.peer_id, tuple(endpoints))
    left = _UNKNOWN if request.left is None else request.left
    same = was.peer if was and was.peer == peer else peer
    return _ListedPeer(same, request.seeding, left, now, deadline, request.role, tuple(endpoints.values()))


def is_loopback(host: bytes) -> bool:
    """Whether a packed address (or the endpoint that starts with it) is a loopback address."""
    return host[0] == 127 if len(host) in (4, 6) else host[:16] == b"\0" * 15 + b"\1"


def is_link_local(host: bytes) -> bool:
    """Whether a packed address (or the endpoint that starts with it) is valid on one link only."""
    return host[:2] == b"\xa9\xfe" if len(host) in (4, 6) else host[0] == 0xFE and host[1] & 0xC0 == 0x80


def _outside(peers: Iterable[TrackedPeer]) -> Iterable[TrackedPeer]:
    """`peers` without loopback and link-local addresses, which a client on another machine cannot reach."""
    for peer in peers:
        endpoints = tuple(e for e in peer.endpoints if not (is_loopback(e) or is_link_local(e)))
        if endpoints:
            yield peer if len(endpoints) == len(peer.endpoints) else TrackedPeer(peer.peer_id, endpoints)
