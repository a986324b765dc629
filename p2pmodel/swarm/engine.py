"""The swarm port: what the rest of p2pmodel asks of a BitTorrent engine, and nothing more.

`libtorrent_engine` is the real one, `memory` the in-memory twin; one contract suite holds both to these words.
All methods are called from one event loop. Nothing blocks it; every awaitable is bounded by the engine's own
timeouts and raises Unavailable when the engine does not answer.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from p2pmodel.core.connections import PeerConnection
from p2pmodel.errors import LocalResource
from p2pmodel.os_errors import disk_failed, disk_full


@dataclass(frozen=True, slots=True)
class AddTorrent:
    """What to join and where its bytes lie.

    `files` maps the torrent's file index (pad files counted as libtorrent counts them) to a path: absolute, or
    relative to `save_path`; a file it leaves out lies at its own path below the torrent's name. Empty files are not
    created. `have` are the pieces known to be on disk and right: they are neither hashed again nor downloaded;
    whatever else lies in the files is not looked at and downloaded over. `wanted` are the file indexes to download
    (None: all), `pieces` those that are worth it (None: all, as after `want`). `trackers` are announced to, all of
    them; the trackers and webseeds that the torrent itself names are not used.
    """

    metainfo: bytes
    save_path: Path
    files: Mapping[int, str]
    have: frozenset[int] = frozenset()
    wanted: frozenset[int] | None = None
    pieces: frozenset[int] | None = None
    trackers: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()


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
    """Payload bytes from peers that failed the hash check or came twice."""
    download_rate: int
    upload_rate: int
    banned: frozenset[str] = frozenset()
    """Addresses of peers believed to send bad blocks, all bans so far weighed: an engine may ban an honest peer that
    filled a piece together with a bad one."""
    from_other_zones: int | None = None
    """Payload bytes from peers that named another zone than ours, or none; None while we have none. As of the last
    `durable` or `rename`."""


@dataclass(frozen=True, slots=True)
class PieceVerified:
    """A piece passed its hash check. It may not be readable from disk yet: `flush` or `rename` fence it."""

    piece: int


@dataclass(frozen=True, slots=True)
class PieceRejected:
    """A piece failed its hash check and will be downloaded again."""

    piece: int


@dataclass(frozen=True, slots=True)
class PeerBanned:
    """A peer sent bad blocks, as far as can be told, and was disconnected. `SwarmStatus.banned` is the verdict in the
    light of all later bans."""

    address: str


@dataclass(frozen=True, slots=True)
class DiskFailed:
    """Reading or writing failed and the torrent has stopped; `resume` retries. `full`: no space left."""

    path: str
    message: str
    full: bool

    def error(self, more: str = "") -> LocalResource:
        """The error that explains it to the user; of a full disk with `more`."""
        return disk_full(self.path, more) if self.full else disk_failed(self.path, self.message)


@dataclass(frozen=True, slots=True)
class TrackerAnswered:
    """A tracker announced `peers` peers."""

    url: str
    peers: int


@dataclass(frozen=True, slots=True)
class TrackerFailed:
    """A tracker could not be reached or refused."""

    url: str
    message: str


Event = PieceVerified | PieceRejected | PeerBanned | DiskFailed | TrackerAnswered | TrackerFailed


class SwarmTorrent(Protocol):
    """One torrent in the engine."""

    @property
    def info_hash(self) -> str:
        """v2 info-hash, 64 hex digits (40 for a v1 torrent)."""

    def events(self) -> AsyncIterator[Event]:
        """Events from now on, in order; ends when the torrent is removed. One consumer."""

    def status(self) -> SwarmStatus:
        """The state as of the engine's last tick (at most a second old)."""

    async def connections(self) -> tuple[PeerConnection, ...]:
        """The peers that are connected now; none while the engine does not say."""

    async def feed(self, piece: int, data: bytes) -> bool:
        """Hand the whole of `piece` to the engine, as if a peer had sent it. Returns, once the engine has checked it,
        whether it passed (True for a piece already there, which is not looked at). Few pieces are in flight at a
        time: further calls wait their turn. Raises NoSpace or LocalResource when the disk fails meanwhile."""

    async def durable(self) -> frozenset[int]:
        """Pieces that are verified and written to their files: what may be recorded for a restart. (`status().have`
        also counts pieces still queued for the disk.)"""

    async def flush(self) -> None:
        """Return once every piece verified before the call can be read from its file. Raises NoSpace or LocalResource
        after a DiskFailed."""

    async def rename(self, files: Mapping[int, Path]) -> None:
        """Move files of the torrent, replacing what is at their paths. Once it returns, each file is at its path, holds
        every byte verified before the call, and is served from there. Raises LocalResource when one cannot be moved;
        the others are."""

    def take_in_order(self, on: bool) -> None:
        """Download pieces in their order, or rarest first, as from the start."""

    def bring_first(self, piece: int) -> None:
        """Ask peers for `piece`, which is wanted, before any that was not named like this. What is asked already comes
        before it."""

    def connect(self, address: str, port: int) -> None:
        """Connect to a peer without asking a tracker."""

    def announce(self) -> None:
        """Ask the trackers for peers now."""

    def announce_to(self, trackers: tuple[str, ...]) -> None:
        """From now on these are its trackers, all of them, and they are told of it at once."""

    async def resume(self) -> None:
        """Go on after a DiskFailed. Pieces that passed but never reached the disk leave `have`, are downloaded again,
        and told as PieceVerified again."""

    async def remove(self) -> None:
        """Leave the swarm, telling the trackers; files stay. Returns when the engine has let go of the files."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes of content a second with all peers together, as of late."""

    upload: int
    download: int


class Engine(Protocol):
    """A BitTorrent engine bound to one address. `async with` starts and stops it."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...

    @property
    def address(self) -> tuple[str, int]:
        """Address and port that peers can connect to. Raises LocalResource from __aenter__ when it is taken."""

    @property
    def peer_id(self) -> str:
        """By what peers know us, as 40 hex digits (BEP 3); another in each run."""

    async def add(self, request: AddTorrent) -> SwarmTorrent:
        """Join a swarm. Raises BadTorrent for metainfo the engine refuses, InvalidInput for a torrent it has."""

    @property
    def rates(self) -> Rates:
        """How much it exchanges."""

    def limit(self, *, upload: int, download: int) -> None:
        """From now on exchange at most so many bytes a second with all peers together (0: no limit)."""

    async def fetch_metainfo(self, magnet: str, *, peers: tuple[tuple[str, int], ...] = (), timeout: float) -> bytes:
        """The complete .torrent, piece layers included, that a magnet stands for; from its trackers and peers.

        Raises InvalidInput for a malformed magnet and Unavailable when nobody has it within `timeout` seconds.
        """


class EngineSource(Protocol):
    """Provides an engine that starts when it is first needed."""

    async def started(self) -> Engine:
        """The engine, running."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How an engine takes part: listen address, rate limits in bytes a second (0: none), the zone it tells peers."""

    host: str = "127.0.0.1"
    port: int = 0
    upload_limit: int = 0
    download_limit: int = 0
    zone: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)
    """Session settings by libtorrent name, for benchmarks."""
