"""How a mirror is seen and what it did, as others may look at it."""

from dataclasses import dataclass

from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.mirrors.mirror import Mirror


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """How a mirror is seen: its state, and estimates in seconds and bytes a second, None where nothing is known."""

    name: str
    endpoint: str
    state: State
    connect: float | None
    first_byte: float | None
    rate: float | None
    reason: str
    """Why it last failed or was left out; kept for as long as it is not replaced."""


@dataclass(frozen=True, slots=True)
class MirrorCounters:
    """What a mirror did. Payload bytes, and those of them that were of no use; how often it failed so that others went
    first, and how often it was caught with wrong bytes."""

    received: int = 0
    wasted: int = 0
    failovers: int = 0
    quarantines: int = 0

    def __add__(self, other: "MirrorCounters") -> "MirrorCounters":
        return MirrorCounters(
            self.received + other.received,
            self.wasted + other.wasted,
            self.failovers + other.failovers,
            self.quarantines + other.quarantines,
        )


def standing_of(mirror: Mirror, now: float) -> MirrorStatus:
    """How `mirror` is seen at `now`."""
    quality = mirror.quality
    return MirrorStatus(
        mirror.name,
        mirror.settings.endpoint,
        mirror.health.state(now),
        quality.connect.known(now),
        quality.first_byte.known(now),
        quality.rate.known(now),
        mirror.reason,
    )
