"""Assignment of one file's bytes to the connections of several mirrors. Pure.

Invariants, to re-check when editing:
1. A missing byte is either waiting or in exactly one unfinished part; parts do not overlap.
2. The held bytes of a part are a prefix: all that lies before `Segment.start`. Each of its runs started at the `start`
   of that time. The run that is ahead advances it; the same bytes from another run are waste.
3. The runs of a finished part are to be stopped.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

SMALLEST = 1 << 20
"""Smallest request in bytes, where there is a choice."""

_SPLIT_GAIN = 0.5
"""Seconds that the split of a part must save."""

_SILENCE = 1.0
"""Seconds without a byte after which another mirror requests the same bytes."""

_RACERS = 2


@dataclass(slots=True, eq=False)
class Segment:
    """Bytes `start` to `end` still to come, and the requests for them."""

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
    """Distinct among the runs of one board."""

    @property
    def wanted(self) -> bool:
        """Whether its bytes are still needed."""
        return self.part.left > 0

    def rate(self, now: float) -> float:
        """Bytes a second since the first byte; 0 before."""
        return self.got / max(0.05, now - self.first) if self.first is not None else 0.0


class SegmentBoard:
    """The missing bytes of a file: ranges that wait for a request, and parts with requests in progress."""

    def __init__(self, missing: Iterable[tuple[int, int]]) -> None:
        self._waiting = deque((offset, offset + length) for offset, length in missing)
        self._parts: list[Segment] = []
        self._numbers = count()

    @property
    def waiting(self) -> int:
        """Bytes without a request."""
        return sum(end - start for start, end in self._waiting)

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.waiting + sum(part.left for part in self._parts)

    def running(self, name: str) -> int:
        """Requests to mirror `name` in progress."""
        return sum(run.name == name for part in self._parts for run in part.runs)

    def take(self, name: str, size: int, now: float) -> SegmentRequest | None:
        """Assign the first waiting bytes, `size` at most, to `name`."""
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
        """Assign to `name` some bytes of the part that would end last. `name` delivers `rate` bytes a second on a
        connection (None: assumed equal to the other mirror's) after `latency` seconds. A slow part is split so that
        both ends come together; the bytes of a silent one are requested a second time."""
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

    def received(self, run: SegmentRequest, offset: int, length: int, now: float) -> tuple[int, int]:
        """`length` bytes at `offset` came for `run`; the range (start, end) of those that are new, empty if none."""
        run.heard = now
        run.first = now if run.first is None else run.first
        run.got += length
        part = run.part
        start, end = max(offset, part.start), min(offset + length, part.end)
        if start >= end:
            return part.start, part.start
        assert offset <= part.start, "a run is never ahead of its part"
        part.start = end
        return start, end

    def ended(self, run: SegmentRequest) -> None:
        """`run` is over, complete or not. The rest of its part waits again unless another run fetches it."""
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
        """Seconds saved for `part` by `rate` more bytes a second after `latency`."""
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
    """Bytes of one request on a connection with `rate` bytes a second. Some seconds' worth, so that the pause between
    two requests weighs little; less near the end, so that all connections end together.

    `waiting`: bytes without a request, shared by `connections`. At most `part_size`.
    """
    seconds = max(4.0, 20 * (latency or 0.0))
    fair = waiting // max(1, 2 * connections)
    wished = 4 * SMALLEST if rate is None else int(rate * seconds)
    return min(part_size, max(SMALLEST, min(wished, fair)))
