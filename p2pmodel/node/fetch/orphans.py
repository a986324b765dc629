"""Who pulls which piece from the mirrors where no coordinator says it: the order of sources for a peer.

A peer takes a piece from the swarm when anybody it knows has it. A mirror is asked only for orphans: missing
pieces that no connected peer has had for `grace` seconds, or every missing piece once the swarm has delivered
nothing for a multiple of that. Which of the peers that lack an orphan goes first a hash of piece and peer decides
(rendezvous hashing), so that peers that lost the same seeder pull different pieces, few at a time, and trade them: the
mirrors see about one copy, not one a peer. Who has pulled all that is its own helps the others, from the end where they
are not yet.

Pure: time is passed in, and the same inputs give the same answer.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

STUCK_FACTOR = 3
"""Multiples of the grace without any progress after which pieces that peers claim to have are pulled, too."""
LOOKED_AT = 256
"""Orphans of others that are looked at when helping: ranking each costs a hash for every peer."""


@dataclass(frozen=True, slots=True)
class OrphanRules:
    """`grace` in seconds; `limit` is how many pieces are asked from mirrors at a time, by all peers together."""

    grace: float
    limit: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose a piece is, and how many go before us."""

    owner: str
    rank: int


class OrphanPieces:
    """Decides for one transfer. `identity` is the peer id by which the others know us."""

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
        self._met_peer = False

    def progressed(self, now: float) -> None:
        """A piece arrived, from anywhere but a mirror."""
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
    ) -> list[int]:
        """Pieces to ask a mirror for now, in order, so that this peer and its `rivals` have about `limit` in flight
        together.

        `rivals` are the ids of the connected peers that lack something, too. `availability[p]` is how many connected
        peers have piece p; it may be empty while nobody is connected. `at_once`: without any grace, because it is a
        seeder that is asked.
        """
        self._meet(rivals, availability)
        wanted = sorted(missing)
        self._note_orphans(now, wanted, availability)
        stuck = self._stuck(now)
        ripe = [p for p in wanted if p not in in_flight and (stuck or self._ripe(p, now, at_once=at_once))]
        share = self._share()
        room = max((self._rules.limit if stuck else share) - len(in_flight), 0)
        if not ripe or not room:
            return []
        chosen = list(islice(self._own(ripe), room))
        if len(chosen) < room:
            quiet = now - self._last_progress >= self._rules.grace
            chosen += self._of_others(ripe, spare=0 if quiet else share)[: room - len(chosen)]
        return chosen

    def needless(
        self, now: float, missing: Collection[int], availability: Sequence[int], in_flight: Iterable[int]
    ) -> list[int]:
        """Pieces in flight that need not come from a mirror any more: they are here, or a peer has them by now."""
        held = set() if self._stuck(now) else {p for p in missing if availability and availability[p]}
        return [p for p in in_flight if p in held or p not in missing]

    def _stuck(self, now: float) -> bool:
        return now - self._last_progress >= STUCK_FACTOR * self._rules.grace

    def _share(self) -> int:
        return max(self._rules.limit // (len(self._rivals) + 1), 1)

    def _meet(self, rivals: frozenset[str], availability: Sequence[int]) -> None:
        self._met_peer = self._met_peer or bool(rivals) or any(availability)
        if rivals != self._rivals:
            self._rivals = rivals
            self._claims.clear()

    def _own(self, ripe: Sequence[int]) -> Iterator[int]:
        """Those of `ripe` that are ours, in our order. Found as they are asked for: there may be a hundred thousand."""
        left, start = set(ripe), self._start(self._identity)
        in_turn = ((start + turn * self._stride) % self._count for turn in range(self._count))
        return (piece for piece in in_turn if piece in left and self._claim(piece).rank == 0)

    def _of_others(self, ripe: Sequence[int], *, spare: int) -> list[int]:
        """Those of `ripe` that are not ours: what few go before us in first, and what its owner comes to last. The next
        `spare` of each owner are left to it; it pulls them by now."""
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
        """When its owner comes to it."""
        return (piece - self._start(self._claim(piece).owner)) * self._back % self._count

    def _start(self, peer: str) -> int:
        """Where a peer begins: even those that are not connected to each other pull the same pieces at different times,
        and mostly one of them when the other's has gone round."""
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
        self._orphan_since = {p: self._orphan_since.get(p, self._began if not self._met_peer else now) for p in orphans}

    def _ripe(self, piece: int, now: float, *, at_once: bool) -> bool:
        since = self._orphan_since.get(piece)
        return since is not None and (at_once or now - since >= self._rules.grace)


def _stride(count: int) -> int:
    """Pieces from one turn to the next: far apart, since what is missing may be one end of the snapshot, and such that
    every piece has its turn."""
    stride = max(round(0.618 * count), 1)
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


def _hash(peer: str, piece: int | None = None) -> int:
    text = peer if piece is None else f"{piece} {peer}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
