"""Who pulls which scarce piece: the leases that a coordinator gives to the peers of one swarm.

A piece that only a scarce source has (a seeder, a mirror) is pulled by one peer, its leaseholder; everyone else takes
it from that peer. So a source sends each piece about once, and what it sends next is something new.

1. A peer tells its whole state, again and again: which pieces neither it nor any peer it knows has. Nothing else is
   known of it, so a coordinator that starts anew has the picture within a second.
2. A piece is leased while somebody who is there lacks it, nobody else has it leased, and nobody who is there has
   brought it in the last `OUT_FOR` seconds: it may need a while to reach those who are not connected to the bringer.
3. Leases run from the first piece to the last, so files become whole one after another everywhere.
4. Seeders get few requests at a time, so that a piece is whole soon and is passed on while the next comes:
   `_PieceWindow` finds how many keep them busy. Mirrors are reached over each peer's own way,
   where the limit is its own.
5. Whose leases take much longer than is usual is tried only now and then while others can take them: all would wait
   for its uplink. Towards the end so is who has brought little, however quick its last lease was: a slow link is quick
   for a moment now and then, and slow again with the piece that all wait for. Who is slow is not judged by what it
   takes in, which depends on who gets the leases: one that got some more at first was the quickest then, and got all
   of them.
6. A lease ends with its holder's connection, after `SILENCE` seconds without a word, or when it is overdue; then
   somebody else gets the piece.
7. What comes from mirrors is counted against the swarm's budget before it is leased, so that the budget holds.

Pure: time in seconds is passed in. Sets of pieces are integers, bit p for piece p: a swarm has up to a million pieces
and a thousand peers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

SILENCE = 5.0
"""Seconds without a word after which a peer counts as gone."""
OUT_FOR = 30.0
"""Seconds for which a piece that a peer brought is left to spread."""
SLOW = 3.0
"""How many times longer than usual a peer's leases may take."""
FEW = 3.0
"""How many times fewer pieces than is usual are little for a peer to have brought."""
PROBATION = 5.0
"""Multiples of the time that a slow peer's leases take after which it is tried with another one, if the rest takes
`SLOW` times as long."""
OVERDUE = 8.0
"""Multiples of the usual time after which a lease is given to another peer, too."""
OVERDUE_AT_LEAST = 20.0
"""Seconds before which no lease is overdue."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a peer says of itself. `scarce`: pieces that neither it nor any peer it is connected to has.

    `near`: it takes leased pieces from a seeder, else from a mirror. `want` is how many pieces it would hold leased at
    a time (0: it cannot pull now, and gives back what it holds), `origin_bytes` what it has pulled from mirrors so far.
    """

    scarce: int
    near: bool
    want: int = 1
    origin_bytes: int = 0
    leased: int = 0
    """What it believes to hold: taken over by a coordinator that does not know the peer."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a peer is told: the pieces that are its own to pull, how many peers are served in all, and how many bytes
    these have pulled from mirrors. `refused`: the budget for that is spent."""

    pieces: tuple[int, ...] = ()
    peers: int = 1
    origin_bytes: int = 0
    refused: bool = False


@dataclass(slots=True)
class _LeasePeer:
    demand: Demand
    seen: float
    leased: dict[int, float] = field(default_factory=dict)
    """By piece, since when."""
    brought: list[tuple[float, int]] = field(default_factory=list)
    """Pieces it pulled under a lease, and when."""
    took: float = 0.0
    """Seconds that its leases take, smoothed; 0 while none has ended."""
    tried: float = 0.0
    """When the last one did."""
    worst: float = 0.0
    """Seconds that the longest took."""
    done: int = 0
    """How many it has brought."""

    def note(self, seconds: float, now: float) -> None:
        """A lease has taken so long."""
        self.took = (self.took + seconds) / 2 if self.took else seconds
        self.worst = max(self.worst, seconds)
        self.tried = now

    @property
    def waits(self) -> bool:
        """Whether it would take another lease."""
        return len(self.leased) < self.demand.want and self.demand.scarce != 0


class Leases:
    """The leases of one swarm of `piece_count` pieces with `size` bytes in all.

    The mirrors may be asked for `budget` times `size` by the peers that are there together (0: for any number of
    bytes); once nobody is there the count begins anew. `slow`: how many times longer than usual a peer's leases may
    take (infinity: all are served, where each has a way of its own to what it pulls).

    A word of one peer among ten thousand must not cost a look at all of them, so what follows from all peers together
    is kept: `_taken`, `_outstanding`, `_spent`, `_look_at` and `_grants` change with what they are made of.
    """

    def __init__(self, piece_count: int, size: int, *, budget: float = 0.0, slow: float = SLOW) -> None:
        self._all = (1 << piece_count) - 1
        self._mean = size / max(piece_count, 1)
        # Two pieces more: the last ones may be worth more than their share.
        self._budget = budget * size + 2 * self._mean if budget else float("inf")
        self._slow = slow
        self._peers: dict[str, _LeasePeer] = {}
        """Who was given something longest ago comes first."""
        self._window = _PieceWindow()
        self._gone: dict[str, int] = {}
        """Mirror bytes of peers that have left, by name: who comes back tells them again."""
        self._spent = 0
        self._taken = 0
        """Leased now, or brought not long ago by somebody who is still there: no piece is both, or twice."""
        self._outstanding = {True: 0, False: 0}
        """Leases of those who are near, and who are not."""
        self._far = 0
        """Peers that are not near."""
        self._done = 0
        """How many pieces all who are there have brought."""
        self._brought = 0
        """Pieces that anybody has ever brought."""
        self._look_at = 0.0
        """Until then nothing expires; at most `SILENCE` from now while anybody is there."""
        self._grants: dict[str, Grant] = {}
        self._changed: set[str] = set()
        """Whose grant is not the one that was made for it last."""
        self._said = (0, 0, False)
        """What all grants have in common."""

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def origin_bytes(self) -> int:
        """Bytes that all peers, present or gone, have pulled from mirrors."""
        return self._spent

    def tell(self, name: str, demand: Demand, now: float) -> None:
        """The peer `name` tells its state. What it no longer lacks it has brought."""
        peer = self._peers.get(name)
        if peer is None:
            peer = self._take_in(name, demand, now)
        lost_seeders = peer.demand.near and not demand.near
        self._note(peer, demand)
        peer.seen = now
        done = [piece for piece in peer.leased if not demand.scarce >> piece & 1]
        for piece in done:
            self._window.took(now - peer.leased[piece], len(self._peers))
            peer.note(now - peer.leased[piece], now)
        if done:
            peer.done += len(done)
            self._done += len(done)
            self._end(name, done)
            brought = bits_of(done)
            peer.brought.append((now, brought))
            self._taken |= brought
            self._brought |= brought
        if lost_seeders or not demand.want:
            self._end(name, list(peer.leased))  # whether the budget lets mirrors give them is another question

    def leave(self, name: str) -> None:
        """The peer is gone; what it had leased is free."""
        if peer := self._peers.get(name):
            self._end(name, list(peer.leased))
            for _, pieces in peer.brought:
                self._taken &= ~pieces
            del self._peers[name]
            self._far -= not peer.demand.near
            self._done -= peer.done
            self._gone[name] = peer.demand.origin_bytes
        if not self._peers:
            self._gone.clear()
            self._spent = 0

    def grant(self, now: float) -> Mapping[str, Grant]:
        """Give what can be given; what every peer is to be told from now on, as a view that the next call changes. A
        grant that is the same object as before is no news."""
        if now >= self._look_at:
            self._expire(now)
        if self._has_room:
            self._share_out(now)
        return self._told()

    # -- who is there ----------------------------------------------------------------------------------------

    def _take_in(self, name: str, demand: Demand, now: float) -> _LeasePeer:
        """A new peer; what it believes to hold is its own, if nobody else has it."""
        self._spent += demand.origin_bytes - self._gone.pop(name, 0)
        self._far += not demand.near
        self._look_at = min(self._look_at, now + SILENCE)
        peer = self._peers[name] = _LeasePeer(demand, now)
        self._begin(name, demand.leased & self._all & ~self._taken, now)
        return peer

    def _note(self, peer: _LeasePeer, demand: Demand) -> None:
        was, peer.demand = peer.demand, demand
        self._spent += demand.origin_bytes - was.origin_bytes
        if was.near != demand.near:
            self._far += was.near - demand.near
            self._outstanding[was.near] -= len(peer.leased)
            self._outstanding[demand.near] += len(peer.leased)

    def _told(self) -> Mapping[str, Grant]:
        said = len(self._peers), self._spent, not self._affords(1)
        names = self._changed if said == self._said else self._peers.keys() | self._changed
        for name in names:
            if peer := self._peers.get(name):
                self._grants[name] = Grant(tuple(peer.leased), *said)
            else:
                self._grants.pop(name, None)
        self._changed, self._said = set(), said
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
        """Whether others would wait at the end for what it brings: one that has brought little may take its longest."""
        little = peer.worst > 0 and FEW * peer.done * len(self._peers) < self._done
        return little and self._slow < float("inf") and self._rest() <= self._slow * peer.worst

    def _is_worth_a_try(self, peer: _LeasePeer, now: float) -> bool:
        if peer.leased or now <= peer.tried + PROBATION * peer.took:
            return False
        return self._rest() > self._slow * peer.worst

    def _rest(self) -> float:
        """Seconds until all is leased, as things go."""
        untouched = (self._all & ~self._taken & ~self._brought).bit_count()
        return untouched * self._window.usual / max(sum(self._outstanding.values()), 1)

    @property
    def _has_room(self) -> bool:
        """Whether anybody could be given anything."""
        untaken = (self._all & ~self._taken).bit_count()
        from_seeders = self._outstanding[True] < self._window.size(untaken)
        return untaken > 0 and (from_seeders or (self._far > 0 and self._affords(1)))

    def _in_turn(self) -> Iterator[tuple[str, _LeasePeer]]:
        """Who waits for leases, first who has the fewest, then who has waited longest."""
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
        if peer.demand.near:
            room = min(room, self._window.size(free.bit_count()) - self._outstanding[True])
        given = 0
        while free and room > 0 and (peer.demand.near or self._affords(1 + given.bit_count())):
            lowest = free & -free
            given, free, room = given | lowest, free ^ lowest, room - 1
        if given:
            self._begin(name, given, now)
            self._come_last(name)

    def _begin(self, name: str, pieces: int, now: float) -> None:
        peer = self._peers[name]
        peer.leased |= dict.fromkeys(pieces_of(pieces), now)
        self._taken |= pieces
        self._outstanding[peer.demand.near] += pieces.bit_count()
        self._changed.add(name)

    def _end(self, name: str, pieces: Sequence[int]) -> None:
        """They are this peer's no more."""
        peer = self._peers[name]
        for piece in pieces:
            del peer.leased[piece]
        self._taken &= ~bits_of(pieces)
        self._outstanding[peer.demand.near] -= len(pieces)
        self._changed.add(name)

    def _come_last(self, name: str) -> None:
        self._peers[name] = self._peers.pop(name)

    def _affords(self, more: int) -> bool:
        """Whether `more` pieces can come from mirrors, beside those that are on their way."""
        return self._spent + (self._outstanding[False] + more) * self._mean <= self._budget

    def _expire(self, now: float) -> None:
        for name in [name for name, peer in self._peers.items() if now - peer.seen > SILENCE]:
            self.leave(name)
        overdue = max(OVERDUE_AT_LEAST, OVERDUE * self._window.usual)
        for name, peer in list(self._peers.items()):
            while peer.brought and now - peer.brought[0][0] > OUT_FOR:
                self._taken &= ~peer.brought.pop(0)[1]
            if late := [piece for piece, since in peer.leased.items() if now - since > overdue]:
                self._end(name, late)
                self._come_last(name)
                peer.note(overdue, now)
        self._look_at = min(map(_looks_at, self._peers.values()), default=float("inf"))


def _looks_at(peer: _LeasePeer) -> float:
    """When something of a peer expires at the earliest."""
    brought = peer.brought[0][0] if peer.brought else float("inf")
    leased = min(peer.leased.values(), default=float("inf"))
    return min(peer.seen + SILENCE, brought + OUT_FOR, leased + OVERDUE_AT_LEAST)


class _PieceWindow:
    """How many pieces are asked of the seeders at a time.

    Enough to keep them busy, and no more: what is asked for at the same time is whole at the same time, late. While a
    piece takes less than `ENOUGH` seconds, or less than twice what it takes at best, more is asked for. In a crowd it
    takes longer for another reason: each peer takes in from all others, too, and the seeder is one of many that share
    its downlink. Then some more than one for each peer keep the seeder busy (8 peers at 50 Mbit/s: 0.3 seconds' worth
    left it idle for 7 % of the time); that many are reached at once, or it would be half idle in the first second. A
    peer shares with those it is connected to, `NEIGHBOURS` at most at first. Where that many are not even `ENOUGH`, it
    was idle for 5 % (8 peers, 1.07 GB at 100 Mbit/s: 1.08 of the bound with 0.3 seconds, 1.065 with 0.6, 1.07 with 1).
    Towards the end fewer and fewer are asked for, so that the last pieces do not all wait to be passed on together.
    """

    LEAST = 2
    MOST = 4096
    ENOUGH = 0.6
    A_PEER = 1.25
    NEIGHBOURS = 51
    OF_THE_REST = 2

    def __init__(self) -> None:
        self._size = float(self.LEAST)
        self._best = float("inf")
        self.usual = 0.0
        """Seconds that a piece takes, smoothed."""

    def size(self, rest: int) -> int:
        """For now, with `rest` pieces that nobody pulls yet."""
        return int(min(self._size, max(2 * self.LEAST, rest / self.OF_THE_REST)))

    def took(self, seconds: float, peers: int) -> None:
        """A piece has come `seconds` after it was leased, to one of `peers`."""
        self._best = min(self._best * 1.01, seconds)  # links change: the best is not for ever
        self.usual += (seconds - self.usual) / 8 if self.usual else seconds
        if self._size < self.A_PEER * min(peers, self.NEIGHBOURS):
            step = 1.0
        else:
            step = 0.25 if self.usual < max(self.ENOUGH, 2 * self._best) else -0.25
        self._size = min(max(self._size + step, self.LEAST), self.MOST)


def bits_of(pieces: Iterable[int]) -> int:
    """A set of piece indexes as an integer."""
    field = bytearray()
    for piece in pieces:
        place = piece >> 3
        if place >= len(field):
            field.extend(bytes(place + 1 - len(field)))
        field[place] |= 1 << (piece & 7)
    return int.from_bytes(field, "little")


def pieces_of(bits: int) -> Iterator[int]:
    """The piece indexes in an integer, ascending."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
