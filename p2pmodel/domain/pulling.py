"""Who pulls which piece from the mirrors: the order of sources for a peer.

A peer takes a piece from the swarm when anybody it knows has it. A mirror is asked only for orphans: missing
pieces that no connected peer has had for `grace` seconds, or every missing piece once the swarm has delivered
nothing for a multiple of that. Peers start at different places of the snapshot, so that peers that lost the same seeder
pull different pieces, few at a time, and trade them: the mirrors see about one copy, not one a peer.

Pure: time is passed in, and the same inputs give the same answer.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

STUCK_FACTOR = 3
"""Multiples of the grace without any progress after which pieces that peers claim to have are pulled, too."""


@dataclass(frozen=True, slots=True)
class PullingRules:
    """`grace` in seconds; `limit` is how many pieces are asked from mirrors at a time, by all peers together."""

    grace: float
    limit: int


class Pulling:
    """Decides for one transfer. `identity` is anything that differs between peers, such as their address."""

    def __init__(self, piece_count: int, identity: str, rules: PullingRules, now: float) -> None:
        self._rules = rules
        digest = hashlib.sha256(identity.encode()).digest()
        self._place = int.from_bytes(digest[:8], "big")
        self._start: int | None = None
        """The piece to begin with."""
        self._count = piece_count
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
        peers: int,
        in_flight: frozenset[int],
        *,
        at_once: bool = False,
    ) -> list[int]:
        """Pieces to ask a mirror for now, in order, so that this peer and the `peers` it knows, which lack what it
        lacks, have about `limit` in flight together.

        `availability[p]` is how many connected peers have piece p; it may be empty while nobody is connected.
        `at_once`: without any grace, because it is a seeder that is asked.
        """
        self._met_peer = self._met_peer or peers > 0
        wanted = sorted(missing)
        self._note_orphans(now, wanted, availability)
        stuck = self._stuck(now)
        if self._start is None and (stuck or any(self._ripe(p, now, at_once=at_once) for p in wanted)):
            # Among what is missing: peers that took what they have in its order lack the same end of the snapshot.
            self._start = wanted[self._place % len(wanted)] if wanted else None
        wanted.sort(key=self._turn)
        ripe = [p for p in wanted if p not in in_flight and (stuck or self._ripe(p, now, at_once=at_once))]
        share = self._rules.limit if stuck else max(self._rules.limit // (peers + 1), 1)
        return ripe[: max(share - len(in_flight), 0)]

    def needless(
        self, now: float, missing: Collection[int], availability: Sequence[int], in_flight: Iterable[int]
    ) -> list[int]:
        """Pieces in flight that need not come from a mirror any more: they are here, or a peer has them by now."""
        held = set() if self._stuck(now) else {p for p in missing if availability and availability[p]}
        return [p for p in in_flight if p in held or p not in missing]

    def _stuck(self, now: float) -> bool:
        return now - self._last_progress >= STUCK_FACTOR * self._rules.grace

    def _turn(self, piece: int) -> int:
        return (piece - (self._start or 0)) % self._count

    def _note_orphans(self, now: float, missing: Sequence[int], availability: Sequence[int]) -> None:
        orphans = [p for p in missing if not availability or not availability[p]]
        self._orphan_since = {p: self._orphan_since.get(p, self._began if not self._met_peer else now) for p in orphans}

    def _ripe(self, piece: int, now: float, *, at_once: bool) -> bool:
        since = self._orphan_since.get(piece)
        return since is not None and (at_once or now - since >= self._rules.grace)
