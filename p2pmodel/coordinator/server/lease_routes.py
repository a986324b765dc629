"""Leases over HTTP: GET /leases/<info-hash> is a WebSocket (`sessions`) with `coordinator/lease_messages`."""

import asyncio
import math
import random
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from p2pmodel.coordinator.complaints import Complaints
from p2pmodel.coordinator.leases.crossings import Crossings, ZonedLeases
from p2pmodel.coordinator.leases.demand import CutOffNodes
from p2pmodel.coordinator.leases.leases import Leases
from p2pmodel.coordinator.leases.messages import demand_of, object_of
from p2pmodel.coordinator.server.access import CoordinatorAccess
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import Publication
from p2pmodel.coordinator.server.credentials import CALLER, Credentials
from p2pmodel.coordinator.server.expected import ExpectedClients
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.rollouts.routes import NodeNumbers
from p2pmodel.coordinator.server.sessions import PeerSession, SessionUpdate, accept
from p2pmodel.coordinator.tracker.codec import MAX_ZONE
from p2pmodel.coordinator.tracker.sources import Sources
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.addresses import ListenAddress, is_loopback, parsed_address
from p2pmodel.trust.access.policy import Verb

LATE = 3.0
"""Seconds after the first peer of a swarm after which a new peer finds pieces at others."""


_PORT = re.compile(r"[0-9]{1,5}")


class Probe(Protocol):
    """Says why an address of the client at an IP address cannot be connected to; "" if it can."""

    async def __call__(self, address: ListenAddress, source: str, *, again: bool = False) -> str:
        """`again`: no result of before is used."""


FollowSources = Callable[[str, Callable[[], None]], Coroutine[Any, Any, None]]


async def always_reached(address: ListenAddress, source: str, *, again: bool = False) -> str:  # noqa: ARG001
    """Every address is reached."""
    return ""


async def nothing_follows(info_hash: str, changed: Callable[[], None]) -> None:
    """Watch no sources."""


@dataclass(frozen=True, slots=True)
class _LeaseSession:
    leases: ZonedLeases
    peers: PeerSession
    cut_off: CutOffNodes = field(default_factory=CutOffNodes)
    following: set[asyncio.Task[None]] = field(default_factory=set)
    """The task that watches the sources, once there is a peer."""

    def end(self) -> None:
        """Stop what runs for the swarm."""
        for task in self.following:
            task.cancel()


class LeaseRoutes:
    """The handler, and the leases of every swarm that has peers.

    `is_held(info_hash)` returns whether a peer other than its sources has all of a torrent; `budget` as in `Leases`.
    `complaints` takes what peers report about others, `rollouts` what they report about themselves.
    `follow_sources` runs while a swarm has peers, and calls its second argument when its sources have changed. `check`
    raises Forbidden for a client that may not have the snapshot.
    """

    def __init__(
        self,
        catalog: Catalog,
        sources: Sources,
        *,
        access: CoordinatorAccess | None = None,
        is_held: Callable[[str], bool] = lambda _: False,
        budget: float = 0.0,
        complaints: Complaints | None = None,
        clock: Callable[[], float] = time.monotonic,
        messages_per_second: float = math.inf,
        rollouts: Rollouts | None = None,
        follow_sources: FollowSources = nothing_follows,
        probe: Probe = always_reached,
        check: Callable[[web.Request, Publication], None] = lambda _request, _publication: None,
    ) -> None:
        self.expected = ExpectedClients(clock)
        self._check = check
        self._rollouts = rollouts or Rollouts()
        self._follow_sources = follow_sources
        self._probe = probe
        self._catalog = catalog
        self._access = access or CoordinatorAccess(Credentials())
        self._sources = sources
        self._is_held = is_held
        self._budget = budget
        self._complaints = complaints or Complaints(clock)
        self._clock = clock
        self._messages_per_second = messages_per_second
        self._swarms: dict[str, _LeaseSession] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one peer of a swarm until it leaves. Raises NotFound for a torrent that is not in the catalog."""
        publication = self._catalog.by_info_hash(request.match_info["info_hash"].lower())
        self._check(request, publication)
        self._check_right(request, publication)
        known = self._swarms.get(publication.info_hash)
        socket = await accept(request, known.peers if known else None)
        self.expected.joined(publication.info_hash, request.remote or "")
        swarm = self._swarms.get(publication.info_hash) or self._new_swarm(publication)
        zone, address = await self._zone_address(request)
        entered = not address
        numbers = NodeNumbers(self._rollouts, request, publication.repo, publication.commit)

        def receive(name: str, text: str) -> None:
            nonlocal entered
            plain = object_of(text)
            demand = demand_of(plain)
            if not entered:
                entered = True
                swarm.leases.enter(name, zone, address)
            numbers.take(plain)
            swarm.leases.update(name, demand, self._clock(), address=request.remote or "")
            for complaint in demand.complaints:
                if complaint.piece < publication.piece_count:
                    self._complaints.add(bytes.fromhex(publication.info_hash)[:20], complaint)
            if demand.cut_off:
                swarm.cut_off.note(name, printable(request.query.get("node", "?"), 64))

        try:
            async with self._access.ending(request, socket, publication.repo):
                await swarm.peers.serve(request, socket, receive)
        finally:
            self.expected.given(publication.info_hash, request.remote or "")  # it may join again at once
            if not len(swarm.peers) and self._swarms.get(publication.info_hash) is swarm:
                swarm.end()
                del self._swarms[publication.info_hash]
        return socket

    async def _zone_address(self, request: web.Request) -> tuple[str, str]:
        """The zone of a node that serves pieces to other zones, and where these reach it; "" if they do not."""
        zone, port = request.query.get("zone", ""), request.query.get("pieces", "")
        host = parsed_address(request.remote or "")
        if not zone or len(zone) > MAX_ZONE or host is None or not _PORT.fullmatch(port) or not 0 < int(port) < 1 << 16:
            return "", ""
        listens = request.query.get("peer", "").rpartition(":")[0].strip("[]")
        here = is_loopback(str(host))  # on this machine: at another of its loopback addresses, or where others reach it
        own = ListenAddress(listens if here and is_loopback(listens) else str(host), int(port))
        relative = here and not is_loopback(listens)
        if not relative and await self._probe(own, str(host)) and await self._probe(own, str(host), again=True):
            return "", ""  # twice: what a busy coordinator does not reach would take no part for ever
        return printable(zone, MAX_ZONE), f":{port}" if relative else str(own)

    def _check_right(self, request: web.Request, publication: Publication) -> None:
        """Raise unless the caller may have leases of the torrent; they come with the tokens of its sources."""
        if CALLER in request:
            request[CALLER].check(Verb.READ, publication.repo)
            self._access.record(request, "lease", publication.repo, publication.commit, publication.info_hash)

    async def close(self, _app: web.Application | None = None) -> None:
        """Close all connections. For `on_shutdown`."""
        for swarm in self._swarms.values():
            swarm.end()
        await asyncio.gather(*(swarm.peers.close() for swarm in self._swarms.values()))

    def origin_bytes(self, info_hash: str) -> int:
        """Bytes that the peers of a swarm have downloaded from mirrors."""
        swarm = self._swarms.get(info_hash)
        return swarm.leases.origin_bytes if swarm else 0

    def cut_off(self, info_hash: str) -> list[str]:
        """Names of a swarm's nodes that got nothing from their peers."""
        swarm = self._swarms.get(info_hash)
        return swarm.cut_off.names if swarm else []

    def _new_swarm(self, publication: Publication) -> _LeaseSession:
        info_hash = publication.info_hash

        def update() -> SessionUpdate:
            late_after = -math.inf if self._is_held(info_hash) else peers.first_joined + LATE
            return SessionUpdate(
                self._sources.of(info_hash),
                late_after,
                lost_source=self._sources.lost(info_hash),
                expects_more=len(peers) == 1 and self.expected.any(info_hash),
            )

        longest = piece_length_for(publication.size)
        own = Leases(publication.piece_count, publication.size, budget=self._budget, longest=longest)
        dice = random.Random()  # noqa: S311  spreads load, no secret
        leases = ZonedLeases(own, Crossings(publication.piece_count, dice))
        peers = PeerSession(leases, update, clock=self._clock, messages_per_second=self._messages_per_second)
        swarm = self._swarms[info_hash] = _LeaseSession(leases, peers)
        swarm.following.add(asyncio.ensure_future(self._follow_sources(info_hash, peers.grant_soon)))
        return swarm
