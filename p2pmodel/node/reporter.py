"""What a use case reports while it runs: one frozen snapshot of numbers, and notes in words."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from p2pmodel.core.connections import PeerConnection
from p2pmodel.core.progress import Phase, Pieces, Progress


def _silent_progress(progress: Progress) -> None: ...


def _silent_note(line: str) -> None: ...


class Insight(Protocol):
    """What can be seen of a transfer by who looks closer than at its progress."""

    def pieces(self) -> Pieces:
        """Which pieces are here, and whence."""

    async def connections(self) -> tuple[PeerConnection, ...]:
        """Whom it exchanges bytes with."""


def _unasked(insight: Insight) -> None: ...


@dataclass(frozen=True, slots=True)
class Reporter:
    """Where a use case reports to. Called on the event loop; must not block."""

    progress: Callable[[Progress], None] = field(default=_silent_progress)
    note: Callable[[str], None] = field(default=_silent_note)
    insight: Callable[[Insight], None] = field(default=_unasked)
    """Gets what can be looked into from then on."""


class PhaseClock:
    """How long each phase took."""

    def __init__(self, phase: Phase, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._phase: Phase = phase
        self._since = now()
        self._seconds: dict[Phase, float] = {}

    def enter(self, phase: Phase) -> None:
        """`phase` begins, if it is not on already."""
        if phase != self._phase:
            now = self._now()
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
            self._phase, self._since = phase, now

    def seconds(self, *phases: Phase) -> float:
        """Seconds spent in `phases` together, up to now."""
        running = self._now() - self._since if self._phase in phases else 0.0
        return running + sum(self._seconds.get(phase, 0.0) for phase in phases)


__all__ = ["Insight", "Phase", "PhaseClock", "Pieces", "Progress", "Reporter"]
