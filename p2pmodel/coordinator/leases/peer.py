"""One peer of `coordinator/leases`: its demand, its leases, and what it has delivered. Pure."""

from dataclasses import dataclass, field

from p2pmodel.coordinator.leases.delivery_record import PROVE_WITHIN, DeliveryRecord
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.origin_budget import OriginCount

SILENCE = 5.0
"""Seconds without a message after which a peer counts as gone."""
OUT_FOR = 30.0
"""Seconds for which a delivered piece is left to spread."""


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
    shared: int = 0
    """Its leases that count for its address."""
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
