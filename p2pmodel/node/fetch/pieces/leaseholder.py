"""Leases of one transfer: the seeders, the pieces that this node may download, and when it needs no lease."""

import asyncio
import ipaddress
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from p2pmodel.coordinator.client.connection import CoordinatorConnection
from p2pmodel.coordinator.leases.demand import Complaint, Demand
from p2pmodel.coordinator.leases.messages import MOST_COMPLAINTS, CoordinatorMessage, demand_text
from p2pmodel.coordinator.rollout.nodes import NodeReport
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.egress import Egress
from p2pmodel.core.tasks import companions
from p2pmodel.errors import InvalidInput
from p2pmodel.node.fetch.pieces.feed import PieceFeed
from p2pmodel.node.fetch.pieces.seeders import Endpoint, Seeders
from p2pmodel.swarm.engine import SwarmTorrent

ALONE_FOR = 0.4
"""Seconds without another peer after which the seeders are joined in the swarm: there is no peer to share with, and
libtorrent needs less CPU time than this node's own requests. One such peer does little harm when others come after
all: it asks the seeder for the rarest pieces, which no other peer has."""
LOST_FOR = 5.0
"""Seconds without a coordinator after which the seeders are joined, too: they are the only sources left."""
LOOK_EVERY = 0.25
LOOK_LEAST = 0.01


class Leaseholder:
    """Passes a coordinator's grants to a transfer's feed, and the feed's demand to the coordinator.

    Call `begin`, then `hold` with the torrent and its feed, then `run`. `waiting` is the demand before there is a feed.
    `numbers` returns what goes with each demand, for roll-outs.
    """

    def __init__(
        self,
        connection: CoordinatorConnection,
        seeders: Seeders,
        *,
        piece_count: int,
        waiting: Demand,
        numbers: Callable[[], NodeReport | None] = lambda: None,
    ) -> None:
        self._numbers = numbers
        self._connection = connection
        self._seeders = seeders
        self._piece_count = piece_count
        self._waiting = waiting
        self._feed: PieceFeed | None = None
        self._torrent: SwarmTorrent | None = None
        self._passed_on: CoordinatorMessage | None = None
        """The last message with a grant that was passed to the feed."""
        self._introduced: CoordinatorMessage | None = None
        """The last message with sources that were passed to `seeders`."""
        self._peers: tuple[str, ...] = ()
        """Addresses of the seeders in the swarm."""
        self._complaints: deque[Complaint] = deque(maxlen=MOST_COMPLAINTS)

    @property
    def shuns_seeders(self) -> bool:
        """Whether this node downloads from seeders under leases only, and does not connect to them in the swarm.

        False where the coordinator lists no seeder, and has not just lost one: another tracker may list one.
        """
        return bool(self._connection.sources) or self._connection.lost_source

    def arrived(self, piece: int) -> None:
        """Note that a piece has come. The coordinator is informed of the pieces that it had leased to this node."""
        grant = self._connection.grant
        if grant and piece in grant.pieces:
            self._connection.changed()

    def complain(self, piece: int, peer: str) -> None:
        """Report to the coordinator that the peer at the IP address `peer` sent a bad piece."""
        complaint = Complaint(piece, peer)
        if complaint not in self._complaints:
            self._complaints.append(complaint)
            self._connection.changed()

    def complain_of_seeders(self, piece: int) -> None:
        """Report that a seeder sent a bad piece over HTTP. Each of them is told: which one it was is not known."""
        for peer in self._peers:
            with suppress(InvalidInput):
                self.complain(piece, ListenAddress.parse(peer).host)

    async def begin(self, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Connect, and return once a coordinator has answered or all were tried. `start` runs the connection."""
        start(self._connection.run(self))
        await self._connection.answered()
        await self._introduce_seeders()

    def hold(self, torrent: SwarmTorrent, feed: PieceFeed) -> None:
        """Pass grants to this feed from now on."""
        self._torrent, self._feed = torrent, feed
        self._pass_on()
        self._connection.changed()

    async def run(self) -> None:
        """Follow the coordinator's messages until cancelled."""
        joined: set[str] = set()
        async with companions() as start:
            start(self._follow())
            while True:
                await asyncio.sleep(self._until_next_look())
                await self._introduce_seeders()
                if self._torrent and (self._needs_no_lease() or (self._feed and self._feed.goes_round)):
                    _join(self._torrent, set(self._peers) - joined)
                    joined.update(self._peers)

    def opening(self) -> Sequence[str]:
        """No message begins a connection: the first one is the demand."""
        return ()

    def message(self) -> str:
        """The demand, as text."""
        return demand_text(self.demand(), self._piece_count, self._numbers())

    def demand(self) -> Demand:
        """The feed's demand, or the one before there is a feed."""
        demand = self._feed.demand() if self._feed else self._waiting
        return replace(demand, complaints=tuple(self._complaints))

    async def _follow(self) -> None:
        while True:
            if self._connection.message is not self._passed_on:
                self._pass_on()
            await self._connection.next_change()

    def _pass_on(self) -> None:
        if self._feed:
            message = self._passed_on = self._connection.message
            self._feed.take(self._connection.grant, late=message is not None and message.late)

    def _needs_no_lease(self) -> bool:
        now = time.monotonic()
        return self._connection.alone_for(now) > ALONE_FOR or self._connection.lost_for(now) > LOST_FOR

    def _until_next_look(self) -> float:
        """Seconds until the next look: as soon as this node counts as alone."""
        left = ALONE_FOR - self._connection.alone_for(time.monotonic())
        return min(max(left, LOOK_LEAST), LOOK_EVERY) if left >= 0 else LOOK_EVERY

    async def _introduce_seeders(self) -> None:
        message, coordinator = self._connection.message, self._connection.coordinator
        if message is None or coordinator is None or message is self._introduced:
            return
        self._introduced = message
        sources = message.sources
        self._peers = tuple(filter(None, (source.peer_seen_from(coordinator.url) for source in sources)))
        egress = self._egress(coordinator.url)
        await self._seeders.update([Endpoint(s.seen_from(coordinator.url), s.token, s.zone, egress) for s in sources])

    def _egress(self, coordinator: str) -> Egress:
        """The rule for sources of `coordinator`. The coordinator itself, which the settings name, may be one."""
        own = Egress(hosts=frozenset({(urlsplit(coordinator).hostname or "").lower()}))
        return (self._seeders.egress | own).in_cluster(self._connection.coordinator_address)


def _join(torrent: SwarmTorrent, peers: Iterable[str]) -> None:
    """Connect to `peers`. libtorrent (2.1) does so once a second, or as soon as a tracker answers."""
    addresses = [address for peer in peers if (address := _address(peer)) is not None]
    for address in addresses:
        torrent.connect(address.host, address.port)
    if addresses:
        torrent.announce()


def _address(peer: str) -> ListenAddress | None:
    try:
        address = ListenAddress.parse(peer)
        ipaddress.ip_address(address.host)  # the engine resolves no names
    except (InvalidInput, ValueError):
        return None  # the coordinator sent no address
    return address
