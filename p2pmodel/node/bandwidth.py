"""The limits of a node, kept together by what goes through the swarm and what goes over HTTP.

Leased pieces come over HTTP, and a node that is a source sends over HTTP, beside the swarm. What each of the two uses
is looked at every second, and decides what each may use next: together never more than the limit.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

from p2pmodel.core.views import RateLimits
from p2pmodel.node.rate_shares import shares
from p2pmodel.swarm.engine import Engine, Rates

SHARE_EVERY = 1.0
WORTH_IT = 0.01
"""The part of a limit by which a share must change to be applied; less than that by which a small share grows."""


class HttpTraffic(Protocol):
    """All that goes over HTTP in one direction."""

    @property
    def passed(self) -> int:
        """Bytes so far."""

    def change(self, rate: int) -> None:
        """From now on at most that many bytes a second (0: no limit)."""


@dataclass(slots=True)
class _Direction:
    http: HttpTraffic | None
    limit: int
    passed: int = 0
    rate: float = 0.0
    """Bytes a second over HTTP, as of the last look."""
    peers: int = -1
    """What the swarm may use; -1 before the first look."""

    def look(self, seconds: float) -> None:
        if self.http is not None:
            self.rate = (self.http.passed - self.passed) / seconds
            self.passed = self.http.passed

    def share(self, swarm: float) -> bool:
        """Let HTTP have its share, where the swarm used `swarm` bytes a second; whether that of the swarm changes."""
        peers, http = shares(self.limit, swarm, self.rate) if self.limit and self.http else (self.limit, self.limit)
        if self.peers >= 0 and abs(peers - self.peers) <= WORTH_IT * self.limit:
            return False
        self.peers = peers
        if self.http is not None:
            self.http.change(http)
        return True


class SharedLimits:
    """Has `engine` and HTTP obey `limits` together while it runs."""

    def __init__(
        self,
        engine: Engine,
        limits: RateLimits,
        *,
        upload: HttpTraffic | None = None,
        download: HttpTraffic | None = None,
    ) -> None:
        self._engine = engine
        self._up, self._down = _Direction(upload, limits.upload), _Direction(download, limits.download)

    def change(self, *, upload: int, download: int) -> None:
        """From now on these are the limits, in bytes a second (0: none)."""
        for direction, limit in (self._up, upload), (self._down, download):
            if direction.limit != limit:
                direction.limit, direction.peers = limit, -1
        self._share()

    async def run(self) -> None:
        """Share anew again and again, until cancelled."""
        last = time.monotonic()
        self._share()
        while True:
            await asyncio.sleep(SHARE_EVERY)
            now = time.monotonic()
            self.look(now - last)
            last = now

    def look(self, seconds: float) -> None:
        """Share anew, by what went over HTTP in the `seconds` since the last look."""
        self._up.look(seconds)
        self._down.look(seconds)
        self._share()

    def _share(self) -> None:
        rates = self._engine.rates if self._up.limit or self._down.limit else Rates(0, 0)
        changed = [self._up.share(rates.upload), self._down.share(rates.download)]
        if any(changed):
            self._engine.limit(upload=self._up.peers, download=self._down.peers)
