"""Leases of one transfer: the seeders, the pieces that this node may download, and when it needs no lease."""

import asyncio
import ipaddress
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from p2pmodel.coordinator.client.connection import CoordinatorConnection
from p2pmodel.coordinator.leases.demand import Complaint, Demand
from p2pmodel.coordinator.leases.messages import MOST_COMPLAINTS, CoordinatorMessage, demand_text
from p2pmodel.coordinator.rollout.nodes import NodeReport
from p2pmodel.coordinator.tracker.sources import Role
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.egress import Egress
from p2pmodel.core.tasks import companions
from p2pmodel.errors import InvalidInput
from p2pmodel.node.fetch.lone.web_seeds import LoneWebSeeds
from p2pmodel.node.fetch.pieces.feed import PieceFeed
from p2pmodel.node.fetch.pieces.feed_ports import NOWHERE
from p2pmodel.node.fetch.pieces.seeders import Endpoint, Seeders
from p2pmodel.swarm.engine import SwarmTorrent, WebSeeds

if TYPE_CHECKING:
    from p2pmodel.node.fetch.pieces.zone_exchange import ZoneExchange

ALONE_FOR = 0.4
"""Seconds without another peer after which the seeders are joined in the swarm, unless they are web seeds already
(`LoneWebSeeds`): there is no peer to share with, and libtorrent needs less CPU time than this node's own requests.
Where others come after all, it would take most of the seeder's uplink from them. Web seeds are dropped then;
connections in the swarm end with `Crowded`."""
CROWDED_FOR = 5.0
"""Seconds that the rest of a download must take for it to leave the seeders again, once another peer has come."""
LOST_FOR = 5.0
"""Seconds without a coordinator after which the seeders are joined, too: they are the only sources left."""
LOOK_EVERY = 0.25
LOOK_LEAST = 0.01


class Crowded(Exception):
    """Peers have come while this node downloads from the seeders in the swarm, since it was alone: it must leave the
    swarm, which alone ends these connections, and join it again under leases."""


class Leaseholder:
    """Passes a coordinator's grants to a transfer's feed, and the feed's demand to the coordinator.

    Call `begin`, then `hold` with the torrent and its feed, then `run`. `waiting` is the demand before there is a feed.
    `numbers` returns what goes with each demand, for roll-outs. `may_leave`: whether `run` raises Crowded.
    `web_seeds`: how the engine downloads from seeders while this node is alone; None: by joining them in the swarm.
    """

    def __init__(
        self,
        connection: CoordinatorConnection,
        seeders: Seeders,
        *,
        piece_count: int,
        waiting: Demand,
        numbers: Callable[[], NodeReport | None] = lambda: None,
        zones: "ZoneExchange | None" = None,
        may_leave: bool = False,
        web_seeds: LoneWebSeeds | None = None,
    ) -> None:
        self.zones = zones
        self._web_seeds = web_seeds
        self._may_leave = may_leave
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

    @property
    def role(self) -> Role:
        """This node's role at the trackers."""
        grant = self._connection.grant
        if grant is not None and grant.crossings is not None:
            return "crossing"
        return "leaseholder" if self.shuns_seeders else ""

    @property
    def peers(self) -> int:
        """Peers that download, this one included, as the coordinator last said; 0 without a coordinator."""
        return self._connection.peers

    def first_web_seeds(self) -> WebSeeds:
        """Those to join the swarm with: none, unless this node is alone."""
        return self._web_seeds.at_first(wanted=self.peers == 1) if self._web_seeds else WebSeeds()

    def arrived(self, piece: int) -> None:
        """Note that a piece has come. The coordinator is informed of the pieces that it had leased to this node."""
        grant = self._connection.grant
        if grant and (piece in grant.pieces or any(each.piece == piece for each in grant.crossings or ())):
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

    def hold(
        self,
        torrent: SwarmTorrent,
        feed: PieceFeed,
        *,
        durable: Callable[[], frozenset[int]] = frozenset,
        path_of: Callable[[int], Path] = lambda _: NOWHERE,
    ) -> None:
        """Pass grants to this feed from now on. Other zones get the pieces that are `durable`, from their files."""
        self._torrent, self._feed = torrent, feed
        if self.zones is not None:
            self.zones.stored.read_from(durable, path_of)
            feed.cross_by(self.zones)
        feed.report_by(self._connection.changed)
        self._pass_on()
        self._connection.changed()

    async def run(self) -> None:
        """Follow the coordinator's messages until cancelled. Raises Crowded."""
        joined: set[str] = set()
        joined_alone = False
        async with companions() as start:
            start(self._follow())
            while True:
                await asyncio.sleep(self._until_next_look())
                if joined_alone and self._is_crowded():
                    raise Crowded
                goes_round = self._feed is not None and self._feed.goes_round
                if self._update_web_seeds() and not goes_round:
                    continue
                if self._torrent and (self._needs_no_lease() or goes_round):
                    _join(self._torrent, set(self._peers) - joined)
                    joined.update(self._peers)
                    joined_alone = joined_alone or (bool(self._peers) and self._connection.peers == 1)

    def opening(self) -> Sequence[str]:
        """No message begins a connection: the first one is the demand."""
        return ()

    def message(self) -> str:
        """The demand, as text."""
        return demand_text(self.demand(), self._piece_count, self._numbers())

    def demand(self) -> Demand:
        """The feed's demand, or the one before there is a feed."""
        demand = self._feed.demand() if self._feed else self._waiting
        demand = replace(demand, complaints=tuple(self._complaints))
        if self.zones is None:
            return demand
        held, token, unreachable = self.zones.fill(demand)
        return replace(demand, held=held, token=token, unreachable=unreachable)

    async def close(self) -> None:
        """Serve no other zone any more."""
        if self.zones is not None:
            await self.zones.close()

    async def _follow(self) -> None:
        while True:
            message = self._connection.message
            await self._introduce_seeders()  # first: the grant may be for a seeder that this message lists
            if self._connection.message is not self._passed_on:
                self._pass_on()
            if self._connection.message is message:
                await self._connection.next_change()

    def _pass_on(self) -> None:
        if self._feed:
            self._update_web_seeds()  # at once: others that have come need the seeders
            message = self._passed_on = self._connection.message
            self._feed.take(self._connection.grant, late=message is not None and message.late)

    @property
    def has_web_seeds(self) -> bool:
        """Whether the engine downloads from the seeders as web seeds."""
        return self._web_seeds is not None and self._web_seeds.used

    def _update_web_seeds(self) -> bool:
        """Begin, go on or end to use the seeders as web seeds; whether they are used now."""
        if self._torrent is None or self._feed is None or self._web_seeds is None:
            return False
        peers, missing = self._connection.peers, not self._feed.has_all
        used = self._web_seeds.look(
            self._torrent, time.monotonic(), wanted=peers == 1, admissible=peers <= 1 and missing
        )
        self._feed.hand_over(on=used)
        return used

    def _needs_no_lease(self) -> bool:
        now = time.monotonic()
        return self._connection.alone_for(now) > ALONE_FOR or self._connection.lost_for(now) > LOST_FOR

    def _is_crowded(self) -> bool:
        """Whether others have come that this node keeps from the seeders for a while."""
        if not self._may_leave or self._connection.peers <= 1 or not self._connection.sources or self._feed is None:
            return False
        return not self._feed.goes_round and self._feed.takes_longer(CROWDED_FOR)

    def _until_next_look(self) -> float:
        """Seconds until the next look: as soon as this node counts as alone."""
        left = ALONE_FOR - self._connection.alone_for(time.monotonic())
        return min(max(left, LOOK_LEAST), LOOK_EVERY) if left >= 0 else LOOK_EVERY

    async def _introduce_seeders(self) -> None:
        message, coordinator = self._connection.message, self._connection.coordinator
        if message is self._introduced:
            return
        self._introduced = message
        if message is None or coordinator is None:
            await self._seeders.update([])
            return
        sources = message.sources
        self._peers = tuple(filter(None, (source.peer_seen_from(coordinator.url) for source in sources)))
        egress = self._egress(coordinator.url)
        if self.zones is not None:
            self.zones.trust(coordinator.url, egress)
        endpoints = [Endpoint(s.seen_from(coordinator.url), s.token, s.zone, egress) for s in sources]
        await self._seeders.update(endpoints, lost=message.lost_source)

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


class NoLeases:
    """Stands for a `Leaseholder` where nothing is missing or no coordinator is configured."""

    role: Role = ""
    peers = 0
    zones = None
    has_web_seeds = False

    def first_web_seeds(self) -> WebSeeds:
        """None."""
        return WebSeeds()

    def arrived(self, piece: int) -> None:
        """Nothing to report."""

    def complain(self, piece: int, peer: str) -> None:
        """Nothing to report to."""

    def complain_of_seeders(self, piece: int) -> None:
        """Nothing to report to."""

    def hold(
        self,
        torrent: SwarmTorrent,
        feed: PieceFeed,
        *,
        durable: Callable[[], frozenset[int]],
        path_of: Callable[[int], Path],
    ) -> None:
        """Nothing to hold."""

    async def close(self) -> None:
        """Nothing to end."""

    async def run(self) -> None:
        """Nothing to follow."""
