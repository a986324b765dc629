"""Leases: which peer of a swarm downloads which scarce piece. A coordinator computes them.

A piece that only a scarce source has (a seeder, a mirror) is downloaded by one peer, its leaseholder; all other peers
get it from that peer. So a source sends each piece about once, and always sends something new.

1. A peer sends its whole state, again and again: which pieces neither it nor any peer it is connected to has. Nothing
   else is known of it, so a restarted coordinator has the full state within a second.
2. A piece is leased while a present peer lacks it, no other peer has it leased, and no present peer has delivered it in
   the last `OUT_FOR` seconds: it may need a while to reach peers that are not connected to that one.
3. Leases run from the first piece to the last, so files become complete one after another on all nodes.
4. Seeders get few requests at a time, so that a piece is complete soon and is exchanged while the next comes:
   `PieceWindow` finds how many keep them busy. Mirrors are reached over each peer's own link, which has its own limit.
5. A peer with leases that take much longer than usual gets one only now and then while others can take them: all
   peers would wait for its uplink. Near the end, peers that delivered few pieces get no leases, however quick their
   last one was: a slow link is quick for a moment now and then, and slow again with the piece that all wait for. A
   peer's own download rate does not decide, since it depends on which peer gets the leases: one that got some more at
   first was the quickest then, and got all of them.
6. A lease ends with its holder's connection, after `SILENCE` seconds without a message, or when it is overdue; then
   another peer gets the piece.
7. Bytes from mirrors are counted against the swarm's budget before they are leased, so that the budget holds.

Pure: time in seconds is passed in. Sets of pieces are integers, bit p for piece p: a swarm has up to a million pieces
and a thousand peers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from p2pmodel.coordinator.demand import Demand, Grant
from p2pmodel.coordinator.piece_window import PieceWindow
from p2pmodel.core.bitfield import bits_of, pieces_of

SILENCE = 5.0
"""Seconds without a message after which a peer counts as gone."""
OUT_FOR = 30.0
"""Seconds for which a delivered piece is left to spread."""
SLOW = 3.0
"""How many times longer than usual a peer's leases may take."""
FEW = 3.0
"""A peer that delivered this many times fewer pieces than the mean has delivered few."""
PROBATION = 5.0
"""Multiples of the time of a slow peer's leases after which it is tried with another one, if the rest takes `SLOW`
times as long."""
OVERDUE = 8.0
"""Multiples of the usual time after which a lease is given to another peer, too."""
OVERDUE_AT_LEAST = 20.0
"""Seconds before which no lease is overdue."""


@dataclass(slots=True)
class _LeasePeer:
    demand: Demand
    seen: float
    leased: dict[int, float] = field(default_factory=dict)
    """When each lease began, by piece."""
    delivered: list[tuple[float, int]] = field(default_factory=list)
    """When it downloaded which pieces under a lease; the older are dropped."""
    took: float = 0.0
    """Seconds that its leases take, smoothed; 0 before the first has ended."""
    tried: float = 0.0
    """When the last one ended."""
    longest: float = 0.0
    """Seconds that the longest took."""
    count: int = 0
    """Pieces it has delivered in all."""

    def note(self, seconds: float, now: float) -> None:
        """Note that a lease took `seconds`."""
        self.took = (self.took + seconds) / 2 if self.took else seconds
        self.longest = max(self.longest, seconds)
        self.tried = now

    @property
    def waits(self) -> bool:
        """Whether it would take another lease."""
        return len(self.leased) < self.demand.want and self.demand.scarce != 0


class Leases:
    """The leases of one swarm of `piece_count` pieces with `size` bytes in all.

    The present peers together may download `budget` times `size` from mirrors (0: no limit); once no peer is present
    the count begins anew. `slow`: how many times longer than usual a peer's leases may take (infinity: all peers are
    served, where each has its own link to the source).

    A message of one peer among ten thousand must not cost a look at all of them, so totals over all peers are stored
    and updated with what they are made of: `_taken`, `_outstanding`, `_spent`, `_next_expiry` and `_grants`.
    """

    def __init__(self, piece_count: int, size: int, *, budget: float = 0.0, slow: float = SLOW) -> None:
        self._all = (1 << piece_count) - 1
        self._mean = size / max(piece_count, 1)
        # Two pieces more: the last ones may be larger than the mean.
        self._budget = budget * size + 2 * self._mean if budget else float("inf")
        self._slow = slow
        self._peers: dict[str, _LeasePeer] = {}
        """The peer that got a lease longest ago comes first."""
        self._window = PieceWindow()
        self._gone: dict[str, int] = {}
        """Mirror bytes of peers that have left, by name: a peer that reconnects reports them again."""
        self._spent = 0
        self._taken = 0
        """Leased now, or delivered lately by a peer that is still present: no piece is both, or twice."""
        self._outstanding = {True: 0, False: 0}
        """Leases of peers that download from seeders, and of those that do not."""
        self._on_mirrors = 0
        """Peers that do not download from seeders."""
        self._delivered_count = 0
        """Pieces that all present peers have delivered."""
        self._delivered = 0
        """Pieces that any peer has ever delivered."""
        self._next_expiry = 0.0
        """Until then nothing expires; at most `SILENCE` from now while any peer is present."""
        self._grants: dict[str, Grant] = {}
        self._changed: set[str] = set()
        """Peers with a grant that differs from the last one computed."""
        self._common = (0, 0, False)
        """The part that all grants share."""

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def origin_bytes(self) -> int:
        """Bytes that all peers, present or gone, have downloaded from mirrors."""
        return self._spent

    def update(self, name: str, demand: Demand, now: float) -> None:
        """Take the state of the peer `name`. Leased pieces that it no longer lacks count as delivered."""
        peer = self._peers.get(name)
        if peer is None:
            peer = self._add(name, demand, now)
        lost_seeders = peer.demand.from_seeders and not demand.from_seeders
        self._replace_demand(peer, demand)
        peer.seen = now
        done = [piece for piece in peer.leased if not demand.scarce >> piece & 1]
        for piece in done:
            self._window.took(now - peer.leased[piece], len(self._peers))
            peer.note(now - peer.leased[piece], now)
        if done:
            peer.count += len(done)
            self._delivered_count += len(done)
            self._end(name, done)
            delivered = bits_of(done)
            peer.delivered.append((now, delivered))
            self._taken |= delivered
            self._delivered |= delivered
        if lost_seeders or not demand.want:
            self._end(name, list(peer.leased))  # the budget decides anew whether mirrors may deliver them

    def leave(self, name: str) -> None:
        """Remove a peer that has gone; its leases are free."""
        if peer := self._peers.get(name):
            self._end(name, list(peer.leased))
            for _, pieces in peer.delivered:
                self._taken &= ~pieces
            del self._peers[name]
            self._on_mirrors -= not peer.demand.from_seeders
            self._delivered_count -= peer.count
            self._gone[name] = peer.demand.origin_bytes
        if not self._peers:
            self._gone.clear()
            self._spent = 0

    def grant(self, now: float) -> Mapping[str, Grant]:
        """Give all leases that can be given. Returns every peer's grant, by name, as a view that the next call changes.

        A grant that is the same object as before has not changed.
        """
        if now >= self._next_expiry:
            self._expire(now)
        if self._has_room:
            self._share_out(now)
        return self._current_grants()

    # -- peers -----------------------------------------------------------------------------------------------

    def _add(self, name: str, demand: Demand, now: float) -> _LeasePeer:
        """Add a peer; leases that it reports are its own, if no other peer has them."""
        self._spent += demand.origin_bytes - self._gone.pop(name, 0)
        self._on_mirrors += not demand.from_seeders
        self._next_expiry = min(self._next_expiry, now + SILENCE)
        peer = self._peers[name] = _LeasePeer(demand, now)
        self._begin(name, demand.leased & self._all & ~self._taken, now)
        return peer

    def _replace_demand(self, peer: _LeasePeer, demand: Demand) -> None:
        before, peer.demand = peer.demand, demand
        self._spent += demand.origin_bytes - before.origin_bytes
        if before.from_seeders != demand.from_seeders:
            self._on_mirrors += before.from_seeders - demand.from_seeders
            self._outstanding[before.from_seeders] -= len(peer.leased)
            self._outstanding[demand.from_seeders] += len(peer.leased)

    def _current_grants(self) -> Mapping[str, Grant]:
        common = len(self._peers), self._spent, not self._affords(1)
        names = self._changed if common == self._common else self._peers.keys() | self._changed
        for name in names:
            if peer := self._peers.get(name):
                self._grants[name] = Grant(tuple(peer.leased), *common)
            else:
                self._grants.pop(name, None)
        self._changed, self._common = set(), common
        return MappingProxyType(self._grants)

    # -- leases ----------------------------------------------------------------------------------------------

    def _share_out(self, now: float) -> None:
        slow = []
        for name, peer in self._in_turn():
            is_slow = self._is_slow(peer)
            if is_slow and not self._is_worth_a_try(peer, now):
                slow.append((name, peer))
                continue
            self._give(name, peer, now, most=1 if is_slow else None)
            if not self._has_room:
                return
        for name, peer in slow if not any(self._outstanding.values()) else ():
            self._give(name, peer, now)

    def _is_slow(self, peer: _LeasePeer) -> bool:
        return peer.took > self._slow * self._window.usual or self._is_late(peer)

    def _is_late(self, peer: _LeasePeer) -> bool:
        """Whether others would wait at the end for this peer: with few deliveries, its longest time is assumed."""
        few = peer.longest > 0 and FEW * peer.count * len(self._peers) < self._delivered_count
        return few and self._slow < float("inf") and self._rest() <= self._slow * peer.longest

    def _is_worth_a_try(self, peer: _LeasePeer, now: float) -> bool:
        if peer.leased or now <= peer.tried + PROBATION * peer.took:
            return False
        return self._rest() > self._slow * peer.longest

    def _rest(self) -> float:
        """Estimated seconds until all pieces are leased."""
        untouched = (self._all & ~self._taken & ~self._delivered).bit_count()
        return untouched * self._window.usual / max(sum(self._outstanding.values()), 1)

    @property
    def _has_room(self) -> bool:
        """Whether any peer could get a lease."""
        untaken = (self._all & ~self._taken).bit_count()
        from_seeders = self._outstanding[True] < self._window.size(untaken)
        return untaken > 0 and (from_seeders or (self._on_mirrors > 0 and self._affords(1)))

    def _in_turn(self) -> Iterator[tuple[str, _LeasePeer]]:
        """Peers that wait for leases: those with the fewest first, then those that have waited longest."""
        others: dict[int, list[tuple[str, _LeasePeer]]] = {}
        for name, peer in list(self._peers.items()):
            if peer.waits and peer.leased:
                others.setdefault(len(peer.leased), []).append((name, peer))
            elif peer.waits:
                yield name, peer
        for count in sorted(others):
            yield from others[count]

    def _give(self, name: str, peer: _LeasePeer, now: float, *, most: int | None = None) -> None:
        free = peer.demand.scarce & self._all & ~self._taken
        room = (peer.demand.want if most is None else most) - len(peer.leased)
        if peer.demand.from_seeders:
            room = min(room, self._window.size(free.bit_count()) - self._outstanding[True])
        given = 0
        while free and room > 0 and (peer.demand.from_seeders or self._affords(1 + given.bit_count())):
            lowest = free & -free
            given, free, room = given | lowest, free ^ lowest, room - 1
        if given:
            self._begin(name, given, now)
            self._move_to_end(name)

    def _begin(self, name: str, pieces: int, now: float) -> None:
        peer = self._peers[name]
        peer.leased |= dict.fromkeys(pieces_of(pieces), now)
        self._taken |= pieces
        self._outstanding[peer.demand.from_seeders] += pieces.bit_count()
        self._changed.add(name)

    def _end(self, name: str, pieces: Sequence[int]) -> None:
        """End this peer's leases of `pieces`."""
        peer = self._peers[name]
        for piece in pieces:
            del peer.leased[piece]
        self._taken &= ~bits_of(pieces)
        self._outstanding[peer.demand.from_seeders] -= len(pieces)
        self._changed.add(name)

    def _move_to_end(self, name: str) -> None:
        self._peers[name] = self._peers.pop(name)

    def _affords(self, more: int) -> bool:
        """Whether `more` pieces can come from mirrors, beside those that are on their way."""
        return self._spent + (self._outstanding[False] + more) * self._mean <= self._budget

    def _expire(self, now: float) -> None:
        for name in [name for name, peer in self._peers.items() if now - peer.seen > SILENCE]:
            self.leave(name)
        overdue = max(OVERDUE_AT_LEAST, OVERDUE * self._window.usual)
        for name, peer in list(self._peers.items()):
            while peer.delivered and now - peer.delivered[0][0] > OUT_FOR:
                self._taken &= ~peer.delivered.pop(0)[1]
            if late := [piece for piece, since in peer.leased.items() if now - since > overdue]:
                self._end(name, late)
                self._move_to_end(name)
                peer.note(overdue, now)
        self._next_expiry = min(map(_earliest_expiry, self._peers.values()), default=float("inf"))


def _earliest_expiry(peer: _LeasePeer) -> float:
    delivered = peer.delivered[0][0] if peer.delivered else float("inf")
    leased = min(peer.leased.values(), default=float("inf"))
    return min(peer.seen + SILENCE, delivered + OUT_FOR, leased + OVERDUE_AT_LEAST)
