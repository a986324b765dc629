"""One peer of `coordinator/leases`: its demand, its leases, and what it has delivered. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from p2pmodel.coordinator.leases.delivery_record import PROVE_WITHIN, DeliveryRecord
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.origin_budget import OriginCount

Standing = Literal["proven", "new", "doubtful"]
"""Whether a peer delivers; `LeaseCounts` distinguishes the others."""

SILENCE = 5.0
"""Seconds without a message after which a peer counts as gone."""
OUT_FOR = 30.0
"""Seconds for which a delivered piece is left to spread."""


MOST_LAPSED = 4096
"""Leases that ended without a delivery and are remembered, by peer."""


@dataclass(slots=True)
class LeasePeer:
    """Times in seconds."""

    demand: Demand
    seen: float
    address: str
    origin: OriginCount
    record: DeliveryRecord = field(default_factory=DeliveryRecord)
    lapsed: dict[int, float] = field(default_factory=dict)
    """When each lease began that ended without a delivery, by piece: it may come late."""
    counted: tuple[bool, Standing, int] = (False, "new", 0)
    """What `LeaseCounts` has of it: whether its leases are for seeders, its standing, and their number."""
    leased: dict[int, float] = field(default_factory=dict)
    """When each lease began, by piece."""
    delivered: list[tuple[float, int]] = field(default_factory=list)
    """When it downloaded which pieces under a lease; the older are dropped."""
    took: float = 0.0
    """Seconds that its leases take, smoothed; 0 before the first has ended."""
    tried: float = 0.0
    """When the last one ended."""
    longest: float = 0.0
    """Seconds that the longest took."""

    @property
    def count(self) -> int:
        """Pieces it has delivered in all."""
        return self.record.delivered

    def note(self, seconds: float, now: float) -> None:
        """Note that a lease took `seconds`."""
        self.took = (self.took + seconds) / 2 if self.took else seconds
        self.longest = max(self.longest, seconds)
        self.tried = now

    def forfeit(self, pieces: Iterable[int]) -> None:
        """Leases of `pieces` end without a delivery."""
        self.lapsed |= {piece: self.leased[piece] for piece in pieces}
        while len(self.lapsed) > MOST_LAPSED:
            del self.lapsed[next(iter(self.lapsed))]

    def pop_late(self) -> dict[int, float]:
        """Forget the lapsed leases of which the piece is there by now; returns when each began."""
        come = {piece: since for piece, since in self.lapsed.items() if not self.demand.scarce >> piece & 1}
        for piece in come:
            del self.lapsed[piece]
        return come

    @property
    def doubtful(self) -> bool:
        """Whether it, or its address, holds leases and does not deliver."""
        return self.counted[1] == "doubtful"

    @property
    def waits(self) -> bool:
        """Whether it would take another lease."""
        return len(self.leased) < self.demand.want and self.demand.scarce != 0

    @property
    def earliest_expiry(self) -> float:
        """When it, a lease or a delivery may expire at the earliest."""
        delivered = self.delivered[0][0] if self.delivered else float("inf")
        leased = min(self.leased.values(), default=float("inf"))
        return min(self.seen + SILENCE, delivered + OUT_FOR, leased + PROVE_WITHIN)
