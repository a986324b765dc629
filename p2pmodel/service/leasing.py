"""Leases over a WebSocket: GET /leases/<info-hash>?peer=ADDRESS:PORT. The messages are `domain/lease_messages`.

A connection is a peer's presence: when it breaks, what the peer had leased goes to another at once.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from aiohttp import WSCloseCode, WSMsgType, web

from p2pmodel.domain.lease_messages import HEARTBEAT, MAX_MESSAGE, Word, parse_demand, word_text
from p2pmodel.domain.leases import Leases
from p2pmodel.domain.names import printable
from p2pmodel.domain.sources import Sources
from p2pmodel.errors import InvalidInput
from p2pmodel.service.catalog import Catalog

GATHER = 0.01
"""Seconds in which the words of several peers are taken together before anything is granted."""
SEND_TIMEOUT = 5.0
"""Seconds in which a peer must take a message."""
LATE = 3.0
"""Seconds after the first peer of a swarm from which on who comes finds pieces at others."""
MAX_PEERS = 10_000
"""Peers of one swarm."""


@dataclass(slots=True)
class _Swarm:
    leases: Leases
    sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    came: dict[str, float] = field(default_factory=dict)
    told: dict[str, Word] = field(default_factory=dict)
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
        self._swarms: dict[str, _Swarm] = {}
        self._numbers = itertools.count()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A peer of one swarm, for as long as it stays. Raises NotFound for a torrent that is not in the catalog."""
        publication = self._catalog.by_info_hash(request.match_info["info_hash"].lower())
        swarm = self._swarms.get(publication.info_hash)
        if swarm is None:
            leases = Leases(publication.piece_count, publication.size, budget=self._budget)
            swarm = self._swarms[publication.info_hash] = _Swarm(leases)
        if len(swarm.sockets) >= MAX_PEERS:
            raise InvalidInput(f"this swarm has {MAX_PEERS} peers already")
        socket = web.WebSocketResponse(heartbeat=10 * HEARTBEAT, max_msg_size=MAX_MESSAGE, timeout=SEND_TIMEOUT)
        await socket.prepare(request)
        name = f"{printable(request.query.get('peer', '?'), 64)}#{next(self._numbers)}"
        swarm.sockets[name], swarm.came[name] = socket, self._clock()
        try:
            await self._listen(name, swarm, socket, publication.info_hash)
        finally:
            swarm.sockets.pop(name, None)
            swarm.told.pop(name, None)
            swarm.came.pop(name, None)
            swarm.leases.leave(name)
            self._grant_soon(swarm, publication.info_hash)
            if not swarm.sockets:
                self._swarms.pop(publication.info_hash, None)
        return socket

    async def close(self, _app: web.Application | None = None) -> None:
        """Tell every peer that this coordinator ends. For `on_shutdown`."""
        for swarm in self._swarms.values():
            if swarm.granting is not None:
                swarm.granting.cancel()
        sockets = [socket for swarm in self._swarms.values() for socket in swarm.sockets.values()]
        goodbyes = (socket.close(code=WSCloseCode.GOING_AWAY) for socket in sockets)
        await asyncio.gather(*goodbyes, return_exceptions=True)

    def origin_bytes(self, info_hash: str) -> int:
        """Bytes that the peers of a swarm have pulled from mirrors."""
        swarm = self._swarms.get(info_hash)
        return swarm.leases.origin_bytes if swarm else 0

    async def _listen(self, name: str, swarm: _Swarm, socket: web.WebSocketResponse, info_hash: str) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            try:
                swarm.leases.tell(name, parse_demand(message.data), self._clock())
            except InvalidInput as error:
                await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=str(error).encode()[:100])
                break
            self._grant_soon(swarm, info_hash)

    def _grant_soon(self, swarm: _Swarm, info_hash: str) -> None:
        if swarm.granting is None and swarm.sockets:
            swarm.granting = asyncio.get_running_loop().create_task(self._grant(swarm, info_hash))

    async def _grant(self, swarm: _Swarm, info_hash: str) -> None:
        await asyncio.sleep(GATHER)
        swarm.granting = None
        sources, held = self._sources.of(info_hash), self._is_held(info_hash)
        first = min(swarm.came.values(), default=0.0)
        for name, grant in swarm.leases.grant(self._clock()).items():
            late = held or swarm.came.get(name, 0.0) - first > LATE
            await self._tell(swarm, name, Word(grant, sources, late))

    async def _tell(self, swarm: _Swarm, name: str, word: Word) -> None:
        socket, told = swarm.sockets.get(name), swarm.told.get(name)
        if socket is None or (told and _same(told, word)):
            return
        swarm.told[name] = word
        # A peer that does not read would hold up all others: it is gone, then.
        with suppress(ConnectionError, TimeoutError, RuntimeError):
            async with asyncio.timeout(SEND_TIMEOUT):
                await socket.send_str(word_text(word))


def _same(one: Word, other: Word) -> bool:
    """Whether `other` is no news to who was told `one`; the count of bytes alone is none."""

    return replace(one, grant=replace(one.grant, origin_bytes=other.grant.origin_bytes)) == other
