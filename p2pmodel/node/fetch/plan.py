"""What one transfer is to do."""

from dataclasses import dataclass, field

from p2pmodel.config.settings import OriginSettings
from p2pmodel.origin.mirrors.pace import PullPace
from p2pmodel.swarm.torrents import Metainfo


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """What to bring here. `files` are indexes into the manifest; `refs` the names that will point at the commit.

    Times in seconds: `peer_timeout` until orphan pieces are taken from the mirrors, `stall_timeout` until a transfer
    that nobody feeds is given up.
    """

    metainfo: Metainfo
    files: frozenset[int]
    refs: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()
    coordinators: tuple[str, ...] = ()
    """Base URLs of those who may give leases."""
    coordinator_timeout: float = 5.0
    peer_timeout: float = 10.0
    stall_timeout: float = 120.0
    origin_settings: OriginSettings = field(default_factory=OriginSettings)
    """How seeders are pulled from."""
    zone: str = ""
    pace: PullPace | None = None
    """What seeders are pulled from at most, together with all that spend from it."""
    mirrored: frozenset[int] = frozenset()
    """Pieces that this run has brought from mirrors already."""
    traded: frozenset[int] = frozenset()
    """And from peers."""
    meeting: float | None = None
    """As in `PieceFeed`."""
    mirror_pieces: int = 8
    """How many pieces are asked from mirrors at a time."""
