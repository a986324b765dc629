"""A graph in which few links a member keep all members connected, while members come and go.

A new member is linked to members that have room: some that came just before it, which lack as much as it does, and the
rest at random. So the graph resembles a random regular one: connected with overwhelming probability and a few hops
across, whatever the order in which members come. A link lasts until one end goes: a torrent client connects to every
peer that a tracker ever listed to it, so with new peers at each announce it would end up connected to the whole swarm.

Those that came last have the fewest links, and get the least: each neighbour shares its uplink among all that it is
linked to. So a member gets more once it has been there for a while (`level`).

Invariants: links go both ways; no member has more than `rules.most`; adding a member removes no link.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

COMPLETE = 50
"""Links of a member while it is linked to all others."""
_FEW = 0.8
"""Share of the usual number of links below which a member has few."""
_DRAWS = 128
"""Random draws after which the search for members with room ends."""
_SOURCES_FIRST = 2
"""Links to sources that a downloading member gets before others."""


@dataclass(frozen=True, slots=True)
class LinkRules:
    """How many links a member has.

    Links to all others while they are at most `complete`; else `initial` links when it comes, more as others come,
    `most` at most. `most` above twice `initial` leaves room for new members everywhere; `most` must exceed `complete`.
    """

    complete: int = COMPLETE
    initial: int = 25
    most: int = 64


class LinkGraph:
    """Members in the order in which they came, and their links. A source has all pieces."""

    __slots__ = ("_downloading", "_links", "_rng", "_rules", "_sources")

    def __init__(self, rng: random.Random, rules: LinkRules) -> None:
        self._rng = rng
        self._rules = rules
        self._links: dict[bytes, list[bytes]] = {}
        self._sources = _Pool()
        self._downloading = _Pool()

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, member: bytes) -> bool:
        return member in self._links

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._links)

    def links(self, member: bytes) -> list[bytes]:
        """The members that `member` is linked to, the oldest link first; empty for a non-member."""
        return self._links.get(member, [])

    def is_source(self, member: bytes) -> bool:
        """Whether `member` has all pieces."""
        return member in self._sources

    def add(self, member: bytes, *, source: bool) -> None:
        """Add a member, without links yet; update whether a present member is a source.

        A member that becomes a source drops its links to other sources, which gives room to members that download.
        """
        self._links.setdefault(member, [])
        mine, other = (self._sources, self._downloading) if source else (self._downloading, self._sources)
        if member not in mine:
            other.discard(member)
            mine.add(member)
        if source and not self._is_small:
            for useless in [o for o in self._links[member] if o in self._sources]:
                self._unlink(member, useless)

    def discard(self, member: bytes) -> None:
        """Remove a member and its links."""
        for other in self._links.pop(member, ()):
            self._links[other].remove(member)
        self._sources.discard(member)
        self._downloading.discard(member)

    def requeue(self, member: bytes) -> None:
        """Count `member` as the last that came."""
        self._links[member] = self._links.pop(member)

    def top_up(self, member: bytes, fresh: int = 0) -> None:
        """Give `member` the links it should have, and `fresh` new ones beside them; its oldest links make room."""
        links = self._links[member]
        while fresh and links and len(links) + fresh > self._rules.most:
            self._unlink(member, links[0])
        rules = self._rules
        others = len(self) - 1
        wanted = max(others if self._is_small else rules.initial, len(links) + fresh)
        if member in self._downloading and not any(other in self._sources for other in links):
            self._link(member, islice(self._drawn(self._sources), _DRAWS // 8), len(links) + _SOURCES_FIRST)
        if len(links) >= min(wanted, others):
            return
        recent = max(1, (wanted - len(links)) // 4)
        self._link(member, islice(reversed(self._links), 2 * recent + 1), len(links) + recent)
        for pool in self._useful_to(member):  # sources last: their room is for members without a source
            self._link(member, self._drawn(pool), wanted)
        if len(links) < min(others, rules.initial) // 2:
            self._splice(member)

    def level(self, member: bytes) -> None:
        """Give a downloading `member` that has few links the usual number. Half of the room of others is left for new
        members."""
        rules = self._rules
        usual = 2 * rules.initial
        if member in self._downloading and not self._is_small and len(self._links[member]) < _FEW * usual:
            self._link(member, self._drawn(self._downloading), usual, most=(usual + rules.most) // 2)

    def sample(self, count: int) -> list[bytes]:
        """At most `count` members at random."""
        return list(islice(dict.fromkeys(self._drawn(self._sources, self._downloading)), count))

    @property
    def _is_small(self) -> bool:
        return len(self._links) <= self._rules.complete + 1

    def _useful_to(self, member: bytes) -> tuple["_Pool", ...]:
        """Members with which `member` can exchange pieces: two sources cannot."""
        if member in self._sources and not self._is_small:
            return (self._downloading,)
        return self._downloading, self._sources

    def _link(self, member: bytes, candidates: Iterable[bytes], upto: int, *, most: int = 0) -> None:
        """Link to those of `candidates` that have less than `most` links, until `member` has `upto`."""
        links, most = self._links[member], most or self._rules.most
        upto = min(upto, most)
        useful = self._useful_to(member)
        for other in candidates:
            if len(links) >= upto:
                return
            theirs = self._links[other]
            if len(theirs) < most and other != member and other not in links and any(other in p for p in useful):
                links.append(other)
                theirs.append(member)

    def _unlink(self, one: bytes, other: bytes) -> None:
        self._links[one].remove(other)
        self._links[other].remove(one)

    def _splice(self, member: bytes) -> None:
        """Where no member has room: insert `member` into links of others, which keep their number of links."""
        links, useful = self._links[member], self._useful_to(member)

        def is_new(other: bytes) -> bool:
            return other != member and other not in links and any(other in pool for pool in useful)

        for one in self._drawn(*useful):
            if len(links) >= self._rules.initial:
                return
            other = next(filter(is_new, self._links[one]), None) if is_new(one) else None
            if other is not None:
                self._unlink(one, other)
                links += one, other
                self._links[one].append(member)
                self._links[other].append(member)

    def _drawn(self, *pools: "_Pool") -> Iterator[bytes]:
        """Members of `pools` in random order: all of them if they are few, else random ones, perhaps repeated."""
        total = sum(map(len, pools))
        if total <= _DRAWS:
            members = [member for pool in pools for member in pool.items]
            yield from self._rng.sample(members, total)
            return
        for _ in range(_DRAWS):
            place = int(self._rng.random() * total)
            for pool in pools:
                if place < len(pool):
                    yield pool.items[place]
                    break
                place -= len(pool)


class _Pool:
    """Members of which any can be drawn, added and taken out in constant time."""

    __slots__ = ("_place", "items")

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self._place: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, member: bytes) -> bool:
        return member in self._place

    def add(self, member: bytes) -> None:
        self._place[member] = len(self.items)
        self.items.append(member)

    def discard(self, member: bytes) -> None:
        place = self._place.pop(member, None)
        if place is None:
            return
        last = self.items.pop()
        if last != member:
            self.items[place] = last
            self._place[last] = place
