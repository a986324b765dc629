"""Pull pieces from mirrors without a coordinator: which peer pulls which piece.

A peer takes a piece from the swarm when any connected peer has it. A mirror is asked only for orphans: missing
pieces that no connected peer has had for `grace` seconds. Once the swarm has delivered nothing for that long, every
missing piece counts. A hash of piece and peer decides which of the peers that lack an orphan pulls it first
(rendezvous hashing). So peers that lost the same seeder pull different pieces, few at a time, and exchange them: the
mirrors send about one copy, not one for each peer. A peer that has pulled all of its own pieces helps the others,
starting with the pieces that they pull last.

`OrphanPieces` is pure: time is passed in, and the same inputs give the same answer.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.node.fetch.pieces.feed_ports import FeedState
from p2pmodel.swarm.engine import SwarmStatus
from p2pmodel.swarm.peer_ids import is_ours

READ_PEERS_EVERY = 1.0
"""Seconds between two reads of which connected peers lack pieces, too."""
STUCK_FACTOR = 3
"""Multiples of the grace without any progress after which a peer pulls as many pieces at a time as all together may."""
LOOKED_AT = 256
"""Orphans of other peers that are ranked when helping: each costs a hash for every peer."""


@dataclass(frozen=True, slots=True)
class OrphanRules:
    """`grace` in seconds; `limit` is how many pieces all peers together ask from mirrors at a time."""

    grace: float
    limit: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The peer that pulls a piece first, and how many peers rank before this one."""

    owner: str
    rank: int


class OrphanPieces:
    """The choice for one transfer. `identity` is this node's peer id in the swarm."""

    def __init__(self, piece_count: int, identity: str, rules: OrphanRules, now: float) -> None:
        self._rules = rules
        self._identity = identity
        self._count = piece_count
        self._stride = _stride(piece_count)
        self._back = pow(self._stride, -1, max(piece_count, 1))
        self._rivals: frozenset[str] = frozenset()
        self._claims: dict[int, Claim] = {}
        self._starts: dict[str, int] = {}
        self._orphan_since: dict[int, float] = {}
        self._began = now
        self._last_progress = now
        self._had_peer = False

    def progressed(self, now: float) -> None:
        """A piece arrived from a source other than a mirror."""
        self._last_progress = now

    def choose(
        self,
        now: float,
        missing: Iterable[int],
        availability: Sequence[int],
        rivals: frozenset[str],
        in_flight: frozenset[int],
        *,
        at_once: bool = False,
        silent: bool = False,
    ) -> list[int]:
        """Pieces to ask a mirror for now, in order, so that this peer and its `rivals` have about `limit` in flight
        together.

        `rivals` are the ids of the connected peers that lack pieces, too. `availability[p]` is how many connected
        peers have piece p; it may be empty while no peer is connected. `at_once`: without any grace, because a seeder
        is asked. `silent`: the peers deliver nothing, also of the pieces that they have.
        """
        self._set_rivals(rivals, availability)
        wanted = sorted(missing)
        self._note_orphans(now, wanted, availability)
        stuck = self._stuck(now)
        ripe = [p for p in wanted if p not in in_flight and (silent or stuck or self._ripe(p, now, at_once=at_once))]
        share = self._share()
        room = max((self._rules.limit if stuck else share) - len(in_flight), 0)
        if not ripe or not room:
            return []
        chosen = list(islice(self._own(ripe), room))
        if len(chosen) < room:
            quiet = silent or now - self._last_progress >= self._rules.grace
            chosen += self._of_others(ripe, spare=0 if quiet else share)[: room - len(chosen)]
        return chosen

    def needless(
        self,
        missing: Collection[int],
        availability: Sequence[int],
        in_flight: Iterable[int],
        *,
        silent: bool = False,
    ) -> list[int]:
        """Pieces in flight that a mirror need not deliver any more: they are here, or a connected peer that
        delivers has them."""
        held = set() if silent else {p for p in missing if availability and availability[p]}
        return [p for p in in_flight if p in held or p not in missing]

    def _stuck(self, now: float) -> bool:
        return now - self._last_progress >= STUCK_FACTOR * self._rules.grace

    def _share(self) -> int:
        return max(self._rules.limit // (len(self._rivals) + 1), 1)

    def _set_rivals(self, rivals: frozenset[str], availability: Sequence[int]) -> None:
        self._had_peer = self._had_peer or bool(rivals) or any(availability)
        if rivals != self._rivals:
            self._rivals = rivals
            self._claims.clear()

    def _own(self, ripe: Sequence[int]) -> Iterator[int]:
        """Those of `ripe` that this peer owns, in its order. Lazy: there may be a hundred thousand."""
        left, start = set(ripe), self._start(self._identity)
        in_turn = ((start + turn * self._stride) % self._count for turn in range(self._count))
        return (piece for piece in in_turn if piece in left and self._claim(piece).rank == 0)

    def _of_others(self, ripe: Sequence[int], *, spare: int) -> list[int]:
        """Those of `ripe` that other peers own: first where few peers rank before this one and the owner pulls late.
        The next `spare` pieces of each owner are left to it; it pulls them by now."""
        looked_at = [p for p in ripe[-LOOKED_AT:] if self._claim(p).rank]
        looked_at.sort(key=self._turn)
        behind: Counter[str] = Counter()
        helped = []
        for piece in looked_at:
            owner = self._claim(piece).owner
            behind[owner] += 1
            if len(ripe) > LOOKED_AT or behind[owner] > spare:
                helped.append(piece)
        helped.sort(key=lambda piece: (self._claim(piece).rank, -self._turn(piece)))
        return helped

    def _turn(self, piece: int) -> int:
        """The position of the piece in its owner's order."""
        return (piece - self._start(self._claim(piece).owner)) * self._back % self._count

    def _start(self, peer: str) -> int:
        """The piece that a peer begins with. It differs, so that peers without a connection to each other pull the same
        pieces at different times: mostly, one of them after the piece of the other has spread."""
        if peer not in self._starts:
            self._starts[peer] = _hash(peer) % self._count
        return self._starts[peer]

    def _claim(self, piece: int) -> Claim:
        if piece not in self._claims:
            ours = _hash(self._identity, piece)
            best, owner, before = ours, self._identity, 0
            for rival in self._rivals:
                theirs = _hash(rival, piece)
                before += theirs > ours
                if theirs > best:
                    best, owner = theirs, rival
            self._claims[piece] = Claim(owner, before)
        return self._claims[piece]

    def _note_orphans(self, now: float, missing: Sequence[int], availability: Sequence[int]) -> None:
        orphans = [p for p in missing if not availability or not availability[p]]
        self._orphan_since = {p: self._orphan_since.get(p, self._began if not self._had_peer else now) for p in orphans}

    def _ripe(self, piece: int, now: float, *, at_once: bool) -> bool:
        since = self._orphan_since.get(piece)
        return since is not None and (at_once or now - since >= self._rules.grace)


class SwarmPeers(Protocol):
    """What the orphan strategy needs of a SwarmTorrent."""

    def status(self) -> SwarmStatus:
        """As `SwarmTorrent.status`."""

    async def connections(self) -> tuple[PeerConnection, ...]:
        """As `SwarmTorrent.connections`."""


class OrphanStrategy:
    """`OrphanPieces` with the peers of one torrent as rivals; satisfies `PieceStrategy`."""

    refills_at_once = False
    """All peers would pull the same pieces if they did not first learn what the others have by now."""

    def __init__(self, torrent: SwarmPeers, pieces: OrphanPieces) -> None:
        self._torrent = torrent
        self._pieces = pieces
        self._rivals: frozenset[str] = frozenset()
        self._rivals_read = -math.inf

    def progressed(self, now: float) -> None:
        """As `OrphanPieces.progressed`."""
        self._pieces.progressed(now)

    async def prepare(self, now: float) -> None:
        """Read which connected peers lack pieces, too."""
        if now < self._rivals_read + READ_PEERS_EVERY:
            return
        peers = await self._torrent.connections()
        if peers or not self._torrent.status().peers:  # else the engine gave no answer this time
            self._rivals = frozenset(p.peer_id for p in peers if is_ours(p.peer_id) and p.progress < 1)
        self._rivals_read = now

    def choose(self, state: FeedState) -> list[int]:
        """As `OrphanPieces.choose`."""
        missing = state.missing - state.refused
        return self._pieces.choose(
            state.now,
            missing,
            state.availability,
            self._rivals,
            state.in_flight,
            at_once=state.from_seeders,
            silent=state.silent,
        )

    def needless(self, state: FeedState, in_flight: Iterable[int]) -> list[int]:
        """As `OrphanPieces.needless`."""
        return self._pieces.needless(state.missing, state.availability, in_flight, silent=state.silent)


def _stride(count: int) -> int:
    """Pieces from one turn to the next. Large, since the missing pieces may be one end of the snapshot; coprime to
    `count`, so that every piece has its turn."""
    stride = max(round(0.618 * count), 1)
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


def _hash(peer: str, piece: int | None = None) -> int:
    text = peer if piece is None else f"{piece} {peer}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
