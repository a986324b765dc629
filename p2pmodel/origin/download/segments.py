"""Sharing out one file among several mirrors: who fetches which bytes, and who comes to whose aid. Pure.

Invariants, to re-check when editing:
1. A missing byte is either waiting or in exactly one unfinished part; parts do not overlap.
2. The held bytes of a part are a prefix: all that lies before `Segment.start`. Each of its runs started at what
   was then
   its `start`, so whoever is ahead moves it on, and what the other brings again is waste.
3. A part that is finished has no use for its runs: they are to be stopped.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

SMALLEST = 1 << 20
"""Bytes worth a request of their own, when there is a choice."""

_SPLIT_GAIN = 0.5
"""Seconds that taking over half of a part must save."""

_SILENCE = 1.0
"""Seconds without a byte after which another mirror races for the same bytes."""

_RACERS = 2


@dataclass(slots=True, eq=False)
class Segment:
    """Bytes `start` to `end` still to come, and who is at it."""

    start: int
    end: int
    runs: list["SegmentRequest"] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.end - self.start


@dataclass(slots=True, eq=False)
class SegmentRequest:
    """One request of mirror `name` for a part; times are seconds of one clock."""

    name: str
    part: Segment
    began: float
    heard: float
    """When bytes last came."""
    first: float | None = None
    """When bytes first came."""
    got: int = 0
    number: int = 0
    """Tells the runs of one board apart."""

    @property
    def wanted(self) -> bool:
        """Whether its bytes are still of use."""
        return self.part.left > 0

    def rate(self, now: float) -> float:
        """Bytes a second since the first byte; 0 before."""
        return self.got / max(0.05, now - self.first) if self.first is not None else 0.0


class SegmentBoard:
    """What is missing of a file: ranges that wait, and parts that mirrors are at."""

    def __init__(self, missing: Iterable[tuple[int, int]]) -> None:
        self._waiting = deque((offset, offset + length) for offset, length in missing)
        self._parts: list[Segment] = []
        self._numbers = count()

    @property
    def waiting(self) -> int:
        """Bytes nobody is at."""
        return sum(end - start for start, end in self._waiting)

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.waiting + sum(part.left for part in self._parts)

    def running(self, name: str) -> int:
        """Requests of mirror `name` under way."""
        return sum(run.name == name for part in self._parts for run in part.runs)

    def take(self, name: str, size: int, now: float) -> SegmentRequest | None:
        """Give the first waiting bytes, `size` at most, to `name`."""
        if not self._waiting:
            return None
        start, end = self._waiting.popleft()
        if end - start > size:
            self._waiting.appendleft((start + size, end))
            end = start + size
        part = Segment(start, end)
        self._parts.append(part)
        return self._join(part, name, now)

    def aid(self, name: str, rate: float | None, latency: float, now: float) -> SegmentRequest | None:
        """Let `name` help where the end is furthest off: it brings `rate` bytes a second on a connection (None: taken
        to be as quick as whom it helps), `latency` seconds after it is asked. A slow part is split so that both end
        together; for a silent one it races."""
        best: tuple[float, Segment] | None = None
        for part in self._parts:
            if part.left and all(run.name != name for run in part.runs):
                gain = self._gain(part, rate, latency, now)
                if gain > _SPLIT_GAIN and (best is None or gain > best[0]):
                    best = gain, part
        if best is None:
            return None
        part = best[1]
        if _silent(part, now):
            return self._join(part, name, now) if len(part.runs) < _RACERS else None
        slow = max(run.rate(now) for run in part.runs)
        rate = slow if rate is None else rate
        theirs = (part.left + rate * latency) * slow / (slow + rate)
        middle = min(part.end, part.start + max(1, int(theirs)))
        if part.end - middle < min(SMALLEST, part.left // 4):
            return None
        taken = Segment(middle, part.end)
        part.end = middle
        self._parts.append(taken)
        return self._join(taken, name, now)

    def arrived(self, run: SegmentRequest, offset: int, length: int, now: float) -> tuple[int, int]:
        """`length` bytes at `offset` came for `run`: the range (start, end) of those that are new, empty if none."""
        run.heard = now
        run.first = now if run.first is None else run.first
        run.got += length
        part = run.part
        start, end = max(offset, part.start), min(offset + length, part.end)
        if start >= end:
            return part.start, part.start
        assert offset <= part.start, "a run never is ahead of its part"
        part.start = end
        return start, end

    def ended(self, run: SegmentRequest) -> None:
        """`run` is over, whole or not: what is left of its part waits again unless another is at it."""
        part = run.part
        part.runs.remove(run)
        if not part.runs:
            self._parts.remove(part)
            if part.left:
                self._waiting.appendleft((part.start, part.end))

    def _join(self, part: Segment, name: str, now: float) -> SegmentRequest:
        run = SegmentRequest(name, part, now, now, number=next(self._numbers))
        part.runs.append(run)
        return run

    def _gain(self, part: Segment, rate: float | None, latency: float, now: float) -> float:
        """Seconds by which `part` would be whole sooner with the help of `rate` bytes a second after `latency`."""
        if _silent(part, now):
            return float("inf") if len(part.runs) < _RACERS else 0.0
        slow = max(run.rate(now) for run in part.runs)
        rate = slow if rate is None else rate
        if not slow or not rate:
            return 0.0
        return part.left / slow - (part.left + rate * latency) / (slow + rate)


def _silent(part: Segment, now: float) -> bool:
    return all(now - run.heard >= _SILENCE for run in part.runs)


def request_size(rate: float | None, latency: float | None, part_size: int, waiting: int, connections: int) -> int:
    """Bytes to ask for at once on a connection that brings `rate` bytes a second: some seconds' worth, so that the
    pause between two requests weighs little; less towards the end, so that all connections end together.

    `waiting`: bytes nobody is at; `connections`: how many share them. `part_size` at most.
    """
    seconds = max(4.0, 20 * (latency or 0.0))
    fair = waiting // max(1, 2 * connections)
    wished = 4 * SMALLEST if rate is None else int(rate * seconds)
    return min(part_size, max(SMALLEST, min(wished, fair)))
