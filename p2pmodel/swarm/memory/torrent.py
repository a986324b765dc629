"""One torrent of the in-memory engine."""

import asyncio
import contextlib
import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.errors import InvalidInput, Unavailable
from p2pmodel.swarm.engine import (
    AddTorrent,
    Admissions,
    DiskFailed,
    Event,
    PeerBanned,
    PieceRejected,
    PieceVerified,
    SwarmCertificate,
    SwarmStatus,
    WebSeeds,
)
from p2pmodel.swarm.events import EventStream
from p2pmodel.swarm.memory.web_seed import MemoryWebSeed
from p2pmodel.swarm.peer_ids import by_node
from p2pmodel.swarm.torrents import Metainfo


class MemoryTorrent:
    """A SwarmTorrent. Its task copies missing pieces from connected peers."""

    def __init__(
        self,
        metainfo: Metainfo,
        request: AddTorrent,
        *,
        address: tuple[str, int],
        peer_id: str,
        zone: str = "",
        announce: Callable[["MemoryTorrent"], None],
        leave: Callable[["MemoryTorrent"], None],
        dial: Callable[["MemoryTorrent", tuple[str, int]], None],
    ) -> None:
        self.metainfo = metainfo
        self.trackers = request.trackers
        self.address, self.port = address
        self.peer_id = peer_id
        self.zone = zone
        self._announce = announce
        self._leave = leave
        self._dial = dial
        self._paths = {
            index: request.save_path / request.files.get(index, f"{metainfo.manifest.commit}/{file.path}")
            for index, file in zip(metainfo.file_indexes, metainfo.manifest.files, strict=True)
        }
        self.have = set(request.have)
        self._wanted = self._pieces_of(request.wanted)
        if request.pieces is not None:
            self._wanted &= request.pieces
        self._in_order = False
        self._prioritized: set[int] = set()
        self.peers: list[MemoryTorrent] = []
        self._web_seeds = self._servers(request.web_seeds, {})
        self.received: Counter[MemoryTorrent] = Counter()
        """Bytes by the peer that sent them."""
        self.banned: set[str] = set()
        self._admissions = request.admissions
        self._counts = {"down": 0, "up": 0, "wasted": 0, "crossed": 0}
        self._failure: DiskFailed | None = None
        self._removed = False
        self._events = EventStream()
        self._disk = asyncio.Lock()
        self.wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the download."""
        self._task = asyncio.create_task(self._run())

    @property
    def info_hash(self) -> str:
        return self.metainfo.info_hash

    def events(self) -> AsyncIterator[Event]:
        return self._events.open()

    def status(self) -> SwarmStatus:
        count = self.metainfo.layout.piece_count
        return SwarmStatus(
            have=frozenset(self.have),
            availability=tuple(
                len(self._web_seeds) + sum(piece in peer.have for peer in self.peers) for piece in range(count)
            ),
            peers=len(self.peers) + len(self._web_seeds),
            seeds=len(self._web_seeds) + sum(len(peer.have) == count for peer in self.peers),
            downloaded=self._counts["down"],
            uploaded=self._counts["up"],
            wasted=self._counts["wasted"],
            download_rate=0,
            upload_rate=0,
            banned=frozenset(self.banned),
            from_other_zones=self._counts["crossed"] if self.zone else None,
        )

    async def connections(self) -> tuple[PeerConnection, ...]:
        seeders = [
            PeerConnection(each.address, "seeder", zone=self.zone, downloaded=each.received)
            for each in self._web_seeds.values()
        ]
        return by_node([*seeders, *(self._connection(peer) for peer in self.peers)])

    async def feed(self, piece: int, data: bytes) -> bool:
        self._check_live()
        self._raise_failure()
        if piece in self.have:
            return True
        return await self._take(piece, data)

    async def durable(self) -> frozenset[int]:
        self._check_live()
        return frozenset(self.have)

    async def flush(self) -> None:
        async with self._disk:
            self._check_live()
            self._raise_failure()

    def set_sequential(self, on: bool) -> None:
        self._check_live()
        self._in_order = on

    def prioritize(self, piece: int) -> None:
        self._check_live()
        self._prioritized.add(piece)

    def connect(self, address: str, port: int) -> None:
        self._check_live()
        self._dial(self, (address, port))

    @property
    def fits_web_seeds(self) -> bool:
        return True

    def set_web_seeds(self, seeds: WebSeeds) -> None:
        self._check_live()
        self._web_seeds = self._servers(seeds, self._web_seeds)
        self.wake.set()

    def announce(self) -> None:
        self._check_live()
        self._announce(self)

    def set_trackers(self, trackers: tuple[str, ...]) -> None:
        self._check_live()
        self.trackers = trackers
        self._announce(self)

    def renew(self, certificate: SwarmCertificate) -> None:
        self._check_private()
        assert certificate.certificate

    def admit(self, admissions: Admissions) -> None:
        self._check_private()
        self._admissions = admissions
        for peer in [each for each in self.peers if not self.admits(each)]:
            self._disconnect(peer)

    def admits(self, peer: "MemoryTorrent") -> bool:
        """Whether the address of `peer` may exchange with this torrent."""
        if self.metainfo.authority is None:
            return True
        return peer.address in self._admissions.admitted - self._admissions.barred

    async def remove(self) -> None:
        if self._removed:
            return
        self._removed = True
        self._leave(self)
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for peer in self.peers:
            peer.peers.remove(self)
        self.peers.clear()
        self._events.close()

    def meet(self, peer: "MemoryTorrent") -> None:
        """Connect the two torrents, unless one has banned the other."""
        if peer in self.peers or peer.address in self.banned or self.address in peer.banned:
            return
        if not (self.admits(peer) and peer.admits(self)):
            return
        self.peers.append(peer)
        peer.peers.append(self)
        self.wake.set()
        peer.wake.set()

    def emit(self, event: Event) -> None:
        """Add an event."""
        self._events.put(event)

    async def _run(self) -> None:
        while True:
            self.wake.clear()
            while not self._failure and (choice := self._choose()):
                await self._fetch(*choice)
            if self._web_seeds and not self._failure and (missing := self._wanted - self.have):
                await self._fetch_over_http(min(missing))
                continue
            await self.wake.wait()

    def _connection(self, peer: "MemoryTorrent") -> PeerConnection:
        return PeerConnection(
            address=str(ListenAddress(peer.address, peer.port)),
            kind="peer",
            peer_id=peer.peer_id,
            zone=peer.zone,
            progress=len(peer.have) / self.metainfo.layout.piece_count,
            downloaded=self.received[peer],
            uploaded=peer.received[self],
        )

    def _choose(self) -> tuple[int, "MemoryTorrent"] | None:
        """The next wanted piece that a peer has, and that peer."""
        missing = self._wanted - self.have
        found = {piece: [peer for peer in self.peers if piece in peer.have] for piece in missing}
        turns = (self._turn(piece, len(peers)) for piece, peers in found.items() if peers)
        first = min(turns, default=None)
        return (first[-1], found[first[-1]][0]) if first else None

    def _turn(self, piece: int, holders: int) -> tuple[bool, int, int]:
        return piece not in self._prioritized, 0 if self._in_order else holders, piece

    async def _fetch(self, piece: int, peer: "MemoryTorrent") -> None:
        data = await peer.serve(piece)
        if data is None:
            self._disconnect(peer)
            return
        self._counts["down"] += len(data)
        self.received[peer] += len(data)
        self._counts["crossed"] += len(data) if peer.zone != self.zone else 0
        if not await self._take(piece, data) and not self._failure:
            self._counts["wasted"] += len(data)
            self.banned.add(peer.address)
            self._disconnect(peer)
            self.emit(PeerBanned(peer.address))

    def _servers(self, seeds: WebSeeds, before: Mapping[str, MemoryWebSeed]) -> dict[str, MemoryWebSeed]:
        return {url: before.get(url) or MemoryWebSeed(self.metainfo, url, seeds.egress) for url in seeds.urls}

    async def _fetch_over_http(self, piece: int) -> None:
        """Fetch a piece that no peer has."""
        url, seed = next(iter(self._web_seeds.items()))
        data = await asyncio.to_thread(seed.read, piece)
        if url not in self._web_seeds:
            return
        if data is not None:
            self._counts["down"] += len(data)
            if await self._take(piece, data) or self._failure:
                return
            self._counts["wasted"] += len(data)
        del self._web_seeds[url]

    async def serve(self, piece: int) -> bytes | None:
        """The bytes of `piece` for a peer, right or wrong; None if they cannot be read."""
        try:
            async with self._disk:
                path, offset, length = self._place(piece)
                data = await asyncio.to_thread(_read, path, offset, length)
        except OSError as error:
            self._fail(error)
            return None
        self._counts["up"] += len(data)
        return data

    async def _take(self, piece: int, data: bytes) -> bool:
        if not await asyncio.to_thread(self.metainfo.accepts, piece, data):
            self.emit(PieceRejected(piece))
            return False
        try:
            async with self._disk:
                path, offset, _ = self._place(piece)
                await asyncio.to_thread(_write, path, offset, data)
        except OSError as error:
            self._fail(error)
            return False
        if piece not in self.have:
            self.have.add(piece)
            self.emit(PieceVerified(piece))
        for peer in self.peers:
            peer.wake.set()
        return True

    def _fail(self, error: OSError) -> None:
        if not self._failure:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            self._failure = DiskFailed(str(error.filename or ""), error.strerror or str(error), full)
            self.emit(self._failure)

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure.error()

    def _disconnect(self, peer: "MemoryTorrent") -> None:
        if peer in self.peers:
            self.peers.remove(peer)
            peer.peers.remove(self)

    def _pieces_of(self, files: frozenset[int] | None) -> frozenset[int]:
        spans = zip(self.metainfo.file_indexes, self.metainfo.layout.spans, strict=True)
        return frozenset(piece for index, span in spans if files is None or index in files for piece in span.pieces)

    def _place(self, piece: int) -> tuple[Path, int, int]:
        place = self.metainfo.layout.piece_range(piece)
        return self._paths[self.metainfo.file_indexes[place.span.index]], place.offset, place.length

    def _check_private(self) -> None:
        self._check_live()
        if self.metainfo.authority is None:
            raise InvalidInput("certificates and admissions are for private swarms alone")

    def _check_live(self) -> None:
        if self._removed:
            raise Unavailable("the torrent has left the swarm")


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _write(path: Path, offset: int, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Engines of one node write to the same file at the same time: its opening must not cut what another has written.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        file.seek(offset)
        file.write(data)
