"""How long each stage of a bootstrap took."""

import time
from collections.abc import Callable
from typing import Literal

StageName = Literal["preflight", "coordinator", "daemons", "ports", "mirroring", "fetching"]
"""In this order. `coordinator`: until it is started; `daemons`: until it and all daemons answer; `fetching` includes
the load, and the start of the command."""


class StageClock:
    """The stages so far, one after the other; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._stage: StageName | None = None
        self._spent: dict[StageName, float] = {}

    def enter(self, stage: StageName) -> None:
        """`stage` begins, and the one before has ended."""
        self._spent = self.seconds
        self._stage, self._since = stage, self._clock()

    @property
    def seconds(self) -> dict[StageName, float]:
        """Seconds of each stage that has begun."""
        if self._stage is None:
            return {}
        return self._spent | {self._stage: self._spent.get(self._stage, 0.0) + self._clock() - self._since}
