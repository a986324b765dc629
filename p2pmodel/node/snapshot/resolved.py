"""The result of resolving a fetch target."""

from dataclasses import dataclass, field

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.swarm.torrents import Metainfo
from p2pmodel.trust.signatures.statement import SignedStatement


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
    signatures: tuple[SignedStatement, ...] = field(default=(), repr=False)
    """Signed statements that came with it. They count only where `SignatureCheck` says so."""
    warned: bool = False
    """Whether a warning was given that it has no signature that counts."""

    def __post_init__(self) -> None:
        if self.metainfo is not None and not self.vouched_by:
            raise ValueError("a torrent without a voucher")
