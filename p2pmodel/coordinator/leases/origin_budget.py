"""How many bytes the peers of a swarm may take from mirrors together. Pure.

A peer's own count never decides alone. It counts at most what the coordinator leased to the peer for mirrors and the
peer delivered. So an invented count costs what it could have cost honestly, and a count that falls is ignored.

The budget bounds what is taken in vain, not what is needed: pieces that left with their peer, and pieces that never
reached another peer, must be taken again. Up to one more copy of the snapshot is allowed for those.
"""

from dataclasses import dataclass

MOST_GONE = 10_000
"""Most peers that have left and are remembered by name."""


@dataclass(slots=True)
class OriginCount:
    """What one peer took from mirrors: the highest number it declared, bounded by what it may have taken."""

    declared: int = 0
    may_have: int = 0
    """Bytes that it delivered under leases for mirrors, at most."""

    @property
    def bytes(self) -> int:
        """The bytes that count."""
        return min(self.declared, self.may_have)


class OriginBudget:
    """The budget of one swarm: `copies` of a snapshot of `size` bytes (0: no limit), in pieces of `mean` bytes."""

    def __init__(self, size: int, mean: float, copies: float) -> None:
        self._size = size
        # Two pieces more: the last ones may be larger than the mean.
        self._limit = copies * size + 2 * mean if copies else float("inf")
        self._gone: dict[str, OriginCount] = {}
        """Counts of peers that have left, by name: a peer that reconnects goes on with its own."""
        self._gone_bytes = 0
        self._in_vain = 0.0
        self.spent = 0
        """Bytes that all peers, present or gone, have taken."""

    def enter(self, name: str, declared: int) -> OriginCount:
        """The count of a peer that joins or comes back."""
        count = self._gone.pop(name, None) or OriginCount()
        self._gone_bytes -= count.bytes
        self.declare(count, declared)
        return count

    def declare(self, count: OriginCount, declared: int) -> None:
        """Take the number that a peer declares."""
        before = count.bytes
        count.declared = max(count.declared, declared)
        self.spent += count.bytes - before

    def delivered(self, count: OriginCount, most: int) -> None:
        """The peer delivered pieces of at most `most` bytes together under leases for mirrors."""
        before = count.bytes
        count.may_have += most
        self.spent += count.bytes - before

    def taken_in_vain(self, size: float) -> None:
        """`size` bytes that a peer delivered have reached no other peer."""
        self._in_vain += size

    def leave(self, name: str, count: OriginCount) -> None:
        """A peer has left, with its pieces."""
        if count.bytes and len(self._gone) < MOST_GONE:
            self._gone[name] = count
        self._gone_bytes += count.bytes

    def restart(self) -> None:
        """No peer is present any more: count anew."""
        self._gone.clear()
        self.spent, self._gone_bytes, self._in_vain = 0, 0, 0.0

    def affords(self, more: float) -> bool:
        """Whether `more` bytes can come from mirrors."""
        again = min(self._gone_bytes + self._in_vain, self._size)
        return self.spent + more <= self._limit + again
