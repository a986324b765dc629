"""A request rate limit for each key: a long-term rate, with a burst of two seconds' worth of requests."""

from collections.abc import Callable

from cachetools import LRUCache

BURST_SECONDS = 2.0
_ROUNDING = 1e-9


class RequestRates:
    """`rate` requests a second for each key (a virtual-scheduling leaky bucket: one number a key).

    Holds the `most` keys that were used last; a dropped key starts again with a full burst.
    """

    def __init__(self, rate: float, clock: Callable[[], float], *, most: int = 10_000) -> None:
        self._interval = 1 / rate
        self._clock = clock
        self._paid_until: LRUCache[str, float] = LRUCache(most)

    def ask(self, key: str) -> float:
        """Seconds until the next request of `key` is admitted; 0 if it is admitted now, and then it is counted."""
        now = self._clock()
        behind = max(self._paid_until.get(key, now) - now, 0.0)
        wait = behind + self._interval - BURST_SECONDS
        if behind and wait > _ROUNDING:
            return wait
        self._paid_until[key] = now + behind + self._interval
        return 0.0
