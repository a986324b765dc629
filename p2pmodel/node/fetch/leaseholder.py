"""One transfer under leases: which seeders there are, what is ours to pull, and when we need no lease."""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Coroutine
from typing import Any

from p2pmodel.coordinator.client.connection import LeaseConnection
from p2pmodel.coordinator.lease_messages import CoordinatorMessage
from p2pmodel.coordinator.leases import Demand
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.errors import InvalidInput
from p2pmodel.node.fetch.piece_feed import PieceFeed
from p2pmodel.node.fetch.seeders import Endpoint, Seeders
from p2pmodel.swarm.engine import SwarmTorrent

ALONE_FOR = 0.4
"""Seconds in which no other peer came, after which the seeders are joined in the swarm: nobody is there to share with,
and libtorrent takes less of the processor than we do. One such peer does little harm when others come after all: it
asks the seeder for what is rarest, which is what nobody has."""
LOST_FOR = 5.0
"""Seconds without a coordinator's word after which the seeders are joined, too: they are all that is left."""
LOOK_EVERY = 0.25


class Leaseholder:
    """Between a coordinator and a transfer's feed. `begin` it, then `hold` with what it works for, and `run` it.

    `demand` is what to say before there is a feed.
    """

    def __init__(self, lessee: Callable[..., LeaseConnection], seeders: Seeders, demand: Callable[[], Demand]) -> None:
        self._lessee = lessee(demand=self._state, on_word=self._hear)
        self._seeders = seeders
        self._before = demand
        self._feed: PieceFeed | None = None
        self._torrent: SwarmTorrent | None = None
        self._word: CoordinatorMessage | None = None
        self._met: CoordinatorMessage | None = None
        """The last whose sources were met."""
        self._coordinator = ""
        self._peers: tuple[str, ...] = ()
        """Where the seeders take part in the swarm."""
        self._since = time.monotonic()
        """Since when we are alone, or without a coordinator."""

    @property
    def shuns_seeders(self) -> bool:
        """Whether seeders are pulled from under leases, so that they are not to be met in the swarm. Where the
        coordinator that gives leases knows no seeder, another's tracker may."""
        return self._word is not None and bool(self._word.sources)

    def arrived(self, piece: int) -> None:
        """A piece has come. Only what was ours to bring is news to the coordinator."""
        if self._word and piece in self._word.grant.pieces:
            self._lessee.changed()

    async def begin(self, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Return once a coordinator has answered, or all were asked in vain; `start` keeps the connection."""
        start(self._lessee.run())
        await self._lessee.answered()
        await self._meet()

    def hold(self, torrent: SwarmTorrent, feed: PieceFeed) -> None:
        """Work for this feed from now on."""
        self._torrent, self._feed = torrent, feed
        self._pass_on()
        self._lessee.changed()

    async def run(self) -> None:
        """Follow what the coordinator says, until cancelled."""
        joined: set[str] = set()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._meet()
            if self._torrent and self._needs_no_lease():
                for peer in set(self._peers) - joined:
                    _join(self._torrent, peer)
                joined.update(self._peers)

    def _state(self) -> Demand:
        return self._feed.demand() if self._feed else self._before()

    def _hear(self, coordinator: str, word: CoordinatorMessage | None) -> None:
        if word is None and coordinator != self._coordinator:
            return
        crowded = word is not None and word.grant.peers > 1
        if crowded or (word is None) != (self._word is None):
            self._since = time.monotonic()
        self._coordinator, self._word = coordinator, word
        self._pass_on()

    def _pass_on(self) -> None:
        if self._feed:
            self._feed.take(self._word.grant if self._word else None, late=bool(self._word and self._word.late))

    def _needs_no_lease(self) -> bool:
        passed = time.monotonic() - self._since
        if self._word is None:
            return passed > LOST_FOR
        return self._word.grant.peers == 1 and passed > ALONE_FOR

    async def _meet(self) -> None:
        if self._word is None or self._word is self._met:
            return
        self._met = self._word
        sources = self._word.sources
        self._peers = tuple(filter(None, (source.peer_seen_from(self._coordinator) for source in sources)))
        await self._seeders.know([Endpoint(s.seen_from(self._coordinator), s.token, s.zone) for s in sources])


def _join(torrent: SwarmTorrent, peer: str) -> None:
    try:
        address = ListenAddress.parse(peer)
        ipaddress.ip_address(address.host)  # the engine knows no names
    except (InvalidInput, ValueError):
        return  # a coordinator may say what it wants
    torrent.connect(address.host, address.port)
