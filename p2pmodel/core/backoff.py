"""Pauses between retries: exponential, with an upper bound. Pure; the caller sleeps."""

import math

_MOST_DOUBLINGS = 16


def doubled(first: float, times: int, most: float) -> float:
    """`first` doubled `times` times, at most `most`."""
    return min(most, math.ldexp(first, min(_MOST_DOUBLINGS, max(0, times))))


class Backoff:
    """Pauses of one retried action, in seconds: `first`, then twice the previous one, at most `most`."""

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._failures = 0

    def failed(self) -> float:
        """Count a failure; the pause before the next attempt."""
        pause = doubled(self._first, self._failures, self._most)
        self._failures += 1
        return pause

    def succeeded(self) -> None:
        """Start again with `first`."""
        self._failures = 0
