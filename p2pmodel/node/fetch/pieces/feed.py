"""Pull pieces from scarce sources by HTTP ranges, verify them, and hand them to the engine.

A `LeaseStrategy` chooses the pieces while a coordinator grants leases, an `OrphanStrategy` otherwise: without a
coordinator, and while neither peers nor leases deliver anything (`DeliveryClock`). Seeders are asked before mirrors.

libtorrent's own web seed client is never used with a mirror, and with seeders only by a node that is alone
(`LoneWebSeeds`). After one HTTP error it gives a file up for good. It ignores Retry-After, and cannot leave chosen
pieces to other peers.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TYPE_CHECKING

from p2pmodel.coordinator.leases.demand import Crossing, Demand, Grant
from p2pmodel.core.pace import Rate
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.node.fetch.pieces.delivery_clock import DeliveryClock, SeederTrial
from p2pmodel.node.fetch.pieces.feed_ports import FeedState, PieceReader, PieceStrategy, SeederReader
from p2pmodel.node.fetch.pieces.lease_strategy import LeaseStrategy
from p2pmodel.node.fetch.pieces.orphan_strategy import OrphanStrategy
from p2pmodel.node.fetch.pieces.partial_pull import PartialPull
from p2pmodel.node.snapshot.reuse.known_parts import KnownParts
from p2pmodel.swarm.engine import SwarmStatus, SwarmTorrent
from p2pmodel.swarm.torrents import Metainfo

if TYPE_CHECKING:
    from p2pmodel.node.fetch.pieces.zone_exchange import ZoneExchange

TICK = 0.5
"""Seconds between two choices at most."""
BRIDGE = 5.0
"""Seconds from the first connection in which a node that is alone goes on over HTTP while the swarm delivers less:
libtorrent takes most of a second to connect and to speed up, and several behind a rate limit."""
LAST_PIECES = 16
"""So many missing pieces are the last ones."""
RETRY_AFTER = 10.0
"""Seconds for which a mirror failure pauses all pieces, or those of the file that failed."""


class PieceFeed:
    """Pulls pieces for one torrent until cancelled.

    `missing` is a live view of the missing pieces; `received` returns the bytes that came over HTTP so far;
    `origin_bytes` came from mirrors before this began. `parts`: what older revisions have of pieces.
    `http_only`: whether peers may be unable to connect to this node. Without any source it does nothing.

    When no mirror answers, all of them are paused for a while. When all have a file wrong, or refuse access to it, only
    that file is paused. The transfer decides whether a failure ends it.
    """

    def __init__(
        self,
        torrent: SwarmTorrent,
        metainfo: Metainfo,
        missing: AbstractSet[int],
        *,
        origin: PieceReader | None,
        seeders: SeederReader | None,
        orphans: OrphanStrategy,
        leases: LeaseStrategy,
        clock: DeliveryClock,
        received: Callable[[], int] = lambda: 0,
        origin_bytes: int = 0,
        on_bad_piece: Callable[[int], None] = lambda _piece: None,
        parts: KnownParts | None = None,
        http_only: Callable[[], bool] = lambda: False,
    ) -> None:
        self._zones: ZoneExchange | None = None
        self._on_new_demand: Callable[[], None] = lambda: None
        self._sources_before: tuple[bool, bool] | None = None
        """Whether seeders, and whether any source, could be asked at the last choice."""
        self._http_only = http_only
        self._torrent = torrent
        self._metainfo = metainfo
        self._missing = missing
        self._origin = origin
        self._seeders = seeders
        self._orphans = orphans
        self._leases = leases
        self._clock = clock
        self._trial = SeederTrial(clock)
        self._received = received
        self._alone_since, self._bridge_until = time.monotonic(), math.inf
        self._was_alone = False
        """Whether none of the other peers under leases was connected for as long as the clock allows."""
        self._leased, self._handed_over = False, False
        """Whether a coordinator grants leases; whether the engine downloads from the seeders itself."""
        self._on_bad_piece = on_bad_piece
        self._strategy: PieceStrategy = orphans
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._asked_of_seeders: set[int] = set()
        """Those of them that are pulled from seeders."""
        self._paused_until = 0.0
        self._silence: Unavailable | None = None
        self._refused: dict[int, tuple[float, P2PModelError]] = {}
        """By file: until when it is paused, and why."""
        self._changed = asyncio.Event()
        self._rate = Rate()
        self.fed: set[int] = set()
        """Pieces handed to the engine, and not rejected by it."""
        self.from_mirrors: set[int] = set()
        """Those of them that came from mirrors."""
        self.from_seeders: set[int] = set()
        self.spared: dict[int, int] = {}
        """By piece of `fed`, bytes of it that came from older revisions."""
        self._partial = PartialPull(metainfo, parts)
        self.origin_bytes = origin_bytes
        """Bytes of pieces that came from mirrors, those of `beyond_leases` left out."""
        self.beyond_leases = 0
        """Bytes of pieces that came from mirrors without leases, although a coordinator grants some."""

    @property
    def failure(self) -> P2PModelError | None:
        """The last failure of the mirrors, for all files or for one; None after a success."""
        return next((error for _, error in self._refused.values()), self._silence)

    @property
    def requested_files(self) -> frozenset[int]:
        """Indexes of the files of which pieces are requested."""
        return frozenset(self._metainfo.layout.piece_range(piece).span.index for piece in self._in_flight)

    @property
    def active(self) -> bool:
        """Whether a request is in flight."""
        return bool(self._in_flight)

    @property
    def asks_from(self) -> float:
        """When (`time.monotonic()`) scarce sources are asked at the latest; in the past if there are none."""
        return self._leases.connected_at if self._has_source else -math.inf

    @property
    def over_budget(self) -> bool:
        """Whether the swarm's budget for the mirrors is spent, and no seeder is usable."""
        return self._leases.refused and not self._uses_seeders and not self.goes_round

    @property
    def cut_off(self) -> bool:
        """Whether mirrors sent pieces that the peers should have sent: without leases, or while none was connected."""
        return self.beyond_leases > 0 or (self._was_alone and bool(self.from_mirrors))

    @property
    def goes_round(self) -> bool:
        """Whether sources are asked without leases, because neither peers nor leases deliver."""
        return self._leased and self._is_silent(time.monotonic())

    @property
    def has_all(self) -> bool:
        """Whether no piece is missing."""
        return not self._missing

    def takes_longer(self, seconds: float) -> bool:
        """Whether the missing pieces take longer than that at the rate at which the swarm delivers."""
        layout = self._metainfo.layout
        mean = self._metainfo.manifest.total_size / max(layout.piece_count, 1)
        return len(self._missing) * mean > seconds * self._torrent.status().download_rate

    def cross_by(self, zones: "ZoneExchange") -> None:
        """Pull by `zones` what the coordinator names of other zones."""
        self._zones = zones

    def hand_over(self, *, on: bool) -> None:
        """The engine downloads from the seeders itself from now on, or does not any more. Meanwhile nothing is pulled
        under leases."""
        if on != self._handed_over:
            self._handed_over = on
            self._changed.set()

    def report_by(self, on_new_demand: Callable[[], None]) -> None:
        """Call `on_new_demand` when the coordinator should grant something else: other sources can be asked than
        before, or a node of another zone did not deliver."""
        self._on_new_demand = on_new_demand

    def take(self, grant: Grant | None, *, late: bool = False) -> None:
        """Pull the pieces of `grant` from now on (None: orphans); `late` as in `LeaseStrategy.take`."""
        self._leases.take(grant, late=late)
        self._leased = grant is not None
        self._changed.set()

    def demand(self) -> Demand:
        """The demand to send to the coordinator."""
        demand = replace(self._leases.demand(self._state()), cut_off=self.cut_off)
        return replace(demand, want=0, leased=0) if self.goes_round else demand

    def rejected(self, piece: int) -> None:
        """The engine rejected `piece`: it may be pulled again."""
        self.fed.discard(piece)

    async def run(self) -> None:
        """Pull until cancelled; no request outlives this call."""
        if not self._has_source:
            return
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    await self._strategy.prepare(time.monotonic())
                    state = self._state()
                    self._strategy = self._orphans if state.silent or not self._leased else self._leases
                    self._report_sources(state)
                    self._stop_needless_pulls(state)
                    self._start_pulls(group, state)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pause()):
                            await self._changed.wait()
        finally:
            self._in_flight.clear()

    def _pause(self) -> float:
        """Seconds until the next choice, unless a change wakes the feed earlier."""
        return TICK if self._strategy.refills_at_once or not self._in_flight else TICK / 10

    @property
    def _has_source(self) -> bool:
        return self._origin is not None or self._seeders is not None

    @property
    def _uses_seeders(self) -> bool:
        if self._seeders is None or not self._seeders.usable:
            return False
        return not (self._trial.failed and self._mirrors_usable(time.monotonic()))

    def _mirrors_usable(self, now: float) -> bool:
        return self._origin is not None and now >= self._paused_until

    def _is_silent(self, now: float) -> bool:
        """Whether nothing is delivered. Before `asks_from` peers only connect."""
        return now >= self.asks_from + self._clock.bound and self._clock.is_silent(now)

    def _look_at_deliveries(self, now: float, status: SwarmStatus) -> None:
        missing, held = self._missing - self.fed, status.availability
        self._clock.last = 0 < len(missing) <= LAST_PIECES and bool(held) and all(held[p] for p in missing)
        self._clock.received(status.downloaded - status.wasted, self._received(), now)
        if self._seeders is not None:
            self._trial.look(self._seeders.received, now, silent=self._is_silent(now))
        if status.peers or not self._leases.has_others:
            self._alone_since = now
        elif now - self._alone_since >= self._clock.bound:
            self._was_alone = True

    def _state(self) -> FeedState:
        now, spans = time.monotonic(), self._metainfo.layout.spans
        status = self._torrent.status()
        self._look_at_deliveries(now, status)
        return FeedState(
            now=now,
            missing=self._missing - self.fed,
            refused={p for index, (until, _) in self._refused.items() if now < until for p in spans[index].pieces},
            availability=() if self._handed_over or self._bridges(now, status) else status.availability,
            in_flight=frozenset(self._in_flight),
            from_seeders=self._uses_seeders,
            mirrors_usable=self._mirrors_usable(now),
            origin_bytes=self.origin_bytes,
            rate=self._rate.value(),
            pulled=len(self.fed),
            silent=self._is_silent(now),
            http_only=self._http_only() and now - self._alone_since > self._leases.connect_within,
            handed_over=self._handed_over,
        )

    def _bridges(self, now: float, status: SwarmStatus) -> bool:
        """Whether this node has no others to share with, and the seeders deliver less in the swarm than over HTTP."""
        if self._leases.has_others or not self._leased or not self._uses_seeders:
            return False
        if status.peers:
            self._bridge_until = min(self._bridge_until, now + BRIDGE)
        if status.download_rate > self._rate.value():
            self._bridge_until = now
        return now < self._bridge_until

    def _report_sources(self, state: FeedState) -> None:
        """Report that seeders have failed or come back: leases for one source are none for another."""
        before, self._sources_before = self._sources_before, (state.from_seeders, state.can_pull)
        if before is not None and before != self._sources_before:
            self._on_new_demand()

    def _stop_needless_pulls(self, state: FeedState) -> None:
        too_slow = set() if state.from_seeders or not state.silent else self._asked_of_seeders
        for piece in {*self._orphans.needless(state, state.in_flight - self.fed), *too_slow}:
            self._in_flight[piece].cancel()

    def _start_pulls(self, group: asyncio.TaskGroup, state: FeedState) -> None:
        for piece in self._strategy.choose(state):
            crossing = self._leases.crossings.get(piece) if self._strategy is self._leases else None
            if crossing is None and state.can_pull:
                self._in_flight[piece] = group.create_task(self._pull(piece))
            elif crossing is not None and self._zones and crossing.address not in self._zones.unreachable:
                self._in_flight[piece] = group.create_task(self._cross(self._zones, crossing))

    async def _cross(self, zones: "ZoneExchange", crossing: Crossing) -> None:
        """Pull a piece from a node of another zone. After a failure the coordinator names another one."""
        piece = crossing.piece
        try:
            data = await zones.read(crossing)
            self._rate.add(len(data))
            if piece in self._missing:
                await self._feed(piece, data)
        except Unavailable:
            self._on_new_demand()
        finally:
            self._in_flight.pop(piece, None)
            self._changed.set()

    async def _pull(self, piece: int) -> None:
        place = self._metainfo.layout.piece_range(piece)
        source: PieceReader | None = self._seeders if self._uses_seeders else self._origin
        if source is self._seeders:
            self._asked_of_seeders.add(piece)
        try:
            if source is not None:
                await self._pull_from(source, piece)
            self._silence = None
            self._refused.pop(place.span.index, None)
        except P2PModelError as error:
            if source is self._origin or self._origin is None:  # else mirrors are asked next
                self._note_failure(place.span.index, error)
        finally:
            self._in_flight.pop(piece, None)
            self._asked_of_seeders.discard(piece)
            if self._strategy.refills_at_once:
                self._changed.set()

    def _note_failure(self, file: int, error: P2PModelError) -> None:
        until = time.monotonic() + RETRY_AFTER
        if isinstance(error, Unavailable):
            self._silence, self._paused_until = error, until
        else:
            self._refused[file] = until, error

    async def _pull_from(self, source: PieceReader, piece: int) -> None:
        beyond_leases = self.goes_round
        data, spared = await self._partial.pull(source, piece) or (await self._read(source, piece), 0)
        self.spared[piece] = spared
        if source is self._origin:
            self.from_mirrors.add(piece)
            if beyond_leases:
                self.beyond_leases += len(data) - spared
            else:
                self.origin_bytes += len(data) - spared
        else:
            self.from_seeders.add(piece)
        self._rate.add(len(data) - spared)
        if piece in self._missing:
            await self._feed(piece, data)

    async def _read(self, source: PieceReader, piece: int) -> bytes:
        place, failed = self._metainfo.layout.piece_range(piece), False

        def accept(received: bytes) -> bool:
            nonlocal failed
            right = self._metainfo.accepts(piece, received)
            failed = failed or not right
            return right

        file = self._metainfo.manifest.files[place.span.index]
        try:
            return await source.read(self._metainfo.manifest, file, place.offset, place.length, accept=accept)
        finally:
            if failed and source is self._seeders:
                self._on_bad_piece(piece)

    async def _feed(self, piece: int, data: bytes) -> None:
        taken = False
        self.fed.add(piece)
        try:
            taken = await self._torrent.feed(piece, data)
            if taken and self._zones is not None:
                self._zones.stored.keep(piece, data)
        finally:
            if not taken:
                self.fed.discard(piece)
