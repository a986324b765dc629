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
6. A lease ends with its holder's connection, after `SILENCE` seconds without a message, or when it is overdue or
   overtaken (`late_leases`); then another peer gets the piece. Peers that lease and do not deliver are doubtful: they
   get few leases, none of the last pieces, and then none (`lease_counts`, `seats`, `peer`).
7. A peer for which no piece is free takes over a lease that is late (`late_leases`).
8. Bytes from mirrors are counted against the swarm's budget before they are leased (`origin_budget`).

Pure: time in seconds is passed in. Sets of pieces are integers, bit p for piece p: a swarm has up to a million pieces
and a thousand peers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.coordinator.leases.grant_table import GrantTable
from p2pmodel.coordinator.leases.late_leases import ended_leases, late_leases
from p2pmodel.coordinator.leases.lease_counts import LeaseCounts
from p2pmodel.coordinator.leases.origin_budget import OriginBudget
from p2pmodel.coordinator.leases.peer import OUT_FOR, SILENCE, LeasePeer, NamedPeer, by_address, by_leases
from p2pmodel.coordinator.leases.seats import SLOW, Seats
from p2pmodel.core.content.bitfield import bits_of, pieces_of

FEW = 3.0
"""A peer that delivered this many times fewer pieces than the mean has delivered few."""
PROBATION = 5.0
"""Multiples of the time of a slow peer's leases after which it is tried with another one, if the rest takes `SLOW`
times as long."""
SLOW_LINK = 100_000
"""Bytes a second that the first piece of a peer comes with at least."""
LOOK_AT_LEASES = 0.5
"""Seconds between two looks at the leases that are out, whether they are quiet or overtaken."""


class Leases:
    """The leases of one swarm of `piece_count` pieces with `size` bytes in all.

    The present peers together may download `budget` times `size` from mirrors (0: no limit); once no peer is present
    the count begins anew. `longest`: bytes of the longest piece, the mean by default. `slow`: how many times longer
    than usual a peer's leases may take (infinity: all peers are served, where each has its own link to the source).

    A message of one peer among ten thousand must not cost a look at all of them, so totals over all peers are stored
    and updated with what they are made of: `_taken`, `_counts`, `_next_expiry` and `_grants`.
    """

    def __init__(
        self, piece_count: int, size: int, *, budget: float = 0.0, longest: int = 0, slow: float = SLOW
    ) -> None:
        self._all = (1 << piece_count) - 1
        self._mean = size / max(piece_count, 1)
        self._longest = longest or -(-size // max(piece_count, 1))
        self._budget = OriginBudget(size, self._mean, budget)
        self._slow = slow
        self._peers: dict[str, LeasePeer] = {}
        """The peer that got a lease longest ago comes first."""
        self._counts = LeaseCounts()
        self._seats = Seats(self._counts, self._mean / SLOW_LINK)
        self._delivered_by: dict[int, str] = {}
        """The peer that delivered a piece last, by piece; it may have left."""
        self._disputed: dict[int, str] = {}
        """The same of pieces that were leased again: they have not reached all peers."""
        self._taken = 0
        """Leased now, or delivered lately by a peer that is still present: no piece is both, or twice."""
        self._on_mirrors = 0
        """Peers that do not download from seeders."""
        self._delivered_count = 0
        """Pieces that all present peers have delivered."""
        self._delivered = 0
        """Pieces that any peer has ever delivered."""
        self._next_expiry = 0.0
        """Until then nothing expires; at most `SILENCE` from now while any peer is present."""
        self._grants = GrantTable()

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def origin_bytes(self) -> int:
        """Bytes that all peers, present or gone, have downloaded from mirrors."""
        return self._budget.spent

    def update(self, name: str, demand: Demand, now: float, *, address: str = "", elsewhere: int = 0) -> None:
        """Take the state of the peer `name` at `address`. Leased pieces that it no longer lacks count as delivered.
        Pieces that it gets `elsewhere` are not leased to it."""
        if demand.scarce > self._all:
            demand = replace(demand, scarce=demand.scarce & self._all)
        peer = self._peers.get(name)
        if peer is None:
            peer = self._add(name, demand, now, address or name)
        before = peer.demand
        lost_seeders = before.from_seeders and not demand.from_seeders
        self._on_mirrors += before.from_seeders - demand.from_seeders
        peer.demand, peer.seen, peer.wanted = demand, now, demand.scarce & ~elsewhere
        done = {piece: since for piece, since in peer.leased.items() if not demand.scarce >> piece & 1}
        late = self._late(name, peer, from_mirrors=not before.from_seeders)
        self._counts.note(peer)
        if done:
            self._end(name, list(done))
            delivered = bits_of(done)
            peer.delivered.append((now, delivered))
            self._taken |= delivered
            self._delivered |= delivered
        if came := done | late:
            self._count_delivered(name, peer, came, now, from_mirrors=not before.from_seeders)
        self._budget.declare(peer.origin, demand.origin_bytes)
        if lost_seeders or not demand.want:
            self._end(name, list(peer.leased))  # the budget decides anew whether mirrors may deliver them

    def leave(self, name: str) -> None:
        """Remove a peer that has gone; its leases are free."""
        if peer := self._peers.get(name):
            if peer.leased and not peer.record.proven:
                self._counts.lose(peer.address)
            self._end(name, list(peer.leased))
            for _, pieces in peer.delivered:
                self._taken &= ~pieces
            del self._peers[name]
            self._counts.leave(peer)
            self._on_mirrors -= not peer.demand.from_seeders
            self._delivered_count -= peer.count
            self._budget.leave(name, peer.origin)
        if not self._peers:
            self._budget.restart()
            self._delivered_by.clear()
            self._disputed.clear()
            self._counts.clear()

    def grant(self, now: float) -> Mapping[str, Grant]:
        """Give all leases that can be given. Returns every peer's grant, by name, as a view that the next call changes.

        A grant that is the same object as before has not changed.
        """
        if now >= self._next_expiry:
            self._expire(now)
        self._share_out(now)
        return self._grants.current(self._peers, self._budget.spent, refused=not self._affords(1))

    # -- peers -----------------------------------------------------------------------------------------------

    def _add(self, name: str, demand: Demand, now: float, address: str) -> LeasePeer:
        """Add a peer; leases that it reports are its own, as far as no other peer has them and it may have so many."""
        self._on_mirrors += not demand.from_seeders
        self._next_expiry = min(self._next_expiry, now + SILENCE)
        origin = self._budget.enter(name, demand.origin_bytes)
        peer = self._peers[name] = LeasePeer(demand, now, address, origin)
        self._counts.enter(peer)
        free = self._all & ~self._taken
        most = self._counts.may_adopt(peer, free.bit_count())
        self._begin(name, bits_of(list(islice(pieces_of(demand.leased & free), most))), now)
        return peer

    def _late(self, name: str, peer: LeasePeer, *, from_mirrors: bool) -> dict[int, float]:
        """Pieces that it delivered after its lease had ended, before any other peer."""
        come = peer.pop_late()
        first = {piece: since for piece, since in come.items() if self._delivered_by.get(piece, name) == name}
        if from_mirrors:  # it may have downloaded the others, too
            self._budget.delivered(peer.origin, (len(come) - len(first)) * self._longest)
        return first

    def _count_delivered(
        self, name: str, peer: LeasePeer, came: Mapping[int, float], now: float, *, from_mirrors: bool
    ) -> None:
        if not peer.count:
            self._counts.prove(peer.address)
        for piece, since in came.items():
            self._seats.took(now - since, now)
            peer.note(now - since, now)
            self._refute(self._disputed.pop(piece, name), name, now)
        peer.record.deliver(len(came))
        self._delivered_count += len(came)
        self._delivered_by |= dict.fromkeys(came, name)
        if from_mirrors:
            self._budget.delivered(peer.origin, len(came) * self._longest)
        self._counts.note(peer)

    def _refute(self, deliverer: str, name: str, now: float) -> None:
        """`name` has to download a piece that another peer has delivered: it never arrived."""
        if deliverer != name and (peer := self._peers.get(deliverer)):
            peer.record.deliver_in_vain(now)
            self._counts.note(peer)

    # -- leases ----------------------------------------------------------------------------------------------

    def _share_out(self, now: float) -> None:
        if not self._has_room(doubtful=False) and not self._has_room(doubtful=True):
            return
        peers = list(self._peers.items())
        slow: list[NamedPeer] = []
        idle = self._serve_good((entry for entry in peers if entry[1].waits and not entry[1].doubtful), slow, now)
        delivering = self._counts.delivering > 0 or any(peer.record.proven for _, peer in idle)
        if self._counts.peers["doubtful"]:
            doubtful = [entry for entry in peers if entry[1].waits and entry[1].doubtful]
            idle += self._serve_doubtful(doubtful, slow, now, last_too=not delivering)
        if not self._counts.delivering:
            slow.sort(key=lambda entry: entry[1].record.lapses)
            for name, peer in slow:
                if not peer.record.is_barred(now) or not self._counts.any_out:
                    self._give(name, peer, now)
        if delivering:
            idle = [entry for entry in idle if entry[1].record.proven]
        if idle:
            self._take_over(idle, now, delivering=delivering)

    def _serve_good(self, waiting: Iterable[NamedPeer], slow: list[NamedPeer], now: float) -> list[NamedPeer]:
        """Serve peers of good standing, and put the slow ones aside. Returns those for which no piece is free."""
        idle = []
        for name, peer in by_leases(waiting):
            is_slow = self._is_slow(peer)
            if is_slow and not self._is_worth_a_try(peer, now):
                slow.append((name, peer))
                continue
            self._give(name, peer, now, most=1 if is_slow else None)
            if not self._has_room(doubtful=False):
                return []
            if not is_slow and peer.waits and not peer.wanted & ~self._taken:
                idle.append((name, peer))
        return idle

    def _serve_doubtful(
        self, waiting: Iterable[NamedPeer], slow: list[NamedPeer], now: float, *, last_too: bool
    ) -> list[NamedPeer]:
        """The same for doubtful peers; `last_too`: the last pieces are for them, too."""
        idle, ready = [], []
        for name, peer in waiting:
            if peer.record.is_barred(now) or (self._is_slow(peer) and not self._is_worth_a_try(peer, now)):
                slow.append((name, peer))
            elif last_too or self._rest() > self._seats.patience:
                ready.append((name, peer))
        for name, peer in by_address(ready, self._counts.unproven_at):
            self._give(name, peer, now, most=len(peer.leased) + 1)
            if not self._has_room(doubtful=True):
                return []
            if peer.waits and not peer.wanted & ~self._taken:
                idle.append((name, peer))
        return idle

    def _take_over(self, idle: Iterable[NamedPeer], now: float, *, delivering: bool) -> None:
        """Give late leases to peers for which no piece is free."""
        late = late_leases(self._peers, self._seats, now, delivering=delivering)
        pieces = bits_of(late)
        for name, peer in idle if pieces else ():
            mine = pieces & peer.wanted & ~bits_of(peer.leased)
            room = self._room_of(peer, 0)
            while mine and room > 0:
                lowest = mine & -mine
                mine ^= lowest
                piece = lowest.bit_length() - 1
                holder = self._peers[late[piece]]
                if peer.demand.from_seeders or self._affords(int(holder.demand.from_seeders)):
                    pieces ^= lowest
                    room -= 1
                    holder.note(now - holder.leased[piece], now)
                    self._forfeit(late[piece], [piece])
                    self._begin(name, lowest, now)
                    self._move_to_end(name)

    def _is_slow(self, peer: LeasePeer) -> bool:
        if usual := self._seats.usual:  # 0: no piece has come, so a time says nothing of a peer
            oldest = min(peer.leased.values(), default=self._seats.front)
            if max(peer.took, self._seats.front - oldest) > self._slow * usual:
                return True
        return self._is_late(peer)

    def _is_late(self, peer: LeasePeer) -> bool:
        """Whether others would wait at the end for this peer: with few deliveries, its longest time is assumed."""
        few = peer.longest > 0 and FEW * peer.count * self._good_peers < self._delivered_count
        return few and self._slow < float("inf") and self._rest() <= self._slow * peer.longest

    def _is_worth_a_try(self, peer: LeasePeer, now: float) -> bool:
        if peer.leased or now <= peer.tried + PROBATION * peer.took:
            return False
        return self._rest() > self._slow * peer.longest

    def _rest(self) -> float:
        """Estimated seconds until all pieces are leased."""
        untouched = (self._all & ~self._taken & ~self._delivered).bit_count()
        return untouched * self._seats.usual / max(self._counts.delivering, 1)

    @property
    def _good_peers(self) -> int:
        return self._counts.peers["proven"] + self._counts.peers["new"]

    def _has_room(self, *, doubtful: bool) -> bool:
        """Whether a doubtful peer, or another, could get a lease."""
        untaken = (self._all & ~self._taken).bit_count()
        if not untaken and not self._counts.any_out:
            return False
        if doubtful and not self._counts.peers["doubtful"]:
            return False
        return self._seats.room(untaken, doubtful=doubtful) > 0 or (self._on_mirrors > 0 and self._affords(0))

    def _room_of(self, peer: LeasePeer, free: int) -> int:
        """Leases that the peer can get in addition, with `free` pieces that no peer downloads."""
        room = min(peer.demand.want - len(peer.leased), self._counts.may_hold(peer, free, len(self._peers)))
        if peer.demand.from_seeders:
            room = min(room, self._seats.room(free, doubtful=peer.doubtful))
        return room

    def _give(self, name: str, peer: LeasePeer, now: float, *, most: int | None = None) -> None:
        free = peer.wanted & ~self._taken
        room = self._room_of(peer, free.bit_count())
        if most is not None:
            room = min(room, most - len(peer.leased))
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
        self._next_expiry = min(self._next_expiry, now + LOOK_AT_LEASES)
        self._grants.changed(name)
        for piece in begun:
            peer.lapsed.pop(piece, None)
            self._dispute(piece, name, now)
        self._counts.note(peer)

    def _dispute(self, piece: int, name: str, now: float) -> None:
        """`name` says that it lacks a piece that another present peer has delivered. That counts if `name` delivers."""
        deliverer = self._delivered_by.pop(piece, name)
        if deliverer != name and (peer := self._peers.get(deliverer)):
            if not peer.demand.from_seeders:
                self._budget.taken_in_vain(self._mean)
            if self._peers[name].record.proven:
                self._refute(deliverer, name, now)
            else:
                self._disputed[piece] = deliverer

    def _end(self, name: str, pieces: Sequence[int]) -> None:
        """End this peer's leases of `pieces`."""
        peer = self._peers[name]
        for piece in pieces:
            del peer.leased[piece]
        self._taken &= ~bits_of(pieces)
        self._grants.changed(name)
        self._counts.note(peer)

    def _move_to_end(self, name: str) -> None:
        self._peers[name] = self._peers.pop(name)

    def _affords(self, more: int) -> bool:
        """Whether `more` pieces can come from mirrors, beside those that are on their way."""
        return self._budget.affords((self._counts.for_mirrors + more) * self._mean)

    # -- time ------------------------------------------------------------------------------------------------

    def _expire(self, now: float) -> None:
        for name in [name for name, peer in self._peers.items() if now - peer.seen > SILENCE]:
            self.leave(name)
        for name, peer in list(self._peers.items()):
            while peer.delivered and now - peer.delivered[0][0] > OUT_FOR:
                self._taken &= ~peer.delivered.pop(0)[1]
            shared = peer.demand.from_seeders and self._slow < float("inf")
            if late := ended_leases(peer, self._seats, now, shared=shared):
                if not peer.record.proven:
                    self._counts.lose(peer.address)
                peer.record.lapse(now)
                self._forfeit(name, list(late))
                self._move_to_end(name)
                peer.note(now - min(late.values()), now, ended=True)
        self._seats.look(self._peers.values(), now)
        self._next_expiry = min((peer.earliest_expiry for peer in self._peers.values()), default=float("inf"))
        if self._counts.any_out:
            self._next_expiry = min(self._next_expiry, now + LOOK_AT_LEASES)

    def _forfeit(self, name: str, pieces: Sequence[int]) -> None:
        """End leases of which no delivery has come. A late one counts."""
        self._peers[name].forfeit(pieces)
        self._end(name, pieces)
