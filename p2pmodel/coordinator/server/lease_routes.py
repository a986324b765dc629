"""Leases of a swarm: GET /leases/<info-hash>, a WebSocket (`rooms`). The messages are `coordinator/lease_messages`."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from p2pmodel.coordinator.lease_messages import parse_demand
from p2pmodel.coordinator.leases import Leases
from p2pmodel.coordinator.server.catalog import Catalog
from p2pmodel.coordinator.server.publication import Publication
from p2pmodel.coordinator.server.sessions import PeerSession, SessionUpdate, welcome
from p2pmodel.coordinator.sources import Sources

LATE = 3.0
"""Seconds after the first peer of a swarm from which on who comes finds pieces at others."""


@dataclass(frozen=True, slots=True)
class _LeaseSession:
    leases: Leases
    room: PeerSession


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
        self._swarms: dict[str, _LeaseSession] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A peer of one swarm, for as long as it stays. Raises NotFound for a torrent that is not in the catalog."""
        publication = self._catalog.by_info_hash(request.match_info["info_hash"].lower())
        known = self._swarms.get(publication.info_hash)
        socket = await welcome(request, known.room if known else None)
        swarm = self._swarms.get(publication.info_hash) or self._new_swarm(publication)

        def hear(name: str, text: str) -> None:
            swarm.leases.tell(name, parse_demand(text), self._clock())

        try:
            await swarm.room.stay(request, socket, hear)
        finally:
            if not len(swarm.room) and self._swarms.get(publication.info_hash) is swarm:
                del self._swarms[publication.info_hash]
        return socket

    async def close(self, _app: web.Application | None = None) -> None:
        """Tell every peer that this coordinator ends. For `on_shutdown`."""
        await asyncio.gather(*(swarm.room.close() for swarm in self._swarms.values()))

    def origin_bytes(self, info_hash: str) -> int:
        """Bytes that the peers of a swarm have pulled from mirrors."""
        swarm = self._swarms.get(info_hash)
        return swarm.leases.origin_bytes if swarm else 0

    def _new_swarm(self, publication: Publication) -> _LeaseSession:
        info_hash = publication.info_hash

        def words() -> SessionUpdate:
            late_after = -math.inf if self._is_held(info_hash) else room.first + LATE
            return SessionUpdate(self._sources.of(info_hash), late_after)

        leases = Leases(publication.piece_count, publication.size, budget=self._budget)
        room = PeerSession(leases, words, clock=self._clock)
        swarm = self._swarms[info_hash] = _LeaseSession(leases, room)
        return swarm
