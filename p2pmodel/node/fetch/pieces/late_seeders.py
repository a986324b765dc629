"""When a read from one seeder is late, so that another seeder is asked for the same bytes, too. Pure.

A seeder that sends a trickle does not fail. Without a second request its pieces would come last, and all would wait for
them. The seeder that lost is avoided for a while. If the first one was quicker all the same, the link of this node is
slow, and the second request was in vain: the next one waits longer.
"""

AT_LEAST = 1.0
"""Seconds before which no read is late."""
TIMES = 4.0
"""How many times longer than usual a late read takes."""
AT_FIRST = 1_000_000
"""Bytes a second that are usual before the first read has ended."""
AVOIDED_FOR = 30.0
"""Seconds for which a late seeder is asked only if no other can be."""
MOST_PATIENCE = 64.0


class LateSeeders:
    """The late seeders of one transfer, by name."""

    def __init__(self) -> None:
        self._usual = 1 / AT_FIRST
        """Seconds for a byte, smoothed."""
        self._known = False
        self._patience = 1.0
        self._until: dict[str, float] = {}

    def late_after(self, length: int) -> float:
        """Seconds after which a read of `length` bytes is late."""
        return self._patience * max(AT_LEAST, TIMES * self._usual * length)

    def avoided(self, now: float) -> frozenset[str]:
        """The seeders to avoid."""
        return frozenset(name for name, until in self._until.items() if now < until)

    def read(self, length: int, seconds: float) -> None:
        """A read of `length` bytes took `seconds`."""
        sample = seconds / max(length, 1)
        self._usual = self._usual + (sample - self._usual) / 8 if self._known else sample
        self._known = True

    def overtook(self, late: str, now: float) -> None:
        """Another seeder sent the bytes before the seeder `late`."""
        self._until[late] = now + AVOIDED_FOR
        self._patience = 1.0

    def in_vain(self) -> None:
        """The late seeder was quicker than the second one."""
        self._patience = min(2 * self._patience, MOST_PATIENCE)
