"""Who pulls which scarce piece: the leases that a coordinator gives to the peers of one swarm.

A piece that only a scarce source has (a seeder, a mirror) is pulled by one peer, its leaseholder; everyone else takes
it from that peer. So a source sends each piece about once, and what it sends next is something new.

1. A peer tells its whole state, again and again: which pieces neither it nor any peer it knows has. Nothing else is
   known of it, so a coordinator that starts anew has the picture within a second.
2. A piece is leased while somebody who is there lacks it, nobody else has it leased, and nobody who is there has
   brought it in the last `OUT_FOR` seconds: it may need a while to reach those who are not connected to the bringer.
3. Leases run from the first piece to the last, so files become whole one after another everywhere.
4. Seeders get few requests at a time, so that a piece is whole soon and is passed on while the next comes:
   `_Window` finds how many keep them busy. Mirrors are reached over each peer's own way, where the limit is its own.
5. Who is much slower than the quickest gets no lease while others can take it: all would wait for its uplink.
6. A lease ends with its holder's connection, after `SILENCE` seconds without a word, or when it is overdue; then
   somebody else gets the piece.
7. What comes from mirrors is counted against the swarm's budget before it is leased, so that the budget holds.

Pure: time in seconds is passed in. Sets of pieces are integers, bit p for piece p: a swarm has up to a million pieces
and a thousand peers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SILENCE = 5.0
"""Seconds without a word after which a peer counts as gone."""
OUT_FOR = 30.0
"""Seconds for which a piece that a peer brought is left to spread."""
SLOW = 3.0
"""How many times slower than the quickest peer one may be and still get leases."""
OVERDUE = 8.0
"""Multiples of the usual time after which a lease is given to another peer, too."""
OVERDUE_AT_LEAST = 20.0
"""Seconds before which no lease is overdue."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a peer says of itself. `scarce`: pieces that neither it nor any peer it is connected to has.

    `near`: it takes leased pieces from a seeder, else from a mirror. `want` is how many pieces it would hold leased at
    a time (0: it cannot pull now, and gives back what it holds), `rate` the bytes a second it has taken in at best
    lately (0: not known), `origin_bytes` what it has pulled from mirrors so far.
    """

    scarce: int
    near: bool
    want: int = 1
    rate: float = 0.0
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
class _Peer:
    demand: Demand
    seen: float
    served: float
    """When it was given something last."""
    leased: dict[int, float] = field(default_factory=dict)
    """By piece, since when."""
    brought: list[tuple[float, int]] = field(default_factory=list)
    """Pieces it pulled under a lease, and when."""


class Leases:
    """The leases of one swarm of `piece_count` pieces with `size` bytes in all.

    The mirrors may be asked for `budget` times `size` by the peers that are there together (0: for any number of
    bytes); once nobody is there the count begins anew.
    """

    def __init__(self, piece_count: int, size: int, *, budget: float = 0.0) -> None:
        self._all = (1 << piece_count) - 1
        self._mean = size / max(piece_count, 1)
        # Two pieces more: the last ones may be worth more than their share.
        self._budget = budget * size + 2 * self._mean if budget else float("inf")
        self._peers: dict[str, _Peer] = {}
        self._window = _Window()
        self._gone: dict[str, int] = {}
        """Mirror bytes of peers that have left, by name: who comes back tells them again."""

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def origin_bytes(self) -> int:
        """Bytes that all peers, present or gone, have pulled from mirrors."""
        return sum(self._gone.values()) + sum(peer.demand.origin_bytes for peer in self._peers.values())

    def tell(self, name: str, demand: Demand, now: float) -> None:
        """The peer `name` tells its state. What it no longer lacks it has brought."""
        peer = self._peers.get(name)
        if peer is None:
            self._gone.pop(name, None)
            free = demand.leased & self._all & ~self._taken()
            peer = self._peers[name] = _Peer(demand, now, now, dict.fromkeys(pieces_of(free), now))
        lost_seeders = peer.demand.near and not demand.near
        peer.demand, peer.seen = demand, now
        done = [piece for piece in peer.leased if not demand.scarce >> piece & 1]
        for piece in done:
            self._window.took(now - peer.leased.pop(piece), len(self._peers))
        if done:
            peer.brought.append((now, bits_of(done)))
        if lost_seeders or not demand.want:
            peer.leased.clear()  # whether the budget lets mirrors give them is another question

    def leave(self, name: str) -> None:
        """The peer is gone; what it had leased is free."""
        if peer := self._peers.pop(name, None):
            self._gone[name] = peer.demand.origin_bytes
        if not self._peers:
            self._gone.clear()

    def grant(self, now: float) -> dict[str, Grant]:
        """Give what can be given; what every peer is to be told from now on."""
        self._expire(now)
        taken, quickest = self._taken(), self._quickest()
        waiting = [p for p in self._peers.values() if len(p.leased) < p.demand.want and p.demand.scarce]
        for peer in sorted(waiting, key=lambda p: (len(p.leased), p.served)):
            if not 0 < peer.demand.rate * SLOW < quickest:
                taken |= self._give(peer, taken, now)
        count, spent, refused = len(self._peers), self.origin_bytes, not self._affords(1)
        return {name: Grant(tuple(p.leased), count, spent, refused) for name, p in self._peers.items()}

    def _give(self, peer: _Peer, taken: int, now: float) -> int:
        free = peer.demand.scarce & self._all & ~taken
        room = peer.demand.want - len(peer.leased)
        if peer.demand.near:
            room = min(room, self._window.size(free.bit_count()) - self._outstanding(near=True))
        given = 0
        while free and room > 0 and (peer.demand.near or self._affords(1)):
            lowest = free & -free
            given, free, room = given | lowest, free ^ lowest, room - 1
            peer.leased[lowest.bit_length() - 1] = now
        if given:
            peer.served = now
        return given

    def _taken(self) -> int:
        """Leased now, or brought not long ago by somebody who is still there."""
        taken = 0
        for peer in self._peers.values():
            taken |= bits_of(peer.leased)
            for _, pieces in peer.brought:
                taken |= pieces
        return taken

    def _outstanding(self, *, near: bool) -> int:
        return sum(len(peer.leased) for peer in self._peers.values() if peer.demand.near == near)

    def _quickest(self) -> float:
        """The rate of the quickest peer that could take a lease, or holds one."""
        affords = self._affords(1)
        able = (p for p in self._peers.values() if p.leased or p.demand.near or affords)
        return max((p.demand.rate for p in able if p.demand.scarce and p.demand.want), default=0.0)

    def _affords(self, more: int) -> bool:
        """Whether `more` pieces can come from mirrors, beside those that are on their way."""
        return self.origin_bytes + (self._outstanding(near=False) + more) * self._mean <= self._budget

    def _expire(self, now: float) -> None:
        for name in [name for name, peer in self._peers.items() if now - peer.seen > SILENCE]:
            self.leave(name)
        overdue = max(OVERDUE_AT_LEAST, OVERDUE * self._window.usual)
        for peer in self._peers.values():
            while peer.brought and now - peer.brought[0][0] > OUT_FOR:
                peer.brought.pop(0)
            for piece in [p for p, since in peer.leased.items() if now - since > overdue]:
                del peer.leased[piece]
                peer.served = now  # the others come first


class _Window:
    """How many pieces are asked of the seeders at a time.

    Enough to keep them busy, and no more: what is asked for at the same time is whole at the same time, late. While a
    piece takes less than `ENOUGH` seconds, or less than twice what it takes at best, more is asked for. In a crowd it
    takes longer for another reason: each peer takes in from all others, too, and the seeder is one of many that share
    its downlink. Then some more than one for each peer keep the seeder busy (8 peers at 50 Mbit/s: 0.3 seconds' worth
    left it idle for 7 % of the time). Towards the end fewer and fewer are asked for, so that the last pieces do not all
    wait to be passed on together.
    """

    LEAST = 2
    MOST = 4096
    ENOUGH = 0.3
    A_PEER = 1.25
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
        grow = self.usual < max(self.ENOUGH, 2 * self._best) or self._size < self.A_PEER * peers
        self._size = min(max(self._size + (1 if grow else -1) / 4, self.LEAST), self.MOST)


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
