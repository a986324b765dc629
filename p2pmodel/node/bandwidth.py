"""Keep one rate limit for the traffic in the swarm and over HTTP together.

Leased pieces come over HTTP, and a node that is a web seed sends over HTTP, beside the swarm. Twice a second, the use
of either side decides its share of the limit. Together they never exceed it.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

from p2pmodel.core.progress.views import RateLimits
from p2pmodel.swarm.engine import Engine, Rates

SHARE_EVERY = 0.5
"""Seconds. A fetch begins over HTTP and goes on in the swarm: until the shares follow, the link is not full. HTTP
passes eight blocks a second (`Pace.block`), so shorter times would show its blocks, not its use."""
UNLIMITED_EVERY = 1.0
"""The same where there is no limit to share."""
WORTH_IT = 0.01
"""Fraction of a limit by which a share must change to be applied; less than the steps by which a small share grows."""
GROW = 1.25
START = 0.02
"""A side may use GROW times its recent use plus the fraction START of the limit, so that it can grow."""


def shares(limit: int, swarm: float, http: float) -> tuple[int, int]:
    """Split `limit` bytes/s between the two sides, which recently used `swarm` and `http`.

    The sum is `limit` (2 at least). If both sides get what they need, each gets half of the rest besides. So the swarm
    soon has much, of which the rate is seen a second or two after it begins. HTTP is seen at once, so the swarm alone
    gets the rest where HTTP is idle. Otherwise a side that needs less than half gets what it needs, and the other side
    the rest; or each gets a half.
    """
    limit = max(limit, 2)
    one, two = (GROW * used + START * limit for used in (swarm, http))
    if not http and swarm > START * limit:
        share = limit - two
    elif one + two <= limit:
        share = one + (limit - one - two) / 2
    else:
        share = one if one < limit / 2 else limit - two if two < limit / 2 else limit / 2
    of_swarm = min(max(round(share), 1), limit - 1)
    return of_swarm, limit - of_swarm


class HttpTraffic(Protocol):
    """All HTTP traffic in one direction."""

    @property
    def passed(self) -> int:
        """Bytes so far."""

    def change(self, rate: int, *, of: int = 0) -> None:
        """Use at most this rate from now on, bytes/s (0: no limit), a share `of` the whole limit."""


@dataclass(slots=True)
class _Direction:
    http: HttpTraffic | None
    limit: int
    passed: int = 0
    rate: float = 0.0
    """Bytes/s over HTTP, at the last measurement."""
    peers: int = -1
    """The share of the swarm; -1 before it is first set."""

    def change(self, limit: int) -> None:
        if self.limit != limit:
            self.limit, self.peers = limit, -1

    def measure(self, seconds: float) -> None:
        if self.http is not None:
            self.rate = (self.http.passed - self.passed) / seconds
            self.passed = self.http.passed

    def share(self, swarm: float) -> bool:
        """Set the shares, where the swarm used `swarm` bytes/s. Returns whether the share of the swarm has changed."""
        peers, http = shares(self.limit, swarm, self.rate) if self.limit and self.http else (self.limit, self.limit)
        if self.peers >= 0 and abs(peers - self.peers) <= WORTH_IT * self.limit:
            return False
        self.peers = peers
        if self.http is not None:
            self.http.change(http, of=self.limit)
        return True


class SharedLimits:
    """Applies `limits` to `engine` and HTTP together while it runs."""

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
        """Replace the limits, bytes/s (0: none)."""
        for direction, limit in (self._up, upload), (self._down, download):
            direction.change(limit)
        self._share()

    async def run(self) -> None:
        """Adjust the shares until cancelled."""
        last = time.monotonic()
        self._share()
        while True:
            await asyncio.sleep(SHARE_EVERY if self._up.limit or self._down.limit else UNLIMITED_EVERY)
            now = time.monotonic()
            self.adjust(now - last)
            last = now

    def adjust(self, seconds: float) -> None:
        """Adjust the shares to the traffic of the last `seconds`."""
        self._up.measure(seconds)
        self._down.measure(seconds)
        self._share()

    def _share(self) -> None:
        rates = self._engine.rates if self._up.limit or self._down.limit else Rates(0, 0)
        changed = [self._up.share(rates.upload), self._down.share(rates.download)]
        if any(changed):
            self._engine.limit(upload=self._up.peers, download=self._down.peers)
