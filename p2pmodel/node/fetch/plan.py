"""What one download fetches, and what its attempts share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2pmodel.config.sections.mirrors import OriginSettings
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.rollout.nodes import NodeReport
from p2pmodel.core.content.leaf_proof import Runs
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.pace import Pace
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.fetch.pieces.have_record import HaveRecord
from p2pmodel.node.fetch.pieces.stats import PieceStats
from p2pmodel.node.host_stats import host_name
from p2pmodel.node.reporter import Reporter
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.store.staging import Staging
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.torrents import Metainfo
from p2pmodel.trust.signatures.statement import SignedStatement

if TYPE_CHECKING:
    from p2pmodel.node.fetch.pieces.piece_server import PieceServer


@dataclass(frozen=True, slots=True)
class NodeZone:
    """The zone of this node ("": none), the port at which it serves other zones (None: the usual one or a free one),
    and the rate of what it sends over HTTP."""

    name: str = ""
    port: int | None = None
    upload: Pace = field(default_factory=Pace)
    server: "PieceServer | None" = None
    """That of all transfers of the node; None: one for this transfer."""


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """What to download. `files` are indexes into the manifest; `refs` the names that will point at the commit.

    Times in seconds: `peer_timeout` until sources that deliver nothing count as gone, `stall_timeout` until a transfer
    that receives nothing is given up.
    """

    metainfo: Metainfo
    files: frozenset[int]
    pieces: frozenset[int] | None = None
    """Of these files only these pieces, which are staged, and nothing is published; None: all, and the files are."""
    blocks: Mapping[int, Runs] = field(default_factory=dict)
    """By piece, blocks of it to stage beside `pieces`, as far as seeders prove them."""
    refs: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()
    coordinators: tuple[Coordinator, ...] = ()
    """Coordinators that may grant leases."""
    signatures: tuple[SignedStatement, ...] = ()
    """Signed statements that came with the torrent, for coordinators that lose theirs."""
    coordinator_timeout: float = 5.0
    peer_timeout: float = 10.0
    stall_timeout: float = 120.0
    origin_settings: OriginSettings = field(default_factory=OriginSettings)
    """Settings of the requests to seeders."""
    zone: NodeZone = field(default_factory=NodeZone)
    pace: Pace | None = None
    """Rate limit of what comes from seeders, shared with all that spend from it."""
    http: HttpPool | None = None
    """Connections that all steps of the fetch share."""
    advertised: tuple[str, ...] = ()
    """Hosts by which peers reach this node, besides that of the engine."""
    mirrored: frozenset[int] = frozenset()
    """Pieces that this run has fetched from mirrors before this download."""
    exchanged: frozenset[int] = frozenset()
    """Pieces that this run has fetched from peers before this download."""
    node: str = field(default_factory=host_name)
    """Name of this node, for messages."""
    numbers: Callable[[], NodeReport | None] = lambda: None
    """What goes with each demand for leases, for roll-outs."""
    judged: frozenset[int] = frozenset()
    """Files that one whole copy from the mirrors was made of, or should have been, to judge the torrent."""
    hashes_signed: bool = False
    """Whether a signature over the torrent replaces the hashes of whole files (`SignatureCheck.replaces_hashes`)."""
    connect_within: float | None = None
    """As in `LeaseStrategy`."""
    mirror_pieces: int = 8
    """How many pieces are asked from mirrors at a time."""


@dataclass(frozen=True, slots=True)
class DownloadContext:
    """What all attempts of one download share: its surroundings, and the state that survives an attempt."""

    plan: DownloadPlan
    engine: Engine
    repo: RepoCache
    origin: Origin | None
    reporter: Reporter
    growing: GrowingFiles
    staging: Staging
    stats: PieceStats
    record: HaveRecord
    damage: dict[int, int] = field(default_factory=dict)
    """By file, how often its staged data proved damaged."""
    own_id: str = ""
    may_leave: bool = True
    """Whether an attempt may end since peers have come to a node that was alone (`leaseholder.Crowded`)."""

    @property
    def metainfo(self) -> Metainfo:
        """The torrent."""
        return self.plan.metainfo

    @property
    def identity(self) -> str:
        """Distinguishes this node from other peers: where all listen on all addresses, the address does not."""
        return f"{self.listen_address} {self.own_id}"

    @property
    def listen_address(self) -> str:
        """ADDRESS:PORT where peers connect."""
        return str(ListenAddress(*self.engine.address))

    async def known_pieces(self) -> frozenset[int]:
        """Pieces that an earlier run recorded as durable, except those of files that proved damaged since."""
        spans = self.metainfo.layout.spans
        return await self.record.load() - {piece for index in self.damage for piece in spans[index].pieces}
