"""Sets of byte positions as disjoint half-open ranges."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """Positions in ranges [start, end); adjacent ranges are merged."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def copy(self) -> "RangeSet":
        """Another set of the same positions."""
        return RangeSet(self)

    def add(self, start: int, end: int) -> None:
        """Add [start, end)."""
        if start >= end:
            return
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """Remove [start, end)."""
        if start >= end:
            return
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if first >= last:
            return
        left = (self._starts[first], start)
        right = (end, self._ends[last - 1])
        rest = [r for r in (left, right) if r[0] < r[1]]
        self._starts[first:last] = [s for s, _ in rest]
        self._ends[first:last] = [e for _, e in rest]

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges of [start, end) that are not in the set."""
        found = []
        index = bisect_right(self._ends, start)
        while start < end:
            following = self._starts[index] if index < len(self._starts) else end
            if start < min(following, end):
                found.append((start, min(following, end)))
            start = self._ends[index] if index < len(self._ends) else end
            index += 1
        return found

    def prefix(self) -> int:
        """The number of positions from 0 on without a gap."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def start(self) -> int:
        """The first position; 0 for the empty set."""
        return self._starts[0] if self._starts else 0

    def end(self) -> int:
        """One past the last position; 0 for the empty set."""
        return self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return sum(self._ends) - sum(self._starts)
