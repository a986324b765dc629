"""One snapshot arriving at this node through the swarm, and then served from it.

Invariants, to re-check when editing:
1. A file gets its blob name only after every piece passed the Merkle check, the pieces were fenced to disk, and
   the whole content gave the hub's own hash. The snapshot appears after all its blobs, refs last.
2. What is missing shrinks only on the engine's PieceVerified; it is counted anew only when a transfer joins again.
3. Every wait ends: by an event, by the mirrors' failure, or by `stall_timeout` without any progress.
4. What has arrived is written and recorded all the while and when the transfer ends, however it ends.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Self

from p2pmodel.coordinator.client.catalog import announcing_as, public_name
from p2pmodel.coordinator.client.connection import CoordinatorConnection
from p2pmodel.coordinator.lease_messages import lease_path
from p2pmodel.coordinator.leases import Demand, bits_of
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.core.bitfield import pack
from p2pmodel.core.connections import PeerConnection
from p2pmodel.core.tasks import Start, companions
from p2pmodel.errors import LocalResource, NoSpace, Unavailable, WrongTorrent
from p2pmodel.node.fetch.have_record import HaveRecord
from p2pmodel.node.fetch.leaseholder import Leaseholder
from p2pmodel.node.fetch.orphans import OrphanPieces, OrphanRules
from p2pmodel.node.fetch.piece_feed import PieceFeed
from p2pmodel.node.fetch.piece_order import keep_order
from p2pmodel.node.fetch.piece_stats import PieceSource, PieceStats
from p2pmodel.node.fetch.plan import DownloadPlan
from p2pmodel.node.fetch.publisher import DamagedFile, Publisher
from p2pmodel.node.fetch.seeders import Seeders
from p2pmodel.node.fetch.stall import StallClock
from p2pmodel.node.fetch.transfer_windows import TransferWindows
from p2pmodel.node.reporter import Phase, Pieces, Progress, Reporter
from p2pmodel.node.seed.web_seed import WebSeed, WebSeedOffer
from p2pmodel.node.snapshot.file_windows import FileWindows
from p2pmodel.node.snapshot.inventory import Inventory, take_inventory
from p2pmodel.node.thread_progress import stoppable
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.space import check_space
from p2pmodel.swarm.engine import (
    AddTorrent,
    DiskFailed,
    Engine,
    Event,
    PeerBanned,
    PieceRejected,
    PieceVerified,
    SwarmStatus,
    SwarmTorrent,
    TrackerAnswered,
    TrackerFailed,
)

REPORT_EVERY = 0.2
HANDED_ON_AFTER = 1.5
"""Seconds without a byte sent after which nobody lacks what we have."""
HAND_ON_FOR = 60.0
"""Seconds after which who still lacks something is left to the others."""
REPORT_SEEDING_EVERY = 0.5
MAX_DAMAGE = 3
"""Times one file may prove damaged on this disk before the disk is given up."""


class Download:
    """Owns the state of one download and its seeding: `async with`, then `download()`, then `seed()`. Meanwhile
    `arriving` shows what has come of its files."""

    def __init__(
        self,
        plan: DownloadPlan,
        *,
        engine: Engine,
        repo: RepoCache,
        origin: Origin | None,
        reporter: Reporter,
        arriving: FileWindows | None = None,
        outlet: WebSeed | None = None,
    ) -> None:
        self._plan = plan
        self._metainfo = plan.metainfo
        self._engine = engine
        self._repo = repo
        self._origin = origin
        self._reporter = reporter
        self._outlet = outlet
        self._offer: WebSeedOffer | None = None
        self._staging = repo.staging(plan.metainfo.manifest.commit)
        self._torrent: SwarmTorrent | None = None
        self._publisher: Publisher | None = None
        self._pulling: OrphanPieces | None = None
        self._feed: PieceFeed | None = None
        self._leaseholder: Leaseholder | None = None
        self._seeders: Seeders | None = None
        self._tally = PieceStats(plan.metainfo, plan.files)
        self._record = HaveRecord(self._staging, plan.metainfo, self._tally)
        self._showing = TransferWindows(
            plan.metainfo,
            repo,
            arriving or FileWindows(),
            durable=lambda: self._record.durable,
            waited_for=self._bring_first,
        )
        self._waiting = StallClock(plan, peers=self._peers, may_mirror=origin is not None)
        self._rejected = 0
        self._phase: Phase = "checking"
        self._checked = 0
        self._damage: dict[int, int] = {}
        self._own = secrets.token_hex(4)

    async def __aenter__(self) -> Self:
        self._reporter.insight(self)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._leave()

    async def download(self) -> None:
        """Bring every planned file here, verified and published. Raises the reason when that cannot be done."""
        while True:
            try:
                return await self._attempt()
            except DamagedFile as damage:
                self._damage[damage.index] = self._damage.get(damage.index, 0) + 1
                if self._damage[damage.index] >= MAX_DAMAGE:
                    raise LocalResource(
                        f"{damage.path} is damaged after each download", hint="check this machine's disk and memory"
                    ) from None
                self._reporter.note(f"{damage.path} was damaged on this disk; its bad pieces are downloaded again")
                await self._leave()

    async def seed(self, *, seconds: float | None, ratio: float | None) -> None:
        """Serve the snapshot until either bound is reached (None: no such bound; both None: for ever)."""
        self._phase = "seeding"
        ends = None if seconds is None else time.monotonic() + seconds
        assert self._torrent is not None
        async with companions() as start:
            start(self._consume(self._torrent.events()))
            start(self._report(REPORT_SEEDING_EVERY))
            if self._outlet and self._tally.has_all:
                self._offer = self._new_offer(self._outlet, self._torrent)
                start(self._offer.run())
            while ends is None or time.monotonic() < ends:
                if ratio is not None and self._uploaded() >= ratio * self._tally.total:
                    return
                await asyncio.sleep(REPORT_SEEDING_EVERY)

    def _new_offer(self, outlet: WebSeed, torrent: SwarmTorrent) -> WebSeedOffer:
        return WebSeedOffer(
            outlet,
            torrent,
            self._metainfo,
            coordinators=self._plan.coordinators,
            trackers=self._plan.trackers,
            uploaded=self._uploaded,
            on_note=self._reporter.note,
        )

    async def hand_on(self) -> None:
        """Serve the snapshot until those that are here have taken what only we have: until nothing went out for
        `HANDED_ON_AFTER` seconds, or `HAND_ON_FOR` have passed."""
        assert self._torrent is not None
        began = last = time.monotonic()
        sent, met = self._uploaded(), False
        while (now := time.monotonic()) < min(last + HANDED_ON_AFTER, began + HAND_ON_FOR):
            met = met or self._peers() > 0
            if met and not self._peers():
                return
            if self._uploaded() > sent or (not met and now < began + (self._plan.meeting or 0.0)):
                sent, last = self._uploaded(), now
            await asyncio.sleep(REPORT_EVERY)

    def progress(self) -> Progress:
        """The transfer at this moment."""
        status, tally = self._torrent.status() if self._torrent else None, self._tally
        return Progress(
            phase=self._phase,
            total=tally.total,
            done=self._checked if self._phase == "checking" else tally.done,
            from_cache=tally.from_cache,
            from_peers=tally.from_peers,
            from_seeders=tally.from_seeders,
            from_mirrors=tally.from_mirrors,
            from_other_zones=self._from_other_zones(status),
            uploaded=self._uploaded(),
            peers=status.peers if status else 0,
            download_rate=status.download_rate if status else 0,
            upload_rate=status.upload_rate if status else 0,
            waiting_for=self._waiting.reason() if tally.missing and self._phase == "downloading" else "",
            rejected=self._rejected,
        )

    def pieces(self) -> Pieces:
        """Which pieces are here, and whence; none while it is in no swarm."""
        if self._torrent is None:
            return Pieces()
        status, count = self._torrent.status(), self._metainfo.layout.piece_count
        return Pieces(
            count,
            have=pack(status.have, count),
            from_cache=pack(status.have & self._tally.before, count),
            from_mirrors=pack(status.have & self._tally.mirrored, count),
            availability=bytes(min(peers, 255) for peers in status.availability),
        )

    async def connections(self) -> tuple[PeerConnection, ...]:
        """The seeders that pieces are pulled from, and the peers that are connected."""
        torrent = self._torrent
        pulled = self._seeders.connections() if self._seeders and self._tally.missing else ()
        return (*pulled, *(await torrent.connections() if torrent else ()))

    # -- joining and leaving ---------------------------------------------------------------------------------

    async def _attempt(self) -> None:
        async with self._new_seeders() as seeders, companions() as start, AsyncExitStack() as stack:
            start(self._report())
            self._seeders = seeders
            torrent, inventory = await self._join(seeders, start)
            stack.enter_context(self._showing.shown(self._plan.files - inventory.complete, inventory.paths))
            start(self._consume(torrent.events()))  # opened here and now: what happens before that is never told
            start(self._record.run(torrent))
            start(self._watch_for_stall())
            start(keep_order(torrent))
            if self._feed:
                start(self._feed.run())
            if self._leaseholder:
                start(self._leaseholder.run())
            try:
                await self._publish()
            except DamagedFile as damage:
                await self._showing.damaged(damage.index)
                raise
            except WrongTorrent:
                await self._showing.doubted()
                raise
        self._enter("done")

    def _new_seeders(self) -> Seeders:
        plan = self._plan
        return Seeders(plan.origin_settings, self._identity, self._reporter.note, pace=plan.pace)

    @property
    def _identity(self) -> str:
        """What tells us from other peers: where all listen on all addresses, the address does not."""
        return f"{ListenAddress(*self._engine.address)} {self._own}"

    async def _join(self, seeders: Seeders, start: Start) -> tuple[SwarmTorrent, Inventory]:
        self._checked = 0
        self._enter("checking")
        known = await self._known_pieces()
        with stoppable(self._count_checked) as count:
            inventory = await asyncio.to_thread(
                take_inventory, self._repo, self._staging, self._metainfo, known=known, on_bytes=count
            )
        self._tally.begin(inventory.have, mirrored=self._plan.mirrored, traded=self._plan.traded)
        await asyncio.to_thread(check_space, self._repo.folder, self._tally.size(self._tally.missing))
        shuns_seeders, trackers = await self._ask_for_leases(seeders, start), self._plan.trackers
        self._torrent = await self._engine.add(
            AddTorrent(
                metainfo=self._metainfo.raw,
                save_path=self._repo.folder,
                files={self._metainfo.file_indexes[i]: str(path) for i, path in enumerate(inventory.paths)},
                have=inventory.have,
                wanted=frozenset(self._metainfo.file_indexes[i] for i in self._plan.files),
                trackers=tuple(announcing_as("lessee", t) for t in trackers) if shuns_seeders else trackers,
                peers=self._plan.peers,
            )
        )
        self._publisher = Publisher(
            self._repo,
            self._staging,
            self._metainfo,
            self._torrent,
            inventory,
            missing=self._tally.missing,
            on_right=self._showing.verified,
        )
        self._record.begin(inventory.have)
        self._start_pulling(self._torrent, seeders)
        self._enter("downloading" if self._tally.missing else "verifying")
        self._waiting.progressed()
        return self._torrent, inventory

    async def _ask_for_leases(self, seeders: Seeders, start: Start) -> bool:
        """Whether seeders are pulled from under leases: then they are not to be met in the swarm."""
        self._leaseholder = self._feed = self._waiting.feed = None
        if not self._tally.missing or not self._plan.coordinators:
            return False
        connection = CoordinatorConnection(
            self._plan.coordinators,
            lease_path(self._metainfo.info_hash),
            peer=str(ListenAddress(*self._engine.address)),
            timeout=self._plan.coordinator_timeout,
        )
        self._leaseholder = Leaseholder(
            connection,
            seeders,
            piece_count=self._metainfo.layout.piece_count,
            waiting=Demand(bits_of(self._tally.missing), near=False, want=0),
        )
        await self._leaseholder.begin(start)
        return self._leaseholder.shuns_seeders

    def _start_pulling(self, torrent: SwarmTorrent, seeders: Seeders) -> None:
        rules = OrphanRules(grace=self._plan.peer_timeout, limit=self._plan.mirror_pieces)
        self._pulling = OrphanPieces(self._metainfo.layout.piece_count, self._engine.peer_id, rules, time.monotonic())
        if self._origin is None and self._leaseholder is None:
            return
        self._feed = self._waiting.feed = PieceFeed(
            torrent,
            self._metainfo,
            self._origin,
            self._pulling,
            lambda: frozenset(self._tally.missing),
            seeders=seeders,
            origin_bytes=self._tally.size(self._plan.mirrored),
            meeting=self._plan.meeting,
        )
        if self._leaseholder:
            self._leaseholder.hold(torrent, self._feed)

    async def _leave(self) -> None:
        if self._torrent is None:
            return
        torrent, self._torrent = self._torrent, None
        try:
            await self._record.save(torrent)
        finally:
            await torrent.remove()

    async def _known_pieces(self) -> frozenset[int]:
        """Pieces an earlier run recorded as durable, except those of files that proved damaged since."""
        return await self._record.load() - {p for i in self._damage for p in self._metainfo.layout.spans[i].pieces}

    def _count_checked(self, count: int) -> None:
        self._checked += count

    # -- while it runs ---------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        assert self._publisher is not None
        for index in self._tally.whole():
            self._publisher.file_is_whole(index)
        await self._publisher.publish(self._plan.files, self._plan.refs, on_last=lambda: self._enter("publishing"))

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._reporter.progress(self.progress())

    async def _consume(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            self._handle(event)

    def _handle(self, event: Event) -> None:
        match event:
            case PieceVerified(piece):
                self._piece_arrived(piece)
            case PieceRejected(piece):
                self._rejected += 1
                if self._feed:
                    self._feed.fed.discard(piece)
            case PeerBanned(address):
                self._reporter.note(f"peer {address} sent bad pieces and is banned")
            case DiskFailed(path, message, full):
                raise self._disk_error(path, message, full=full)
            case TrackerFailed(url, message):
                self._waiting.silent_trackers[url] = f"tracker {public_name(url)}: {message}"
            case TrackerAnswered(url):
                self._waiting.silent_trackers.pop(url, None)

    def _piece_arrived(self, piece: int) -> None:
        if piece not in self._tally.missing:
            return
        source = self._source_of(piece)
        whole = self._tally.arrived(piece, source)
        self._waiting.progressed()
        if self._leaseholder:
            self._leaseholder.arrived(piece)
        if source != "mirrors" and self._pulling:
            self._pulling.progressed(time.monotonic())
        if self._publisher and whole is not None:
            self._publisher.file_is_whole(whole)
        if not self._tally.missing:
            self._enter("verifying")

    def _bring_first(self, piece: int) -> None:
        if self._torrent is not None and piece in self._tally.missing:
            with suppress(Unavailable):  # it goes on after a failure of the disk soon, and who waits says so again
                self._torrent.bring_first(piece)

    def _source_of(self, piece: int) -> PieceSource:
        if self._feed is not None and piece in self._feed.from_mirrors:
            return "mirrors"
        return "seeders" if self._feed is not None and piece in self._feed.from_seeders else "peers"

    def _disk_error(self, path: str, message: str, *, full: bool) -> LocalResource:
        if full:
            needed = self._tally.size(self._tally.missing)
            return NoSpace(
                f"no space left on the disk at {path}, {needed} bytes still to come",
                hint="free some and run the same command: it resumes",
            )
        return LocalResource(f"cannot use {path}: {message}", hint="mend it and run the same command: it resumes")

    async def _report(self, every: float = REPORT_EVERY) -> None:
        while True:
            self._reporter.progress(self.progress())
            await asyncio.sleep(every)

    async def _watch_for_stall(self) -> None:
        """Invariant 3: give up when nobody can help, saying who was asked."""
        while True:
            await asyncio.sleep(REPORT_EVERY)
            missing = len(self._tally.missing)
            if missing and (error := self._waiting.given_up(missing)):
                raise error

    def _from_other_zones(self, status: SwarmStatus | None) -> int | None:
        if status is None or status.from_other_zones is None:
            return None
        pulled = self._seeders.bytes_from_outside(self._plan.zone) if self._seeders else 0
        return status.from_other_zones + pulled

    # -- arithmetic ------------------------------------------------------------------------------------------

    def _peers(self) -> int:
        return self._torrent.status().peers if self._torrent else 0

    def _uploaded(self) -> int:
        pulled = self._offer.sent() if self._offer else 0
        return pulled + (self._torrent.status().uploaded if self._torrent else 0)
