"""Run one attempt at a download: joined to the swarm, from the first missing piece to the published snapshot.

`join` makes all parts of an attempt and then the attempt itself. Invariants, to re-check when editing:
1. Before a file gets its blob name, every piece has passed the Merkle check, all are fenced to disk, and the hash of
   the whole content equals the hub's, or a signature states that it does (`DownloadPlan.hashes_signed`). The snapshot
   appears after all its blobs, refs last.
2. The set of missing pieces shrinks only on the engine's PieceVerified; only another attempt counts it again.
3. Every wait ends: by an event, by the mirrors' failure, or by `stall_timeout` without any progress.
4. Received pieces are written and recorded all the while, and when the attempt ends, however it ends.
5. An attempt for `only` some pieces (headers, with which the next one finds more; a rank's part) publishes nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from p2pmodel.core import notes
from p2pmodel.core.network.connections import PeerConnection, joined
from p2pmodel.core.progress.progress import cut_off
from p2pmodel.core.tasks import Start, in_the_end
from p2pmodel.errors import Unavailable, WrongTorrent
from p2pmodel.node.fetch.disputes import DisputedFile, Disputes
from p2pmodel.node.fetch.piece_order import keep_order
from p2pmodel.node.fetch.pieces.block_pull import BlockPull
from p2pmodel.node.fetch.pieces.feed import PieceFeed
from p2pmodel.node.fetch.pieces.leaseholder import Leaseholder, NoLeases
from p2pmodel.node.fetch.pieces.orphan_strategy import OrphanStrategy
from p2pmodel.node.fetch.pieces.readable_files import ReadableFiles
from p2pmodel.node.fetch.pieces.seeders import Seeders
from p2pmodel.node.fetch.pieces.stats import PieceSource
from p2pmodel.node.fetch.plan import DownloadContext
from p2pmodel.node.fetch.publisher import DamagedFile, Publisher
from p2pmodel.node.fetch.stall import StallClock
from p2pmodel.node.private.membership import PublicSwarm, SwarmMembership
from p2pmodel.node.reporter import Phase
from p2pmodel.node.snapshot.inventory import Inventory
from p2pmodel.node.snapshot.piece_checks import PieceChecks
from p2pmodel.node.trouble import PeerTrouble
from p2pmodel.origin.origin import Origin
from p2pmodel.store.file_links import FileLinks
from p2pmodel.swarm.engine import (
    DiskFailed,
    Event,
    PeerBanned,
    PieceRejected,
    PieceVerified,
    SwarmStatus,
    SwarmTorrent,
    TrackerWarned,
)

STALL_CHECK_EVERY = 0.2
MOST_BAD = 8
"""Bad pieces of which a banned peer is accused: the last ones before its ban."""


class PhaseObserver(Protocol):
    """Receives the phases of an attempt."""

    def enter(self, phase: Phase) -> None:
        """The attempt has reached `phase`."""


class Attempt:
    """One attempt; `join` makes it. `run` it once, then `follow_events` while it seeds, then `leave`."""

    def __init__(
        self,
        context: DownloadContext,
        observer: PhaseObserver,
        *,
        torrent: SwarmTorrent,
        inventory: Inventory,
        links: FileLinks,
        feed: PieceFeed,
        orphans: OrphanStrategy,
        leases: Leaseholder | NoLeases,
        seeders: Seeders,
        membership: PublicSwarm | SwarmMembership,
        blocks: BlockPull,
        only: frozenset[int] | None = None,
    ) -> None:
        self.blocks = blocks
        self.membership = membership
        self.only = only
        self.torrent = torrent
        self.stall = StallClock(context.plan, torrent, feed, may_mirror=context.origin is not None)
        self._context = context
        self._stats = context.stats
        self._observer = observer
        self._inventory = inventory
        self._links = links
        self._feed = feed
        self._orphans = orphans
        self._leases = leases
        self._seeders = seeders
        self._disputes = Disputes(context.plan.judged)
        self._left = False
        self._has_only = asyncio.Event()
        self._bad: deque[int] = deque(maxlen=MOST_BAD)
        """The last pieces that failed their check."""
        self._checks = PieceChecks(context.repo, context.metainfo, context.reporter.note)
        self._trouble = PeerTrouble(context.reporter.note, connected=lambda: self.status().peers)
        self._told = False
        """Whether the exception was noted."""
        self._readable = ReadableFiles(
            context.metainfo,
            context.repo,
            context.growing,
            durable=lambda: context.record.durable,
            request=self._bring_first,
        )
        self._publisher = Publisher(
            context.repo,
            context.staging,
            context.metainfo,
            torrent,
            inventory,
            links=links,
            observer=self,
            missing=self._stats.missing,
            hashes_signed=context.plan.hashes_signed,
        )

    async def run(self, start: Start) -> None:
        """Download and publish every planned file, or get `only` some pieces; `start` keeps tasks that end with the
        attempt.

        Raises DamagedFile, DisputedFile, WrongTorrent, or the reason why the pieces cannot be had.
        """
        readable = frozenset() if self.only is not None else self._context.plan.files - self._inventory.complete
        with self._readable.written(readable, self._inventory.paths):
            start(self.follow_events())
            start(self._context.record.run(self.torrent))
            start(self._watch_for_stall())
            start(keep_order(self.torrent, has_web_seeds=lambda: self._leases.has_web_seeds))
            start(self._feed.run())
            start(self._leases.run())
            start(self.membership.watch())
            if self.only is not None:
                await self.blocks.run()
                if self._stats.missing:
                    await self._has_only.wait()
                return
            try:
                await self._publish()
            except DamagedFile as damage:
                await self._readable.corrupt(damage.index)
                raise
            except WrongTorrent:
                await self._readable.corrupt_unverified()
                raise

    async def leave(self) -> None:
        """Record what is durable, and leave the swarm."""
        self._left = True
        try:
            await self._context.record.save(self.torrent)
        finally:
            try:
                await self._leases.close()
                await self.torrent.remove()
            finally:
                await self.membership.close()
                await in_the_end(asyncio.to_thread(self._links.remove))

    def status(self) -> SwarmStatus:
        """The torrent in the swarm."""
        return self.torrent.status()

    def bytes_from_other_zones(self) -> int | None:
        """Bytes of verified pieces from peers and seeders of other zones; None where this node has no zone.

        What zones send is counted before it is verified, so the bytes of verified pieces bound it.
        """
        swarm = self.status().from_other_zones
        if swarm is None:
            return None
        zones = self._leases.zones.received if self._leases.zones else 0
        outside = swarm + zones + self._seeders.bytes_from_outside(self._context.plan.zone.name)
        return min(outside, self._stats.from_peers)

    def received_over_http(self) -> int:
        """Bytes that mirrors and seeders have sent to this attempt."""
        return received_over_http(self._context.origin, self._seeders, self._leases)

    @property
    def exception(self) -> str:
        """How this node deviates from the swarm's rules for mirrors, and why; "" if it does not."""
        return cut_off(self._context.plan.node) if self._feed.cut_off else ""

    @property
    def unreachable(self) -> str:
        """Which peers cannot connect to this node, or it to them; "" without such trouble."""
        return self._trouble.unreachable(missing=bool(self._stats.missing))

    async def connections(self) -> tuple[PeerConnection, ...]:
        """The seeders that pieces are pulled from, and the connected peers."""
        seeders = self._seeders.connections() if self._stats.missing else ()
        return joined(seeders, await self.torrent.connections())

    def follow_events(self) -> Coroutine[Any, Any, None]:
        """Handle the engine's events until cancelled. Subscribes at once: earlier events are not delivered."""
        return self._consume(self.torrent.events())

    def check_complaints(self) -> Coroutine[Any, Any, None]:
        """Check pieces that other peers complained about, until cancelled."""
        return self._checks.run()

    async def on_disk(self) -> None:
        """Record the last pieces of a file, which a load waits for, before it is hashed; satisfies
        `PublishObserver`."""
        with suppress(Unavailable):  # a slow disk: the load sees them once the file is verified
            await self._context.record.save_whole(self.torrent)

    def file_verified(self, index: int, *, hashed: bool) -> None:
        """Readers may read file `index` to its end, and sources that sent other bytes were wrong: the hub's hash alone
        proves that. Satisfies `PublishObserver`."""
        self._readable.verified(index)
        self._stats.verified.add(index)
        if not hashed:
            return
        file = self._context.metainfo.manifest.files[index]
        self._seeders.judge(file)
        if self._context.origin is not None:
            self._context.origin.judge(file, pieces_right=True)

    def publishing(self) -> None:
        """All blobs have their names; satisfies `PublishObserver`."""
        self._observer.enter("publishing")

    async def _consume(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            self._handle(event)

    async def _publish(self) -> None:
        for index in self._stats.whole():
            self._publisher.file_is_whole(index)
        plan = self._context.plan
        await self._publisher.publish(plan.files, plan.refs)

    def _handle(self, event: Event) -> None:
        match event:
            case PieceVerified(piece):
                self._piece_arrived(piece)
            case PieceRejected(piece):
                self._stats.count_rejected()
                self._feed.rejected(piece)
                self._bad.append(piece)
            case PeerBanned(address):
                for piece in self._bad:
                    self._leases.complain(piece, address)
                self._context.reporter.note(
                    notes.warning("peer_banned", f"peer {address} sent bad pieces and is banned", peer=address)
                )
            case DiskFailed():
                needed = self._stats.size(self._stats.missing)
                raise event.error(f", {needed} bytes still to come")
            case _:
                self._trouble.handle(event)
                self.stall.heard(event)
                if isinstance(event, TrackerWarned):
                    self._checks.warned(event.message)

    def _piece_arrived(self, piece: int) -> None:
        if piece not in self._stats.missing:
            return
        source = self._source_of(piece)
        self._disputes.arrived(self._context.metainfo.layout.piece_range(piece).span.index)
        whole = self._stats.arrived(piece, source, spared=self._feed.spared.get(piece, 0))
        self.stall.progressed()
        self._context.record.arrived()
        self._leases.arrived(piece)
        if self.exception and not self._told:
            self._told = True
            text = f"{self.exception}: it downloads from the mirrors what they should send"
            self._context.reporter.note(notes.warning("cut_off", text, node=self._context.plan.node))
        if source != "mirrors":
            self._orphans.progressed(time.monotonic())
        if whole is not None:
            self._publisher.file_is_whole(whole)
        if self.only is not None and not self._stats.missing:
            self._has_only.set()
        elif not self._stats.missing:
            self._observer.enter("verifying")

    def _source_of(self, piece: int) -> PieceSource:
        if piece in self._feed.from_mirrors:
            return "mirrors"
        return "seeders" if piece in self._feed.from_seeders or self._leases.has_web_seeds else "peers"

    def _bring_first(self, piece: int) -> bool:
        """Whether it is missing."""
        if piece not in self._stats.missing or self._left:
            return False
        self.torrent.prioritize(piece)
        return True

    async def _watch_for_stall(self) -> None:
        """Invariant 3: give up when no source is left, with an error that lists the sources."""
        while True:
            await asyncio.sleep(STALL_CHECK_EVERY)
            missing = len(self._stats.missing)
            if missing:
                self._trouble.look()
            error = self.stall.given_up(missing) if missing else None
            if missing and (disputed := self._disputed(at_once=error is not None)) is not None:
                raise DisputedFile(disputed)
            if error is not None:
                raise error

    def _disputed(self, *, at_once: bool) -> int | None:
        """The file to judge by one whole copy from the mirrors; `at_once`: nothing else is left to do."""
        origin, files = self._context.origin, self._context.metainfo.manifest.files
        if origin is None:
            return None
        suspected = [index for index in self._stats.incomplete() if origin.doubts(files[index])]
        return self._disputes.due(suspected, self._feed.requested_files, time.monotonic(), at_once=at_once)


def received_over_http(origin: Origin | None, seeders: Seeders, leases: Leaseholder | NoLeases) -> int:
    zones = leases.zones.received if leases.zones else 0
    return seeders.received + zones + (sum(origin.bytes_by_mirror.values()) if origin else 0)
