"""One torrent in several engines of a node.

Each engine downloads, feeds and serves the pieces with its number: the index of the piece modulo their count. An engine
cannot be told of a piece that another one has written. So once all wanted pieces are here, one engine after another
leaves the swarm and joins again with all of them: from then on each serves everything.

Invariant: no piece is wanted by two engines, so no two write to the same place of a file.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.errors import InvalidInput, P2PModelError, Unavailable
from p2pmodel.swarm.engine import (
    AddTorrent,
    Admissions,
    DiskFailed,
    Engine,
    Event,
    PeerBanned,
    PieceVerified,
    SwarmCertificate,
    SwarmStatus,
    SwarmTorrent,
    TrackerAnswered,
    TrackerFailed,
    WebSeeds,
)
from p2pmodel.swarm.events import EventStream
from p2pmodel.swarm.peer_ids import by_node
from p2pmodel.swarm.split.named_peers import NamedPeers
from p2pmodel.swarm.torrents import Metainfo

WHOLE_AFTER = 30.0
"""Seconds with all wanted pieces after which the engines join again, one after another: most others have ended then,
and miss no peer for the second that it takes."""
DIAL_EVERY = 0.2


@dataclass(slots=True)
class _Totals:
    downloaded: int = 0
    uploaded: int = 0
    wasted: int = 0
    crossed: int = 0


@dataclass
class _Share:
    """The torrent in one engine. `using` it prevents that it is replaced meanwhile."""

    engine: Engine
    number: int
    torrent: SwarmTorrent | None = None
    have: frozenset[int] = frozenset()
    """What it had when it left, until it has joined again."""
    before: _Totals = field(default_factory=_Totals)
    """Bytes of its earlier times in the swarm."""
    forwarding: asyncio.Task[None] | None = None
    lost: bool = False
    """It left, and could not join again."""
    users: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @contextlib.asynccontextmanager
    async def using(self) -> AsyncIterator[SwarmTorrent]:
        """The torrent, once it is there. Raises Unavailable if it is lost."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.torrent is not None or self.lost)
            torrent = self.torrent
            if torrent is None:
                raise Unavailable("an engine could not join the swarm again")
            self.users += 1
        try:
            yield torrent
        finally:
            async with self.changed:
                self.users -= 1
                self.changed.notify_all()

    async def take(self) -> SwarmTorrent:
        """Take the torrent out, once nothing uses it."""
        async with self.changed:
            await self.changed.wait_for(lambda: not self.users)
            torrent, self.torrent = self.torrent, None
            assert torrent is not None, "no other task takes it"
            status = torrent.status()
            self.have = status.have
            self.before.downloaded += status.downloaded
            self.before.uploaded += status.uploaded
            self.before.wasted += status.wasted
            self.before.crossed += status.from_other_zones or 0
        return torrent

    async def put(self, torrent: SwarmTorrent | None) -> None:
        """Use this torrent from now on; None: there is none any more."""
        async with self.changed:
            self.torrent, self.lost = torrent, torrent is None
            self.changed.notify_all()


class SplitTorrent:
    """A SwarmTorrent. `engines` have disjoint parts of it."""

    def __init__(
        self, metainfo: Metainfo, request: AddTorrent, engines: Sequence[Engine], *, on_removed: Callable[[], object]
    ) -> None:
        self._info_hash = metainfo.info_hash
        self._piece_count = metainfo.layout.piece_count
        self._request = request
        self._on_removed = on_removed
        self._shares = [_Share(engine, number) for number, engine in enumerate(engines)]
        self._missing = set(_wanted(metainfo, request) - request.have)
        self._failure: DiskFailed | None = None
        self._banned: set[str] = set()
        self._removed = False
        self._events = EventStream()
        self._early: AsyncIterator[Event] | None = self._events.open()
        """Events before the caller had the torrent: those of the first engine, while the others joined."""
        self._named_peers = NamedPeers(len(engines))
        self._dialer: asyncio.Task[None] | None = None
        self._whole: asyncio.Task[None] | None = None
        self._joining_again = False

    async def join(self) -> None:
        """Join the swarm with all engines. Raises as `Engine.add`, and is in none then."""
        have, count = self._request.have, len(self._shares)
        try:
            for share in self._shares:
                own = frozenset(piece for piece in have if piece % count == share.number) if self._missing else have
                await self._add(share, own)
        except BaseException:
            await self._leave()
            raise
        for host, port in self._request.peers:
            self._dial(host, port)
        asyncio.get_running_loop().call_soon(self._drop_early)

    @property
    def info_hash(self) -> str:
        return self._info_hash

    def events(self) -> AsyncIterator[Event]:
        early, self._early = self._early, None
        return early or self._events.open()

    def status(self) -> SwarmStatus:
        statuses = [(share, share.torrent.status()) for share in self._shares if share.torrent is not None]
        availability = [0] * self._piece_count
        for share, status in statuses:
            own = slice(share.number, None, len(self._shares))
            availability[own] = status.availability[own]
        found = [status for _, status in statuses]
        peers = max((each.peers for each in found), default=0)
        crossed = sum(share.before.crossed for share in self._shares)
        zones = [each.from_other_zones for each in found]
        return SwarmStatus(
            have=frozenset().union(*(share.have for share in self._shares), *(each.have for each in found)),
            availability=tuple(availability),
            peers=peers,
            seeds=peers - max((each.peers - each.seeds for each in found), default=0),
            downloaded=sum(s.before.downloaded for s in self._shares) + sum(each.downloaded for each in found),
            uploaded=sum(s.before.uploaded for s in self._shares) + sum(each.uploaded for each in found),
            wasted=sum(s.before.wasted for s in self._shares) + sum(each.wasted for each in found),
            download_rate=sum(each.download_rate for each in found),
            upload_rate=sum(each.upload_rate for each in found),
            banned=frozenset().union(*(each.banned for each in found)),
            from_other_zones=None if None in zones else sum(zone or 0 for zone in zones) + crossed,
        )

    async def connections(self) -> tuple[PeerConnection, ...]:
        return by_node(connection for each in await self._all_connections() for connection in each)

    async def feed(self, piece: int, data: bytes) -> bool:
        self._check_live()
        if self._failure:
            raise self._failure.error()
        async with self._shares[piece % len(self._shares)].using() as torrent:
            return await torrent.feed(piece, data)

    async def durable(self) -> frozenset[int]:
        self._check_live()

        async def of(share: _Share) -> frozenset[int]:
            if share.lost:
                return share.have
            async with share.using() as torrent:
                return await torrent.durable()

        return frozenset().union(*await asyncio.gather(*map(of, self._shares)))

    async def flush(self) -> None:
        self._check_live()

        async def of(share: _Share) -> None:
            async with share.using() as torrent:
                await torrent.flush()

        if self._failure:
            raise self._failure.error()
        ends = await asyncio.gather(*(of(each) for each in self._shares if not each.lost), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    def set_sequential(self, on: bool) -> None:
        for torrent in self._live():
            torrent.set_sequential(on)

    def prioritize(self, piece: int) -> None:
        self._check_live()
        torrent = self._shares[piece % len(self._shares)].torrent
        if torrent is not None:
            torrent.prioritize(piece)

    def connect(self, address: str, port: int) -> None:
        self._check_live()
        first = self._shares[0].torrent
        if first is not None:
            first.connect(address, port)
            self._dial(address, port)

    @property
    def fits_web_seeds(self) -> bool:
        return all(torrent.fits_web_seeds for torrent in self._live())

    def set_web_seeds(self, seeds: WebSeeds) -> None:
        self._request = replace(self._request, web_seeds=seeds)
        for torrent in self._live():
            torrent.set_web_seeds(seeds)

    def announce(self) -> None:
        for torrent in self._live():
            torrent.announce()

    def set_trackers(self, trackers: tuple[str, ...]) -> None:
        self._request = replace(self._request, trackers=trackers)
        for torrent in self._live():
            torrent.set_trackers(trackers)

    def renew(self, certificate: SwarmCertificate) -> None:  # noqa: ARG002
        raise InvalidInput("certificates and admissions are for private swarms alone")

    def admit(self, admissions: Admissions) -> None:  # noqa: ARG002
        raise InvalidInput("certificates and admissions are for private swarms alone")

    async def remove(self) -> None:
        if self._removed:
            return
        self._removed = True
        await self._leave()
        self._on_removed()

    async def _leave(self) -> None:
        for task in (self._dialer, self._whole):
            if task is not None:
                if task is not self._whole or not self._joining_again:  # that ends by itself, within seconds
                    task.cancel()
                await asyncio.wait({task})
        await asyncio.gather(*(share.torrent.remove() for share in self._shares if share.torrent is not None))
        # Their events end with the torrents; the last ones are passed on before ours end.
        if forwarding := {share.forwarding for share in self._shares if share.forwarding is not None}:
            await asyncio.wait(forwarding)
        self._events.close()

    async def _add(self, share: _Share, have: frozenset[int]) -> None:
        count = len(self._shares)
        some = range(share.number, self._piece_count, count)
        pieces = frozenset(some) if self._request.pieces is None else self._request.pieces & frozenset(some)
        peers = () if share.number else self._request.peers
        torrent = await share.engine.add(replace(self._request, have=have, pieces=pieces, peers=peers))
        share.forwarding = asyncio.create_task(self._forward(share, torrent.events()))
        await share.put(torrent)

    async def _forward(self, share: _Share, events: AsyncIterator[Event]) -> None:
        async for event in events:
            match event:
                case PieceVerified(piece):
                    self._arrived(piece)
                case DiskFailed() if self._failure:
                    continue
                case DiskFailed():
                    self._failure = event
                case PeerBanned(address) if address in self._banned:
                    continue
                case PeerBanned(address):
                    self._banned.add(address)
                case TrackerAnswered() | TrackerFailed() if share.number:
                    continue  # they announce to the same trackers
            self._events.put(event)

    def _arrived(self, piece: int) -> None:
        if piece in self._missing:
            self._missing.remove(piece)
            if not self._missing and not self._removed:
                with contextlib.suppress(Unavailable):
                    self.announce()  # trackers learn that this node has all pieces
                self._whole = asyncio.create_task(self._join_whole())

    async def _join_whole(self) -> None:
        """Let each engine serve all pieces."""
        await asyncio.sleep(WHOLE_AFTER)
        with contextlib.suppress(P2PModelError):  # a disk that fails: it goes on as it is
            everything = await self.durable()
            for share in self._shares:
                self._joining_again = True
                if not self._removed:
                    await self._join_again(share, everything)
                self._joining_again = False

    async def _join_again(self, share: _Share, have: frozenset[int]) -> None:
        torrent = await share.take()
        try:
            await torrent.remove()
            await self._add(share, have)
        except P2PModelError:
            await share.put(None)
            raise
        share.have = frozenset()

    def _dial(self, host: str, port: int) -> None:
        self._named_peers.name(host, port, asyncio.get_running_loop().time())
        if self._dialer is None or self._dialer.done():
            self._dialer = asyncio.create_task(self._dial_others())

    async def _dial_others(self) -> None:
        """Connect the engines to the fitting ones of the peers that were named."""
        while self._named_peers.pending:
            await asyncio.sleep(DIAL_EVERY)
            connections = await self._all_connections()
            with contextlib.suppress(Unavailable):  # while an engine joins again
                for number, host, port in self._named_peers.due(connections, asyncio.get_running_loop().time()):
                    torrent = self._shares[number].torrent
                    if torrent is not None:
                        torrent.connect(host, port)

    async def _all_connections(self) -> list[tuple[PeerConnection, ...]]:
        async def of(share: _Share) -> tuple[PeerConnection, ...]:
            return () if share.torrent is None else await share.torrent.connections()

        return await asyncio.gather(*map(of, self._shares))

    def _drop_early(self) -> None:
        if self._early is not None:
            self._early = None
            self._events.drop()

    def _live(self) -> list[SwarmTorrent]:
        self._check_live()
        return [share.torrent for share in self._shares if share.torrent is not None]

    def _check_live(self) -> None:
        if self._removed:
            raise Unavailable("the torrent has left the swarm")


def _wanted(metainfo: Metainfo, request: AddTorrent) -> frozenset[int]:
    spans = zip(metainfo.file_indexes, metainfo.layout.spans, strict=True)
    files = request.wanted
    found = frozenset(piece for index, span in spans if files is None or index in files for piece in span.pieces)
    return found if request.pieces is None else found & request.pieces
