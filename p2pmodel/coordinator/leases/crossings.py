"""Crossings: which node of a zone pulls which piece from which node of another zone. A coordinator computes them.

A lease brings a piece into the cluster once. The zone of its leaseholder has it then, and every other zone pulls it
from there once: one node of each such zone gets a crossing, and its zone gets the piece from that node in the swarm. So
a zone takes one copy inwards, over all its nodes, and passes it on over all of them.

1. Only nodes that serve their verified pieces to others take part. What they hold, they say themselves.
2. A piece crosses into a zone while no node there holds it, no other node there pulls it, and none has pulled it in the
   last `OUT_FOR` seconds.
3. Crossings run from the first piece to the last. A node sends `MOST_OUT` pieces at a time; the zones that have got a
   piece send it, too, so it reaches Z zones in a few steps.
   What has no holder with room is passed over, for all zones at a time.
4. A zone asks for as many pieces at a time as come within `PROMPT` seconds: what waits in a narrow link is late, and
   may be pulled twice.
5. A node that does not deliver is left out by that zone for `AVOIDED_FOR` seconds, and so are all nodes of a zone with
   `FEW` of them of which nothing has come for `CUT_AFTER` seconds: the zones may be cut off from each other. What no
   zone can be asked for is leased as if none had it.
6. A node that leaves when it lacks nothing any more may go on serving, and is asked for `OUT_FOR` seconds more, until
   it does not answer.

Pure: time in seconds is passed in. Sets of pieces are integers, bit p for piece p.
"""

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from p2pmodel.coordinator.leases.demand import Crossing, Demand, Grant
from p2pmodel.coordinator.leases.leases import Leases
from p2pmodel.coordinator.leases.peer import OUT_FOR, SILENCE
from p2pmodel.core.content.bitfield import pieces_of

MOST_OUT = 8
"""Pieces that a node sends to other zones at a time: few zones have a new piece, and all others want it."""
LEAST_WANTED = 2
"""Crossings that a node may hold, however slow it pulls."""
PROMPT = 2.0
"""Seconds in which a piece should cross."""
A_NODE = 1.25
"""Crossings for each node of a zone to which their number grows quickly."""
AVOIDED_FOR = 30.0
"""Seconds for which a node that did not deliver is not asked."""
FEW = 3
"""Nodes of another zone that do not deliver and make the zones count as cut off from each other, or all it has."""
CUT_AFTER = 10.0
"""Seconds without a piece from another zone after which it may count as cut off."""
LATE_AT_LEAST, LATE = 60.0, 8.0
"""Seconds, and multiples of the usual time, after which another node gets a crossing: the node itself notices earlier
when nothing comes."""
_TRIES = 3
"""Random nodes of a zone that are looked at for a piece."""
_FAILURES = 16
"""Pieces without a node to ask after which the search for a zone ends."""


@dataclass(slots=True)
class _Pull:
    holder: "_CrossingPeer"
    since: float


@dataclass(slots=True)
class _CrossingPeer:
    name: str
    zone: "_LeaseZone"
    address: str
    seen: float = float("inf")
    """When its last message came."""
    gone: float | None = None
    """When it left, and lacked nothing."""
    token: str = ""
    held: int = 0
    scarce: int = 0
    want: int = 0
    out: int = 0
    """Pieces that others pull from it."""
    pulls: dict[int, _Pull] = field(default_factory=dict)
    grant: tuple[Crossing, ...] = ()

    @property
    def room(self) -> int:
        return max(self.want, LEAST_WANTED) - len(self.pulls) if self.gone is None else 0


@dataclass(slots=True)
class _LeaseZone:
    label: str
    first: list["_CrossingPeer | None"]
    """By piece, the node that had it first, which may have gone; None while none has it."""
    peers: dict[str, _CrossingPeer] = field(default_factory=dict)
    order: list[_CrossingPeer] = field(default_factory=list)
    """The same, to draw from."""
    held: int = 0
    taken: int = 0
    """Pieces that are being pulled, or came lately."""
    came: deque[tuple[float, int]] = field(default_factory=deque)
    pulling: int = 0
    window: float = LEAST_WANTED
    usual: float = 0.0
    """Seconds that a crossing takes, smoothed."""
    avoided: dict[str, float] = field(default_factory=dict)
    """Until when nodes of other zones are not asked, by name."""
    heard: dict[str, float] = field(default_factory=dict)
    """When a piece came last from another zone, by its label."""
    cut: frozenset[str] = frozenset()
    """Zones that cannot be asked now."""

    def took(self, seconds: float) -> None:
        self.usual += (seconds - self.usual) / 8 if self.usual else seconds
        step = 1.0 if self.window < A_NODE * len(self.peers) else 0.25
        self.window = max(self.window + (step if self.usual < PROMPT else -step), LEAST_WANTED)


class Crossings:
    """The crossings of one swarm of `piece_count` pieces."""

    def __init__(self, piece_count: int, rng: random.Random) -> None:
        self._count = piece_count
        self._all = (1 << piece_count) - 1
        self._rng = rng
        self._zones: dict[str, _LeaseZone] = {}
        self._peers: dict[str, _CrossingPeer] = {}
        self._by_address: dict[str, _CrossingPeer] = {}
        self._any = 0
        """Pieces that any zone has."""
        self._busy = 0
        """Pieces of which no holder with room was found in this round."""
        self._now = self._next_look = 0.0

    def __contains__(self, name: str) -> bool:
        return name in self._peers

    def __len__(self) -> int:
        return len(self._peers)

    def enter(self, name: str, zone: str, address: str) -> None:
        """Add a node of `zone`, which others reach at `address`. It replaces one with that name."""
        self._forget(name)
        place = self._zones.get(zone)
        if place is None:
            place = self._zones[zone] = _LeaseZone(zone, [None] * self._count)
        peer = _CrossingPeer(name, place, address)
        self._peers[name] = self._by_address[address] = place.peers[name] = peer
        place.order.append(peer)

    def update(self, name: str, demand: Demand, now: float) -> None:
        """Take the state of a node; nothing if it takes no part."""
        peer = self._peers.get(name)
        if peer is None:
            return
        self._now = now
        peer.seen, peer.token, peer.want = now, demand.token, demand.want
        peer.scarce, peer.held = demand.scarce & self._all, demand.held & self._all
        zone = peer.zone
        if fresh := peer.held & ~zone.held:
            zone.held |= fresh
            self._any |= fresh
            for piece in pieces_of(fresh):
                zone.first[piece] = peer
        if peer.pulls:
            for address in demand.unreachable:
                self._avoid(peer, address, now)
            for piece in [piece for piece in peer.pulls if not peer.scarce >> piece & 1]:
                self._came(peer, piece, now)

    def leave(self, name: str) -> None:
        """A node has gone. One that lacks nothing is asked for a while longer."""
        if (peer := self._peers.get(name)) is None:
            return
        for piece in list(peer.pulls):
            self._end(peer, piece)
        if peer.scarce or not peer.held:
            self._forget(name)
        elif peer.gone is None:
            peer.gone = self._now

    def elsewhere(self, name: str) -> int:
        """Pieces that the zone of this node gets, or has got, by a crossing: they need no lease."""
        peer = self._peers.get(name)
        if peer is None or len(self._zones) < 2:
            return 0
        return peer.zone.taken | self._outside(peer.zone)

    def grant(self, now: float) -> Iterator[tuple[str, tuple[Crossing, ...]]]:
        """Give all crossings that can be given. Returns those of every node; the same object is no news."""
        self._now = now
        if now >= self._next_look:
            self._look(now)
        if len(self._zones) > 1:
            self._busy = 0
            for zone in self._in_turn():
                self._serve(zone, now)
        return ((name, peer.grant) for name, peer in self._peers.items() if peer.gone is None)

    # -- giving ----------------------------------------------------------------------------------------------

    def _outside(self, zone: _LeaseZone) -> int:
        """Pieces that other zones have, and this one has not."""
        if not zone.cut:
            return self._any & ~zone.held
        held = 0
        for other in self._zones.values():
            if other.label not in zone.cut:
                held |= other.held
        return held & ~zone.held

    def _serve(self, zone: _LeaseZone, now: float) -> None:
        room = int(zone.window) - zone.pulling
        free = self._outside(zone) & ~zone.taken & ~self._busy if room > 0 else 0
        if not free:
            return
        failures = _FAILURES
        for peer in sorted(zone.peers.values(), key=lambda each: len(each.pulls)):
            mine = free & peer.scarce if peer.room > 0 else 0
            while mine and failures:
                lowest = mine & -mine
                mine, free = mine ^ lowest, free ^ lowest
                if holder := self._holder(zone, lowest.bit_length() - 1):
                    self._begin(peer, lowest, holder, now)
                    room -= 1
                    break
                failures -= 1
                if not zone.avoided:
                    self._busy |= lowest
            if not room or not failures or not free:
                return

    def _in_turn(self) -> Sequence[_LeaseZone]:
        """All zones, beginning with any."""
        zones = list(self._zones.values())
        begin = self._rng.randrange(len(zones))
        return (*zones[begin:], *zones[:begin])

    def _holder(self, zone: _LeaseZone, piece: int) -> _CrossingPeer | None:
        """A node of another zone that has the piece, and room to send it."""
        for other in self._in_turn():
            if other is zone or other.first[piece] is None or other.label in zone.cut:
                continue
            for peer in self._candidates(other, piece):
                if peer.held >> piece & 1 and peer.out < MOST_OUT and peer.name not in zone.avoided:
                    return peer
        return None

    def _candidates(self, zone: _LeaseZone, piece: int) -> Sequence[_CrossingPeer]:
        first = zone.first[piece]
        if first is not None and zone.peers.get(first.name) is not first:  # it has gone
            first = zone.first[piece] = next((each for each in zone.order if each.held >> piece & 1), None)
        drawn = [self._rng.choice(zone.order) for _ in range(min(_TRIES, len(zone.order)))]
        return drawn if first is None else [first, *drawn]

    def _begin(self, peer: _CrossingPeer, bit: int, holder: _CrossingPeer, now: float) -> None:
        piece = bit.bit_length() - 1
        peer.pulls[piece] = _Pull(holder, now)
        holder.out += 1
        peer.zone.taken |= bit
        peer.zone.pulling += 1
        self._write(peer)
        peer.zone.peers[peer.name] = peer.zone.peers.pop(peer.name)  # the last in its turn

    def _end(self, peer: _CrossingPeer, piece: int) -> None:
        peer.pulls.pop(piece).holder.out -= 1
        peer.zone.taken &= ~(1 << piece)
        peer.zone.pulling -= 1
        self._write(peer)

    def _came(self, peer: _CrossingPeer, piece: int, now: float) -> None:
        pull = peer.pulls[piece]
        peer.zone.took(now - pull.since)
        peer.zone.heard[pull.holder.zone.label] = now
        self._end(peer, piece)
        peer.zone.taken |= 1 << piece
        peer.zone.came.append((now, 1 << piece))

    def _write(self, peer: _CrossingPeer) -> None:
        peer.grant = tuple(
            Crossing(piece, pull.holder.address, pull.holder.token) for piece, pull in peer.pulls.items()
        )

    # -- losses ----------------------------------------------------------------------------------------------

    def _avoid(self, peer: _CrossingPeer, address: str, now: float) -> None:
        """`peer` got nothing from the node at `address`."""
        holder = self._by_address.get(address)
        for piece in [piece for piece, pull in peer.pulls.items() if pull.holder.address == address]:
            self._end(peer, piece)
        if holder is None or holder.zone is peer.zone:
            return
        if holder.gone is not None:
            self._forget(holder.name)
            return
        peer.zone.avoided[holder.name] = now + AVOIDED_FOR
        self._judge(peer.zone, now)

    def _judge(self, zone: _LeaseZone, now: float) -> None:
        """Find the zones that cannot be asked."""
        others = [self._peers[name].zone for name in zone.avoided if name in self._peers]
        silent = (each for each in others if now - zone.heard.get(each.label, -CUT_AFTER) >= CUT_AFTER)
        zone.cut = frozenset(each.label for each in silent if others.count(each) >= min(FEW, len(each.peers)))

    def _look(self, now: float) -> None:
        """Forget what is over, and what is late."""
        self._next_look = now + 1.0
        for peer in list(self._peers.values()):
            if peer.gone is not None and now - peer.gone > OUT_FOR:
                self._forget(peer.name)
            elif peer.gone is None and now - peer.seen > SILENCE:
                self.leave(peer.name)
        for zone in self._zones.values():
            while zone.came and now - zone.came[0][0] > OUT_FOR:
                zone.taken &= ~zone.came.popleft()[1]
            if zone.avoided:
                zone.avoided = {name: until for name, until in zone.avoided.items() if until > now}
                self._judge(zone, now)
            late = now - max(LATE_AT_LEAST, LATE * zone.usual)
            for peer in zone.peers.values():
                for piece in [piece for piece, pull in peer.pulls.items() if pull.since < late]:
                    self._end(peer, piece)

    def _forget(self, name: str) -> None:
        peer = self._peers.pop(name, None)
        if peer is None:
            return
        for piece in list(peer.pulls):
            self._end(peer, piece)
        zone = peer.zone
        del zone.peers[name]
        zone.order.remove(peer)
        if self._by_address.get(peer.address) is peer:
            del self._by_address[peer.address]
        if not zone.peers:
            del self._zones[zone.label]
        zone.held = 0
        for each in zone.peers.values():
            zone.held |= each.held
        self._any = 0
        for other in self._zones.values():
            self._any |= other.held


class ZonedLeases:
    """The leases of a swarm with nodes in zones: `leases`, and the `crossings` of the nodes that `enter` them.

    Each piece comes from its scarce source once, then crosses into each other zone once. Where all nodes are in one
    zone, or take no part in crossings, these are plain `Leases`.
    """

    def __init__(self, leases: Leases, crossings: Crossings) -> None:
        self._leases = leases
        self._crossings = crossings
        self._merged: dict[str, tuple[Grant, Grant]] = {}
        """By peer, the grant without crossings, and that with them."""

    @property
    def origin_bytes(self) -> int:
        """As `Leases.origin_bytes`."""
        return self._leases.origin_bytes

    def enter(self, name: str, zone: str, address: str) -> None:
        """The node `name` of `zone` serves its pieces to other zones at `address`; before its first `update`."""
        self._crossings.enter(name, zone, address)

    def update(self, name: str, demand: Demand, now: float, *, address: str = "") -> None:
        """As `Leases.update`."""
        self._crossings.update(name, demand, now)
        self._leases.update(name, demand, now, address=address, elsewhere=self._crossings.elsewhere(name))

    def leave(self, name: str) -> None:
        """Remove a peer that has gone."""
        self._leases.leave(name)
        self._crossings.leave(name)
        self._merged.pop(name, None)

    def grant(self, now: float) -> Mapping[str, Grant]:
        """As `Leases.grant`."""
        plain = self._leases.grant(now)
        if not len(self._crossings):
            return plain
        grants = dict(plain)
        for name, crossings in self._crossings.grant(now):
            if (own := plain.get(name)) is None:
                continue
            known = self._merged.get(name)
            if known is None or known[0] is not own or known[1].crossings is not crossings:
                known = self._merged[name] = own, replace(own, crossings=crossings)
            grants[name] = known[1]
        return grants
