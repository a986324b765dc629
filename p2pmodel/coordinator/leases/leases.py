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
   another peer gets the piece. A peer that delivers nothing gets fewer, then none (`coordinator/delivery_record`).
7. Bytes from mirrors are counted against the swarm's budget before they are leased (`coordinator/origin_budget`).

Pure: time in seconds is passed in. Sets of pieces are integers, bit p for piece p: a swarm has up to a million pieces
and a thousand peers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from types import MappingProxyType

from p2pmodel.coordinator.leases.delivery_record import LEAST, PROVE_WITHIN, QUIET, AddressShares
from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.coordinator.leases.origin_budget import OriginBudget
from p2pmodel.coordinator.leases.peer import OUT_FOR, SILENCE, LeasePeer
from p2pmodel.coordinator.leases.piece_window import PieceWindow
from p2pmodel.core.content.bitfield import bits_of, pieces_of

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
"""Seconds before which no lease of a peer that delivers is overdue."""
SLOW_LINK = 100_000
"""Bytes a second that the first piece of a peer comes with at least."""
LOOK_AT_QUIET = 0.5
"""Seconds between two counts of leases that are probably not used."""
SHARE_OF_THE_UNPROVEN = 2
"""A peer that has delivered nothing gets at most an equal share of the free pieces, divided by this."""
MOST_LAPSED = 4096
"""Leases that ended without a delivery and are remembered, by peer."""


class Leases:
    """The leases of one swarm of `piece_count` pieces with `size` bytes in all.

    The present peers together may download `budget` times `size` from mirrors (0: no limit); once no peer is present
    the count begins anew. `longest`: bytes of the longest piece, the mean by default. `slow`: how many times longer
    than usual a peer's leases may take (infinity: all peers are served, where each has its own link to the source).

    A message of one peer among ten thousand must not cost a look at all of them, so totals over all peers are stored
    and updated with what they are made of: `_taken`, `_outstanding`, `_unproven`, `_next_expiry` and `_grants`.
    """

    def __init__(
        self, piece_count: int, size: int, *, budget: float = 0.0, longest: int = 0, slow: float = SLOW
    ) -> None:
        self._all = (1 << piece_count) - 1
        self._mean = size / max(piece_count, 1)
        self._longest = longest or -(-size // max(piece_count, 1))
        self._budget = OriginBudget(size, self._mean, budget)
        self._first = self._mean / SLOW_LINK
        """Seconds that the first piece of a peer may take: how long others take is not known yet."""
        self._slow = slow
        self._peers: dict[str, LeasePeer] = {}
        """The peer that got a lease longest ago comes first."""
        self._window = PieceWindow()
        self._shares = AddressShares()
        self._unproven: set[str] = set()
        """Peers that have delivered nothing, or nothing lately, and hold leases."""
        self._delivered_by: dict[int, str] = {}
        """The peer that delivered a piece last, by piece; it may have left."""
        self._taken = 0
        """Leased now, or delivered lately by a peer that is still present: no piece is both, or twice."""
        self._outstanding = {True: 0, False: 0}
        """Leases of peers that download from seeders, and of those that do not."""
        self._quiet = 0
        """Leases for seeders that their peers probably do not use."""
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
        return self._budget.spent

    def update(self, name: str, demand: Demand, now: float, *, address: str = "") -> None:
        """Take the state of the peer `name` at `address`. Leased pieces that it no longer lacks count as delivered."""
        demand = replace(demand, scarce=demand.scarce & self._all)
        peer = self._peers.get(name)
        if peer is None:
            peer = self._add(name, demand, now, address or name)
        before = peer.demand
        lost_seeders = before.from_seeders and not demand.from_seeders
        self._replace_demand(peer, demand)
        peer.seen = now
        late = self._late(name, peer)
        done = [piece for piece in peer.leased if not demand.scarce >> piece & 1]
        for piece in done:
            self._took(peer, now - peer.leased[piece], now)
        if done:
            self._end(name, done)
            delivered = bits_of(done)
            peer.delivered.append((now, delivered))
            self._taken |= delivered
            self._delivered |= delivered
        for piece in late:
            self._took(peer, now - peer.lapsed.pop(piece), now)
        if done or late:
            self._count_delivered(name, peer, done + late, from_mirrors=not before.from_seeders)
        self._budget.declare(peer.origin, demand.origin_bytes)
        if lost_seeders or not demand.want:
            self._end(name, list(peer.leased))  # the budget decides anew whether mirrors may deliver them

    def leave(self, name: str) -> None:
        """Remove a peer that has gone; its leases are free."""
        if peer := self._peers.get(name):
            if peer.leased and not peer.record.proven:
                self._shares.lose(peer.address)
            self._end(name, list(peer.leased))
            for _, pieces in peer.delivered:
                self._taken &= ~pieces
            del self._peers[name]
            self._on_mirrors -= not peer.demand.from_seeders
            self._delivered_count -= peer.count
            self._budget.leave(name, peer.origin)
        if not self._peers:
            self._budget.restart()
            self._shares.clear()
            self._delivered_by.clear()

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

    def _add(self, name: str, demand: Demand, now: float, address: str) -> LeasePeer:
        """Add a peer; leases that it reports are its own, if no other peer has them, and it may hold that many."""
        self._on_mirrors += not demand.from_seeders
        self._next_expiry = min(self._next_expiry, now + SILENCE)
        origin = self._budget.enter(name, demand.origin_bytes)
        peer = self._peers[name] = LeasePeer(demand, now, address, origin)
        reported = demand.leased & self._all & ~self._taken
        most = max(self._may_hold(peer, reported.bit_count()), 0)
        self._begin(name, bits_of(islice(pieces_of(reported), most)), now)
        return peer

    def _late(self, name: str, peer: LeasePeer) -> list[int]:
        """Pieces that it delivered after its lease had ended, before any other peer."""
        come = [piece for piece in peer.lapsed if not peer.demand.scarce >> piece & 1]
        for piece in come:
            if self._delivered_by.get(piece, name) != name:
                del peer.lapsed[piece]
        return [piece for piece in come if piece in peer.lapsed]

    def _took(self, peer: LeasePeer, seconds: float, now: float) -> None:
        self._window.took(seconds, len(self._peers))
        peer.note(seconds, now)

    def _count_delivered(self, name: str, peer: LeasePeer, pieces: Sequence[int], *, from_mirrors: bool) -> None:
        if not peer.count:
            self._shares.prove(peer.address)
        peer.record.deliver(len(pieces))
        self._delivered_count += len(pieces)
        self._delivered_by |= dict.fromkeys(pieces, name)
        if from_mirrors:
            self._budget.delivered(peer.origin, len(pieces) * self._longest)
        self._note_record(name, peer)

    def _note_record(self, name: str, peer: LeasePeer) -> None:
        """Bring the totals of peers that deliver nothing up to date with this one."""
        shared = 0 if peer.record.proven else len(peer.leased)
        self._shares.change(peer.address, shared - peer.shared)
        peer.shared = shared
        if shared:
            self._unproven.add(name)
        else:
            self._unproven.discard(name)

    def _may_hold(self, peer: LeasePeer, free: int) -> int:
        """Leases that it may get in addition, with `free` pieces that no peer downloads."""
        most = peer.record.most
        if peer.record.proven:
            return most - len(peer.leased)
        if len(self._peers) > 1:
            most = min(most, max(free // (SHARE_OF_THE_UNPROVEN * len(self._peers)), LEAST))
        return min(most - len(peer.leased), self._shares.room(peer.address))

    def _replace_demand(self, peer: LeasePeer, demand: Demand) -> None:
        before, peer.demand = peer.demand, demand
        if before.from_seeders != demand.from_seeders:
            self._on_mirrors += before.from_seeders - demand.from_seeders
            self._outstanding[before.from_seeders] -= len(peer.leased)
            self._outstanding[demand.from_seeders] += len(peer.leased)

    def _current_grants(self) -> Mapping[str, Grant]:
        common = len(self._peers), self._budget.spent, not self._affords(1)
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
            if peer.record.is_barred(now) or (is_slow and not self._is_worth_a_try(peer, now)):
                slow.append((name, peer))
                continue
            self._give(name, peer, now, most=1 if is_slow else None)
            if not self._has_room:
                return
        if self._awaits_deliveries:
            return
        slow.sort(key=lambda entry: entry[1].record.lapses)
        for name, peer in slow:
            if not peer.record.is_barred(now) or not any(self._outstanding.values()):
                self._give(name, peer, now)

    @property
    def _awaits_deliveries(self) -> bool:
        """Whether peers that deliver hold leases: there is no need to ask others."""
        return sum(self._outstanding.values()) > sum(len(self._peers[name].leased) for name in self._unproven)

    def _is_slow(self, peer: LeasePeer) -> bool:
        usual = self._window.usual  # 0: no piece has come, so a time says nothing of a peer
        return (usual > 0 and peer.took > self._slow * usual) or self._is_late(peer)

    def _is_late(self, peer: LeasePeer) -> bool:
        """Whether others would wait at the end for this peer: with few deliveries, its longest time is assumed."""
        few = peer.longest > 0 and FEW * peer.count * len(self._peers) < self._delivered_count
        return few and self._slow < float("inf") and self._rest() <= self._slow * peer.longest

    def _is_worth_a_try(self, peer: LeasePeer, now: float) -> bool:
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
        return untaken > 0 and (self._room_at_seeders(untaken) > 0 or (self._on_mirrors > 0 and self._affords(1)))

    def _room_at_seeders(self, free: int) -> int:
        """Leases for seeders that may be given, with `free` pieces. Those that are probably not used do not count, and
        as long as no piece has come, as many again are tried: the more such peers, the longer all others would wait."""
        idle = self._quiet if self._window.usual else 2 * self._quiet
        return self._window.size(free) + idle - self._outstanding[True]

    def _in_turn(self) -> Iterator[tuple[str, LeasePeer]]:
        """Peers that wait for leases: those with the fewest first, then those that have waited longest."""
        others: dict[int, list[tuple[str, LeasePeer]]] = {}
        for name, peer in list(self._peers.items()):
            if peer.waits and peer.leased:
                others.setdefault(len(peer.leased), []).append((name, peer))
            elif peer.waits:
                yield name, peer
        for count in sorted(others):
            yield from others[count]

    def _give(self, name: str, peer: LeasePeer, now: float, *, most: int | None = None) -> None:
        free = peer.demand.scarce & ~self._taken
        count = free.bit_count()
        room = min((peer.demand.want if most is None else most) - len(peer.leased), self._may_hold(peer, count))
        if peer.demand.from_seeders:
            room = min(room, self._room_at_seeders(count))
        given = 0
        while free and room > 0 and (peer.demand.from_seeders or self._affords(1 + given.bit_count())):
            lowest = free & -free
            given, free, room = given | lowest, free ^ lowest, room - 1
        if given:
            self._begin(name, given, now)
            self._move_to_end(name)

    def _begin(self, name: str, pieces: int, now: float) -> None:
        peer = self._peers[name]
        begun = list(pieces_of(pieces))
        peer.leased |= dict.fromkeys(begun, now)
        self._taken |= pieces
        self._outstanding[peer.demand.from_seeders] += len(begun)
        self._changed.add(name)
        for piece in begun:
            peer.lapsed.pop(piece, None)
            self._refute(piece, name, now)
        self._note_record(name, peer)

    def _refute(self, piece: int, name: str, now: float) -> None:
        """`name` lacks a piece that another present peer has delivered."""
        deliverer = self._delivered_by.pop(piece, name)
        if deliverer != name and (peer := self._peers.get(deliverer)):
            peer.record.deliver_in_vain(now)
            if not peer.demand.from_seeders:
                self._budget.taken_in_vain(self._mean)
            self._note_record(deliverer, peer)

    def _end(self, name: str, pieces: Sequence[int]) -> None:
        """End this peer's leases of `pieces`."""
        peer = self._peers[name]
        for piece in pieces:
            del peer.leased[piece]
        self._taken &= ~bits_of(pieces)
        self._outstanding[peer.demand.from_seeders] -= len(pieces)
        self._changed.add(name)
        self._note_record(name, peer)

    def _move_to_end(self, name: str) -> None:
        self._peers[name] = self._peers.pop(name)

    def _affords(self, more: int) -> bool:
        """Whether `more` pieces can come from mirrors, beside those that are on their way."""
        return self._budget.affords((self._outstanding[False] + more) * self._mean)

    def _expire(self, now: float) -> None:
        for name in [name for name, peer in self._peers.items() if now - peer.seen > SILENCE]:
            self.leave(name)
        for name, peer in list(self._peers.items()):
            while peer.delivered and now - peer.delivered[0][0] > OUT_FOR:
                self._taken &= ~peer.delivered.pop(0)[1]
            overdue = self._overdue(peer)
            if late := [piece for piece, since in peer.leased.items() if now - since > overdue]:
                self._lapse(name, peer, late, now)
                peer.note(overdue, now)
        self._count_quiet(now)
        self._next_expiry = min((peer.earliest_expiry for peer in self._peers.values()), default=float("inf"))
        if self._unproven:
            self._next_expiry = min(self._next_expiry, now + LOOK_AT_QUIET)

    def _overdue(self, peer: LeasePeer) -> float:
        """Seconds after which a lease of this peer ends without a delivery."""
        least = OVERDUE_AT_LEAST if peer.record.proven else max(PROVE_WITHIN, self._first)
        return max(least, OVERDUE * self._window.usual)

    def _lapse(self, name: str, peer: LeasePeer, pieces: Sequence[int], now: float) -> None:
        peer.lapsed |= {piece: peer.leased[piece] for piece in pieces}
        while len(peer.lapsed) > MOST_LAPSED:
            del peer.lapsed[next(iter(peer.lapsed))]
        peer.record.lapse(now)
        self._end(name, pieces)
        self._move_to_end(name)

    def _count_quiet(self, now: float) -> None:
        """Count the leases for seeders that their peers probably do not use."""
        late = now - max(QUIET, self._first, SLOW * self._window.usual)
        holders = (self._peers[name] for name in self._unproven)
        self._quiet = sum(since < late for p in holders if p.demand.from_seeders for since in p.leased.values())
