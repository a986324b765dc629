"""In-memory double of the swarm engine: real files, no sockets, one process.

Engines on one MemoryNetwork find each other by address or by a common tracker URL. Pieces are copied from a peer's file
one at a time, rarest first, and checked as in the real engine: a peer with wrong bytes is banned. `dead_trackers` do
not respond.
"""

import asyncio
from itertools import count
from typing import Self

from p2pmodel.errors import InvalidInput, LocalResource, Unavailable
from p2pmodel.swarm.engine import AddTorrent, EngineSettings, Rates, TrackerAnswered, TrackerFailed, TrackerWarned
from p2pmodel.swarm.magnet import parse_magnet
from p2pmodel.swarm.memory.torrent import MemoryTorrent
from p2pmodel.swarm.peer_ids import engine_number, new_peer_id, node_of
from p2pmodel.swarm.torrents import parse

Address = tuple[str, int]


class MemoryNetwork:
    """State shared by MemoryEngines: their addresses, and the announces to each tracker."""

    def __init__(self) -> None:
        self.engines: dict[Address, MemoryEngine] = {}
        self.swarms: dict[tuple[str, str], list[MemoryTorrent]] = {}
        """By (tracker, info-hash)."""
        self.dead_trackers: set[str] = set()
        self.warnings: dict[str, str] = {}
        """By URL of the tracker."""
        self._ports = count(40_000)

    def listen(self, engine: "MemoryEngine", host: str, port: int) -> Address:
        """Register `engine` at an address. Raises LocalResource if it is in use."""
        address = (host, port or next(self._ports))
        if address in self.engines:
            raise LocalResource(f"peers cannot reach us at {host}:{port}: address in use", hint="choose another port")
        self.engines[address] = engine
        return address

    def at(self, address: Address, info_hash: str) -> MemoryTorrent | None:
        """The torrent of the engine at `address`; None without one."""
        engine = self.engines.get(address)
        return engine.torrents.get(info_hash) if engine else None


class MemoryEngine:
    """An Engine without a network."""

    def __init__(self, network: MemoryNetwork, settings: EngineSettings | None = None) -> None:
        self.torrents: dict[str, MemoryTorrent] = {}
        self.limits = (0, 0)
        """Bytes a second up and down; stored, but without effect."""
        self._network = network
        self._settings = settings or EngineSettings()
        self._address: Address | None = None
        self._peer_id = self._settings.peer_id or new_peer_id()
        self._has_private = False

    async def __aenter__(self) -> Self:
        self._address = self._network.listen(self, self._settings.host, self._settings.port)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.gather(*(torrent.remove() for torrent in list(self.torrents.values())))
        if self._address:
            del self._network.engines[self._address]
        self._address = None

    @property
    def address(self) -> Address:
        if self._address is None:
            raise Unavailable("the swarm engine is not running")
        return self._address

    @property
    def private_address(self) -> Address:
        if not self._has_private:
            raise Unavailable("the swarm engine has no private swarm")
        return self.address

    @property
    def peer_id(self) -> str:
        return self._peer_id

    async def add(self, request: AddTorrent) -> MemoryTorrent:
        metainfo = await asyncio.to_thread(parse, request.metainfo)
        if metainfo.info_hash in self.torrents:
            raise InvalidInput(f"the torrent {metainfo.info_hash} is in the swarm engine already")
        if metainfo.authority is not None:
            if request.certificate is None:
                raise InvalidInput("a private swarm admits no peer without a certificate")
            self._has_private = True
        torrent = MemoryTorrent(
            metainfo,
            request,
            address=self.address,
            peer_id=self._peer_id,
            zone=self._settings.zone,
            announce=self._announce,
            leave=self._leave,
            dial=self._connect,
        )
        self.torrents[metainfo.info_hash] = torrent
        torrent.start()
        asyncio.get_running_loop().call_soon(self._announce, torrent)
        for peer in request.peers:
            self._connect(torrent, peer)
        return torrent

    @property
    def rates(self) -> Rates:
        return Rates(0, 0)

    def limit(self, *, upload: int, download: int) -> None:
        if self._address is None:
            raise Unavailable("the swarm engine is not running")
        self.limits = (upload, download)

    async def fetch_metainfo(self, magnet: str, *, peers: tuple[Address, ...] = (), timeout: float) -> bytes:
        wanted = parse_magnet(magnet)
        try:
            async with asyncio.timeout(timeout):
                while (found := self._holder(wanted.info_hash, wanted.trackers, peers)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(min(0.01, timeout))
        except TimeoutError:
            raise Unavailable(f"no peer sent the magnet's torrent within {timeout:g} seconds") from None
        return found.metainfo.raw

    def _holder(self, info_hash: str, trackers: tuple[str, ...], peers: tuple[Address, ...]) -> MemoryTorrent | None:
        known = [self.torrents.get(info_hash), *(self._network.at(peer, info_hash) for peer in peers)]
        for url in set(trackers) - self._network.dead_trackers:
            known += self._network.swarms.get((url, info_hash), [])
        return next((torrent for torrent in known if torrent), None)

    def _announce(self, torrent: MemoryTorrent) -> None:
        if torrent.info_hash not in self.torrents:
            return
        for announced in torrent.trackers:
            url = announced.partition("?")[0]  # without the query, which describes this node
            if url in self._network.dead_trackers:
                torrent.emit(TrackerFailed(announced, "connection refused"))
                continue
            swarm = self._network.swarms.setdefault((url, torrent.info_hash), [])
            others = [peer for peer in swarm if _are_listed(torrent.peer_id, peer.peer_id)]
            if torrent not in swarm:
                swarm.append(torrent)
            if warning := self._network.warnings.get(url):
                torrent.emit(TrackerWarned(announced, warning))
            torrent.emit(TrackerAnswered(announced, len(others)))
            for peer in others:
                torrent.meet(peer)

    def _connect(self, torrent: MemoryTorrent, peer: Address) -> None:
        other = self._network.at(peer, torrent.info_hash)
        if other and other is not torrent:
            torrent.meet(other)

    def _leave(self, torrent: MemoryTorrent) -> None:
        self.torrents.pop(torrent.info_hash, None)
        for swarm in self._network.swarms.values():
            if torrent in swarm:
                swarm.remove(torrent)


def _are_listed(one: str, other: str) -> bool:
    """Whether a tracker lists these peers to each other: of two nodes, and with common pieces."""
    first, second = bytes.fromhex(one), bytes.fromhex(other)
    return node_of(first) != node_of(second) and engine_number(first).has_use_for(engine_number(second))
