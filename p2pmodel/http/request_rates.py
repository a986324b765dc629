"""How often somebody may ask: so many requests a second in the long run, and a burst of two seconds' worth at once."""

from collections.abc import Callable

from cachetools import LRUCache

BURST_SECONDS = 2.0
_ROUNDING = 1e-9


class RequestRates:
    """`rate` requests a second for each key (a virtual-scheduling leaky bucket: one number a key). `most` keys are
    remembered, those that asked last; who is forgotten starts anew."""

    def __init__(self, rate: float, clock: Callable[[], float], *, most: int = 10_000) -> None:
        self._interval = 1 / rate
        self._clock = clock
        self._paid_until: LRUCache[str, float] = LRUCache(most)

    def ask(self, key: str) -> float:
        """Seconds until `key` may ask again; 0 if it may now, and then this request counts."""
        now = self._clock()
        behind = max(self._paid_until.get(key, now) - now, 0.0)
        wait = behind + self._interval - BURST_SECONDS
        if behind and wait > _ROUNDING:
            return wait
        self._paid_until[key] = now + behind + self._interval
        return 0.0
