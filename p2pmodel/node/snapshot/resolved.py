"""The result of resolving a fetch target."""

from dataclasses import dataclass

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.swarm.torrents import Metainfo


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """A snapshot, its torrent if one was found, the refs that will point at it, and its voucher (see `voucher`).

    `coordinators` answered and have no torrent: they may take part in an assembly. `trackers` of the torrent may be
    announced to besides those of the coordinators.
    """

    manifest: Manifest
    metainfo: Metainfo | None
    refs: tuple[str, ...] = ()
    coordinators: tuple[Coordinator, ...] = ()
    vouched_by: str = ""
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.metainfo is not None and not self.vouched_by:
            raise ValueError("a torrent without a voucher")
