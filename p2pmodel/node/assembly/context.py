"""The parts that one assembly of a snapshot is made of."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property

from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.coordinator.assembly.messages import assembly_digest, manifest_text
from p2pmodel.coordinator.assembly.partial_torrents import assembly_layout
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.rollout.nodes import NodeReport
from p2pmodel.core.content.layout import Layout
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.reporter import Reporter
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.swarm.engine import EngineSource
from p2pmodel.swarm.torrents import Metainfo


async def _no_torrent() -> Metainfo | None:
    return None


@dataclass(frozen=True)
class AssemblyContext:
    """A snapshot without a torrent, where it is stored, and the sources of its bytes.

    `refs` will point at the snapshot. `engine` starts the swarm engine. Through `growing` clients read files that are
    still downloaded.
    """

    manifest: Manifest
    refs: tuple[str, ...]
    coordinators: tuple[Coordinator, ...]
    repo: RepoCache
    origin: Origin
    engine: EngineSource
    settings: SwarmSettings
    reporter: Reporter
    growing: GrowingFiles = field(default_factory=GrowingFiles)
    http: HttpPool | None = None
    """Connections that all steps share."""
    node: str = ""
    """Name of this node."""
    torrent_by_now: Callable[[], Awaitable[Metainfo | None]] = _no_torrent
    """Asks the coordinators for a torrent of the snapshot."""
    numbers: Callable[[], NodeReport | None] = lambda: None
    """Returns the report for roll-outs that goes with each demand."""

    @cached_property
    def layout(self) -> Layout:
        """The layout of the torrent that is assembled."""
        return assembly_layout(self.manifest)

    def fits(self, metainfo: Metainfo) -> bool:
        """Whether a torrent has this snapshot's files and the layout of this assembly."""
        return metainfo.manifest == self.manifest and metainfo.layout.piece_length == self.layout.piece_length

    @cached_property
    def text(self) -> str:
        """The manifest's canonical text."""
        return manifest_text(self.manifest)

    @cached_property
    def digest(self) -> str:
        """Identifies the assembly at its coordinator."""
        return assembly_digest(self.text)
