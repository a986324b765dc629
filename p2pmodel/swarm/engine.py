"""The swarm port: the interface of a BitTorrent engine for the rest of p2pmodel.

`libtorrent` is the real engine, `memory` the in-memory double; one contract suite tests both. All methods are called
from one event loop and never block it. Every awaitable is bounded by the engine's timeouts and raises Unavailable if
the engine does not respond.
"""

import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import disk_failed, disk_full


@dataclass(frozen=True, slots=True)
class SwarmCertificate:
    """The certificate of a peer in a private swarm and its private key, both PEM."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Admissions:
    """Which IP addresses may exchange with a private torrent.

    `barred` addresses are connected to no private torrent of the engine, whatever others admit.
    """

    admitted: frozenset[str] = frozenset()
    barred: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WebSeeds:
    """BEP 19 URLs of HTTP servers, which may contain their tokens, and the rule for their addresses and redirects."""

    urls: tuple[str, ...] = ()
    egress: Egress = PUBLIC

    def __repr__(self) -> str:
        return f"WebSeeds({len(self.urls)} URLs)"


@dataclass(frozen=True, slots=True)
class AddTorrent:
    """A torrent to join, and the paths of its files.

    `files` maps the torrent's file index (pad files are counted as in libtorrent) to a path, absolute or relative to
    `save_path`; the default is the file's own path below the torrent's name. A path may be a link; it is followed anew
    each time the file is opened. Empty files are not created. `have`: the
    verified pieces on disk, which are neither hashed nor downloaded again; all other content of the files is ignored
    and overwritten. `wanted`: the file indexes to download (None: all), `pieces`: of these the pieces to download
    (None: all). All `trackers` receive announces; trackers and web seeds in the torrent itself are not used.
    `web_seeds` are as in `SwarmTorrent.set_web_seeds`, and are connected to at once. A torrent that they do not fit
    ignores them.
    """

    metainfo: bytes
    save_path: Path
    files: Mapping[int, str]
    have: frozenset[int] = frozenset()
    wanted: frozenset[int] | None = None
    pieces: frozenset[int] | None = None
    trackers: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()
    web_seeds: WebSeeds = WebSeeds()
    certificate: SwarmCertificate | None = None
    """For the torrent of a private swarm, which needs one; others ignore it."""
    admissions: Admissions = Admissions()
    """For the torrent of a private swarm: no other address gets or sends a byte."""


@dataclass(frozen=True, slots=True)
class SwarmStatus:
    """A torrent at one moment. Rates in bytes a second; `have` counts pieces that passed their hash check."""

    have: frozenset[int]
    availability: tuple[int, ...]
    """Per piece, how many connected peers have it."""
    peers: int
    seeds: int
    downloaded: int
    """Payload bytes from peers since the torrent was added."""
    uploaded: int
    wasted: int
    """Payload bytes from peers that failed the hash check or were duplicates."""
    download_rate: int
    upload_rate: int
    banned: frozenset[str] = frozenset()
    """Addresses of peers that presumably sent bad blocks, by all bans so far: an engine may ban an honest peer that
    completed a piece together with a bad one."""
    from_other_zones: int | None = None
    """Payload bytes from peers of another zone than ours, or of none; None if we have no zone. As of the last
    `durable`."""


@dataclass(frozen=True, slots=True)
class PieceVerified:
    """A piece passed its hash check. It may not be readable from disk before the next `flush`."""

    piece: int


@dataclass(frozen=True, slots=True)
class PieceRejected:
    """A piece failed its hash check and will be downloaded again."""

    piece: int


@dataclass(frozen=True, slots=True)
class PeerBanned:
    """A peer presumably sent bad blocks, and was disconnected. `SwarmStatus.banned` also considers later bans."""

    address: str


@dataclass(frozen=True, slots=True)
class PeerUnreachable:
    """No connection to the peer at `address`, ADDRESS:PORT, could be made."""

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiskFailed:
    """A read or write failed, and the torrent stopped. To go on, remove it, and add it again with the pieces that are
    `durable`: others may count as verified, and were never written. `full`: no space left."""

    path: str
    message: str
    full: bool

    def error(self, more: str = "") -> LocalResource:
        """The error that explains it to the user; of a full disk with `more`. Blocks for a moment."""
        path = os.path.realpath(self.path) if self.path else ""  # the engine opens files through links
        return disk_full(path, more) if self.full else disk_failed(path, self.message)


@dataclass(frozen=True, slots=True)
class TrackerAnswered:
    """A tracker returned `peers` peers."""

    url: str
    peers: int


@dataclass(frozen=True, slots=True)
class TrackerFailed:
    """A tracker was unreachable or refused."""

    url: str
    message: str


@dataclass(frozen=True, slots=True)
class TrackerWarned:
    """A tracker's answer contains a warning; `message` has its text, perhaps among other words."""

    url: str
    message: str


Event = (
    PieceVerified
    | PieceRejected
    | PeerBanned
    | PeerUnreachable
    | DiskFailed
    | TrackerAnswered
    | TrackerFailed
    | TrackerWarned
)


class SwarmTorrent(Protocol):
    """One torrent in the engine."""

    @property
    def info_hash(self) -> str:
        """v2 info-hash, 64 hex digits (40 for a v1 torrent)."""

    def events(self) -> AsyncIterator[Event]:
        """Events from now on, in order, until the torrent is removed. One consumer."""

    def status(self) -> SwarmStatus:
        """The state as of the engine's last tick (at most a second old)."""

    async def connections(self) -> tuple[PeerConnection, ...]:
        """The connected peers; empty if the engine does not respond."""

    async def feed(self, piece: int, data: bytes) -> bool:
        """Pass all bytes of `piece` to the engine, as if from a peer. Returns after the engine's check whether it
        passed (True without a check for a piece that exists). Few pieces are in flight at a time; further calls wait.
        Raises NoSpace or LocalResource if the disk fails meanwhile."""

    async def durable(self) -> frozenset[int]:
        """Pieces that are verified and written to their files, to record for a restart. (`status().have` includes
        pieces that are still queued for the disk.)"""

    async def flush(self) -> None:
        """Return when every piece verified before the call is readable from its file. Raises NoSpace or LocalResource
        after a DiskFailed."""

    def set_sequential(self, on: bool) -> None:
        """Download pieces in their order, or rarest first (the default). Several engines do so each."""

    def prioritize(self, piece: int) -> None:
        """Request `piece`, a wanted one, before all that were not prioritized. Requests in progress come first."""

    def connect(self, address: str, port: int) -> None:
        """Connect to a peer directly, without a tracker."""

    @property
    def fits_web_seeds(self) -> bool:
        """Whether `set_web_seeds` may be called: some torrents lead to an error of the engine."""

    def set_web_seeds(self, seeds: WebSeeds) -> None:
        """Download from these HTTP servers as well, within a second, and from no others: those that are not named any
        more end at once. They count as peers of this node's zone with all pieces. Neither their addresses nor redirects
        are followed where the rule does not admit that. Several torrents share the strictest rule."""

    def announce(self) -> None:
        """Ask the trackers for peers now."""

    def set_trackers(self, trackers: tuple[str, ...]) -> None:
        """Replace all trackers, and announce to the new ones at once."""

    def renew(self, certificate: SwarmCertificate) -> None:
        """Present another certificate to peers from now on. Connections stay. Only for a private swarm."""

    def admit(self, admissions: Admissions) -> None:
        """Replace the admissions of a private swarm: connections to other addresses end at once."""

    async def remove(self) -> None:
        """Leave the swarm and announce that to the trackers; files stay. Returns when the engine has closed the
        files."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Recent payload bytes a second with all peers together."""

    upload: int
    download: int


class Engine(Protocol):
    """A BitTorrent engine bound to one address. `async with` starts and stops it."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...

    @property
    def address(self) -> tuple[str, int]:
        """Address and port that peers can connect to. Raises LocalResource from __aenter__ if it is in use."""

    @property
    def private_address(self) -> tuple[str, int]:
        """Address and port for peers of private swarms. Raises Unavailable before the first private torrent."""

    @property
    def peer_id(self) -> str:
        """Our peer id, 40 hex digits (BEP 3); different in each run."""

    async def add(self, request: AddTorrent) -> SwarmTorrent:
        """Join a swarm. Raises BadTorrent for unusable metainfo, InvalidInput for a torrent that was added before, and
        for a private one without a certificate; LocalResource if the engine cannot listen for private swarms."""

    @property
    def rates(self) -> Rates:
        """Current rates of all torrents together."""

    def limit(self, *, upload: int, download: int) -> None:
        """Set the limits in bytes a second, for all peers together (0: no limit)."""

    async def fetch_metainfo(self, magnet: str, *, peers: tuple[tuple[str, int], ...] = (), timeout: float) -> bytes:
        """The complete .torrent of a magnet, with piece layers, from its trackers and peers.

        Raises InvalidInput for a malformed magnet, and Unavailable if it did not come within `timeout` seconds.
        """


class EngineSource(Protocol):
    """Provides an engine that starts when it is first needed."""

    async def started(self) -> Engine:
        """The engine, running."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of an engine: listen address, rate limits in bytes a second (0: none), the zone for its handshake."""

    host: str = "127.0.0.1"
    port: int = 0
    upload_limit: int = 0
    download_limit: int = 0
    private_port: int = 0
    """Port for peers of private swarms, opened with the first private torrent."""
    zone: str = ""
    peer_timeout: float = 10.0
    """Seconds after which a peer that delivers nothing counts as gone for what it owes."""
    ca_file: Path | None = None
    """PEM file of authorities trusted for trackers over https, besides the system's."""
    peer_id: str = ""
    """40 hex digits; "": a new one."""
    engines: int = 1
    """How many engines of this node share its memory, connections and open files."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """Session settings by libtorrent name, for benchmarks."""
