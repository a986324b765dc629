"""The mirrors as the fetches of one node see them: each fetch has an origin of its own, for as long as it runs."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from p2pmodel.origin.mirrors.mirror import MirrorCounters, MirrorStatus
from p2pmodel.origin.origin import Origin

FRESH = 60.0
"""Seconds without asking any mirror after which what an origin knows may be older than what is remembered of them."""


class OriginRegistry:
    """The origins that are open, and what those that were open have counted."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._open: list[Origin] = []
        self._closed: dict[str, MirrorCounters] = {}

    @contextmanager
    def watching(self, origin: Origin) -> Iterator[None]:
        """`origin` is open."""
        self._open.append(origin)
        try:
            yield
        finally:
            self._open.remove(origin)
            self._closed = _added(self._closed, origin.counters())

    def statuses(self) -> Mapping[str, MirrorStatus]:
        """By endpoint, how the origin that asked last sees each mirror now; nothing of those that ask no more."""
        fresh = [origin for origin in self._open if self._now() - origin.active_at < FRESH]
        ordered = sorted(fresh, key=lambda origin: origin.active_at)
        return {status.endpoint: status for origin in ordered for status in origin.statuses()}

    def counters(self) -> Mapping[str, MirrorCounters]:
        """By name, what each mirror did for all origins together."""
        found = self._closed
        for origin in self._open:
            found = _added(found, origin.counters())
        return found


def _added(before: Mapping[str, MirrorCounters], more: Mapping[str, MirrorCounters]) -> dict[str, MirrorCounters]:
    return {name: before.get(name, MirrorCounters()) + more.get(name, MirrorCounters()) for name in {**before, **more}}
