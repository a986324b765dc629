"""Bytes a second over the last seconds."""

import time
from collections import deque
from collections.abc import Callable

RATE_WINDOW = 3.0


class Rate:
    """Bytes a second over the last RATE_WINDOW seconds, or since the first byte if that is more recent."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: float | None = None
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        """`count` bytes came now."""
        now = self._now()
        if self._began is None:
            self._began = now
        self._counts.append((now, count))

    def value(self) -> int:
        """The mean over that time; 0 in the first half second, in which it would be random."""
        now = self._now()
        while self._counts and self._counts[0][0] < now - RATE_WINDOW:
            self._counts.popleft()
        passed = min(now - self._began, RATE_WINDOW) if self._began is not None else 0.0
        return int(sum(count for _, count in self._counts) / passed) if passed >= 0.5 else 0
