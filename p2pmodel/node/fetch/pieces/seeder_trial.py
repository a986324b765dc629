"""Whether seeders deliver over HTTP while nothing else does. Pure: times in seconds are passed in.

While a transfer goes round its peers and leases, it asks the seeders first. A seeder that sends a trickle does not
fail, so without a trial the mirrors would never be asked.
"""

from p2pmodel.node.fetch.pieces.delivery_clock import DeliveryClock

WITHIN = 3.0
"""Seconds of a trial, or the bound of the clock where that is shorter."""


class SeederTrial:
    """Trials of the seeders, one after the other, as long as `clock` is silent."""

    def __init__(self, clock: DeliveryClock) -> None:
        self._clock = clock
        self._within = min(WITHIN, clock.bound)
        self._began: tuple[float, int] | None = None
        self.failed = False
        """Whether they delivered a trickle, or nothing, in this silence."""

    def look(self, received: int, now: float, *, silent: bool) -> None:
        """They have sent `received` bytes so far."""
        if not silent:
            self._began, self.failed = None, False
        elif self._began is None or received < self._began[1]:
            self._began = now, received
        elif now - self._began[0] >= self._within:
            self.failed = self.failed or received - self._began[1] < self._clock.least(self._within)
            self._began = now, received
