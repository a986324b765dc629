"""Assignment of one file's bytes to the connections of several mirrors. Pure.

Invariants, to re-check when editing:
1. A missing byte is either waiting or in exactly one unfinished segment; segments do not overlap.
2. The held bytes of a segment are a prefix: all that lies before `FileSegment.start`. Each of its requests started at
   the `start` of that time. The request that is ahead advances it; the same bytes from another request are waste.
3. The requests of a finished segment are to be stopped.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

SMALLEST = 1 << 20
"""Smallest request in bytes, where there is a choice."""

_SPLIT_GAIN = 0.5
"""Seconds that the split of a segment must save."""

_SILENCE = 1.0
"""Seconds without a byte after which another mirror requests the same bytes."""

_RACERS = 2


@dataclass(slots=True, eq=False)
class FileSegment:
    """Bytes `start` to `end` still to come, and the requests for them."""

    start: int
    end: int
    requests: list["SegmentRequest"] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.end - self.start


@dataclass(slots=True, eq=False)
class SegmentRequest:
    """One request of mirror `name` for a segment; times are seconds of one clock."""

    name: str
    segment: FileSegment
    began: float
    last_byte_at: float
    """Time of the last byte, or of the start."""
    first_byte_at: float | None = None
    """Time of the first byte."""
    got: int = 0
    number: int = 0
    """Distinct among the requests of one board."""

    @property
    def wanted(self) -> bool:
        """Whether its bytes are still needed."""
        return self.segment.left > 0

    def rate(self, now: float) -> float:
        """Bytes a second since the first byte; 0 before."""
        return self.got / max(0.05, now - self.first_byte_at) if self.first_byte_at is not None else 0.0


class SegmentBoard:
    """The missing bytes of a file: ranges that wait for a request, and segments with requests in progress."""

    def __init__(self, missing: Iterable[tuple[int, int]]) -> None:
        self._waiting = deque((offset, offset + length) for offset, length in missing)
        self._segments: list[FileSegment] = []
        self._numbers = count()

    @property
    def waiting(self) -> int:
        """Bytes without a request."""
        return sum(end - start for start, end in self._waiting)

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.waiting + sum(segment.left for segment in self._segments)

    def running(self, name: str) -> int:
        """Requests to mirror `name` in progress."""
        return sum(request.name == name for segment in self._segments for request in segment.requests)

    def take(self, name: str, size: int, now: float) -> SegmentRequest | None:
        """Assign the first waiting bytes, `size` at most, to `name`."""
        if not self._waiting:
            return None
        start, end = self._waiting.popleft()
        if end - start > size:
            self._waiting.appendleft((start + size, end))
            end = start + size
        segment = FileSegment(start, end)
        self._segments.append(segment)
        return self._join(segment, name, now)

    def aid(self, name: str, rate: float | None, latency: float, now: float) -> SegmentRequest | None:
        """Assign to `name` some bytes of the segment that would end last. `name` delivers `rate` bytes a second on a
        connection (None: assumed equal to the other mirror's) after `latency` seconds. A slow segment is split so that
        both ends come together; the bytes of a silent one are requested a second time."""
        best: tuple[float, FileSegment] | None = None
        for segment in self._segments:
            if segment.left and all(request.name != name for request in segment.requests):
                gain = self._gain(segment, rate, latency, now)
                if gain > _SPLIT_GAIN and (best is None or gain > best[0]):
                    best = gain, segment
        if best is None:
            return None
        segment = best[1]
        if _silent(segment, now):
            return self._join(segment, name, now) if len(segment.requests) < _RACERS else None
        slow = max(request.rate(now) for request in segment.requests)
        rate = slow if rate is None else rate
        theirs = (segment.left + rate * latency) * slow / (slow + rate)
        middle = min(segment.end, segment.start + max(1, int(theirs)))
        if segment.end - middle < min(SMALLEST, segment.left // 4):
            return None
        taken = FileSegment(middle, segment.end)
        segment.end = middle
        self._segments.append(taken)
        return self._join(taken, name, now)

    def received(self, request: SegmentRequest, offset: int, length: int, now: float) -> tuple[int, int]:
        """`length` bytes at `offset` came for `request`; the range (start, end) of the new ones, empty if none."""
        request.last_byte_at = now
        request.first_byte_at = now if request.first_byte_at is None else request.first_byte_at
        request.got += length
        segment = request.segment
        start, end = max(offset, segment.start), min(offset + length, segment.end)
        if start >= end:
            return segment.start, segment.start
        assert offset <= segment.start, "a request is never ahead of its segment"
        segment.start = end
        return start, end

    def ended(self, request: SegmentRequest) -> None:
        """`request` is over, complete or not. The rest of its segment waits again unless another request fetches it."""
        segment = request.segment
        segment.requests.remove(request)
        if not segment.requests:
            self._segments.remove(segment)
            if segment.left:
                self._waiting.appendleft((segment.start, segment.end))

    def _join(self, segment: FileSegment, name: str, now: float) -> SegmentRequest:
        request = SegmentRequest(name, segment, now, now, number=next(self._numbers))
        segment.requests.append(request)
        return request

    def _gain(self, segment: FileSegment, rate: float | None, latency: float, now: float) -> float:
        """Seconds saved for `segment` by `rate` more bytes a second after `latency`."""
        if _silent(segment, now):
            return float("inf") if len(segment.requests) < _RACERS else 0.0
        slow = max(request.rate(now) for request in segment.requests)
        rate = slow if rate is None else rate
        if not slow or not rate:
            return 0.0
        return segment.left / slow - (segment.left + rate * latency) / (slow + rate)


def _silent(segment: FileSegment, now: float) -> bool:
    return all(now - request.last_byte_at >= _SILENCE for request in segment.requests)


def request_size(rate: float | None, latency: float | None, part_size: int, waiting: int, connections: int) -> int:
    """Bytes of one request on a connection with `rate` bytes a second. Some seconds' worth, so that the pause between
    two requests weighs little; less near the end, so that all connections end together.

    `waiting`: bytes without a request, shared by `connections`. At most `part_size`.
    """
    seconds = max(4.0, 20 * (latency or 0.0))
    fair = waiting // max(1, 2 * connections)
    wished = 4 * SMALLEST if rate is None else int(rate * seconds)
    return min(part_size, max(SMALLEST, min(wished, fair)))
