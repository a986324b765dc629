"""Leases over a WebSocket: GET /leases/<info-hash>?peer=ADDRESS:PORT&id=ID. The messages are `domain/lease_messages`.

A connection is a peer's presence: when it breaks, what the peer had leased goes to another at once. Who comes back with
the `id` of before is the same peer, whose connection of before is over.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from p2pmodel.domain.lease_messages import HEARTBEAT, MAX_MESSAGE, Word, parse_demand, word_text
from p2pmodel.domain.leases import Grant, Leases
from p2pmodel.domain.names import printable
from p2pmodel.domain.sources import Sources
from p2pmodel.errors import InvalidInput
from p2pmodel.service.catalog import Catalog
from p2pmodel.service.publication import Publication

GATHER = 0.01
"""Seconds in which the words of several peers are taken together before anything is granted."""
SEND_TIMEOUT = 5.0
"""Seconds in which a peer must take a message."""
LATE = 3.0
"""Seconds after the first peer of a swarm from which on who comes finds pieces at others."""
MAX_PEERS = 10_000
"""Peers of one swarm."""


@dataclass(eq=False, slots=True)
class _Peer:
    """One connection. `word` is what the peer is to know; `speaking` sends it when that is news."""

    request: web.Request
    socket: web.WebSocketResponse
    came: float
    word: Word | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    speaking: asyncio.Task[None] | None = None

    def hang_up(self) -> None:
        """Break the connection without a word."""
        if self.request.transport:
            self.request.transport.abort()


@dataclass(slots=True)
class _Swarm:
    leases: Leases
    peers: dict[str, _Peer] = field(default_factory=dict)
    granting: asyncio.Task[None] | None = None


class LeaseRoutes:
    """The handler, and the leases of every swarm that somebody is in. `is_held` tells whether others than its sources
    have all of a torrent; `budget` as in `Leases`."""

    def __init__(
        self,
        catalog: Catalog,
        sources: Sources,
        *,
        is_held: Callable[[str], bool] = lambda _: False,
        budget: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._sources = sources
        self._is_held = is_held
        self._budget = budget
        self._clock = clock
        self._closing = False
        self._swarms: dict[str, _Swarm] = {}
        self._numbers = itertools.count()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A peer of one swarm, for as long as it stays. Raises NotFound for a torrent that is not in the catalog."""
        publication = self._catalog.by_info_hash(request.match_info["info_hash"].lower())
        known = self._swarms.get(publication.info_hash)
        if known and len(known.peers) >= MAX_PEERS:
            raise InvalidInput(f"this swarm has {MAX_PEERS} peers already")
        socket = web.WebSocketResponse(heartbeat=10 * HEARTBEAT, max_msg_size=MAX_MESSAGE, timeout=SEND_TIMEOUT)
        await socket.prepare(request)
        identity = request.query.get("id") or str(next(self._numbers))
        name = f"{printable(request.query.get('peer', '?'), 64)}#{printable(identity, 64)}"
        peer = _Peer(request, socket, self._clock())
        swarm = self._enter(publication, name, peer)
        try:
            await self._listen(name, peer, swarm, publication.info_hash)
        finally:
            if peer.speaking:
                peer.speaking.cancel()
            self._leave(publication.info_hash, swarm, name, peer)
        return socket

    async def close(self, _app: web.Application | None = None) -> None:
        """Tell every peer that this coordinator ends. For `on_shutdown`."""
        self._closing = True
        for swarm in self._swarms.values():
            if swarm.granting is not None:
                swarm.granting.cancel()
        sockets = [peer.socket for swarm in self._swarms.values() for peer in swarm.peers.values()]
        goodbyes = (socket.close(code=WSCloseCode.GOING_AWAY) for socket in sockets)
        await asyncio.gather(*goodbyes, return_exceptions=True)

    def origin_bytes(self, info_hash: str) -> int:
        """Bytes that the peers of a swarm have pulled from mirrors."""
        swarm = self._swarms.get(info_hash)
        return swarm.leases.origin_bytes if swarm else 0

    def _enter(self, publication: Publication, name: str, peer: _Peer) -> _Swarm:
        swarm = self._swarms.get(publication.info_hash)
        if swarm is None:
            leases = Leases(publication.piece_count, publication.size, budget=self._budget)
            swarm = self._swarms[publication.info_hash] = _Swarm(leases)
        if before := swarm.peers.get(name):
            before.hang_up()
        swarm.peers[name] = peer
        peer.speaking = asyncio.get_running_loop().create_task(_speak(peer))
        return swarm

    def _leave(self, info_hash: str, swarm: _Swarm, name: str, peer: _Peer) -> None:
        if swarm.peers.get(name) is not peer:
            return
        del swarm.peers[name]
        swarm.leases.leave(name)
        if swarm.peers:
            self._grant_soon(swarm, info_hash)
            return
        del self._swarms[info_hash]
        if swarm.granting is not None:
            swarm.granting.cancel()

    async def _listen(self, name: str, peer: _Peer, swarm: _Swarm, info_hash: str) -> None:
        async for message in peer.socket:
            if message.type is not WSMsgType.TEXT or swarm.peers.get(name) is not peer:
                break
            try:
                swarm.leases.tell(name, parse_demand(message.data), self._clock())
            except InvalidInput as error:
                await peer.socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=str(error).encode()[:100])
                break
            self._grant_soon(swarm, info_hash)

    def _grant_soon(self, swarm: _Swarm, info_hash: str) -> None:
        if swarm.granting is None and not self._closing:
            swarm.granting = asyncio.get_running_loop().create_task(self._grant(swarm, info_hash))

    async def _grant(self, swarm: _Swarm, info_hash: str) -> None:
        await asyncio.sleep(GATHER)
        swarm.granting = None
        sources, held = self._sources.of(info_hash), self._is_held(info_hash)
        first = min((peer.came for peer in swarm.peers.values()), default=0.0)
        for name, grant in swarm.leases.grant(self._clock()).items():
            if peer := swarm.peers.get(name):
                word = Word(grant, sources, held or peer.came - first > LATE)
                if peer.word is None or not _same(peer.word, word):
                    peer.word = word
                    peer.news.set()


async def _speak(peer: _Peer) -> None:
    """Send what is news, always the latest. A peer that does not read is gone, and holds up nobody else."""
    told: Word | None = None
    while True:
        await peer.news.wait()
        peer.news.clear()
        word = peer.word
        if word is None or (told and _same(told, word)):
            continue
        told = word
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await peer.socket.send_str(word_text(word))
        except (ConnectionError, TimeoutError, RuntimeError):
            return peer.hang_up()


def _same(one: Word, other: Word) -> bool:
    """Whether `other` is no news to who was told `one`.

    The count of bytes alone is none; nor is that of peers, as long as there are others: each that comes or goes in a
    swarm of ten thousand would be ten thousand messages.
    """
    same = one.grant is other.grant or _gist(one.grant) == _gist(other.grant)
    return same and one.late == other.late and one.sources == other.sources


def _gist(grant: Grant) -> tuple[object, ...]:
    return grant.pieces, grant.refused, grant.peers > 1
