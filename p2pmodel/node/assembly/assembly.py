"""A snapshot of which nobody has a torrent, pulled by all who want it, a slice each, until it has one. Meanwhile they
exchange what they pulled (`node/assembly/exchange`).

What is pulled lies in the staged files, on record, where mirroring and transfers find it: however this ends, the next
step goes on from there. Who is alone mirrors the snapshot by itself, which is quicker, and claims all of it until
somebody joins.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from p2pmodel.config.settings import SwarmSettings
from p2pmodel.coordinator.assembly import assembly_layout
from p2pmodel.coordinator.assembly_messages import MAX_ROOTS, assembly_digest, manifest_text, update_text
from p2pmodel.coordinator.client.connection import CoordinatorConnection
from p2pmodel.coordinator.client.torrent_download import download_torrent
from p2pmodel.coordinator.client.urls import torrent_url
from p2pmodel.coordinator.lease_messages import CoordinatorMessage
from p2pmodel.coordinator.leases import Demand, bits_of
from p2pmodel.core.bitfield import pack
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.rate import Rate
from p2pmodel.core.tasks import Start, companions
from p2pmodel.errors import LocalResource, P2PModelError, Unavailable
from p2pmodel.node.assembly.exchange import Exchange
from p2pmodel.node.assembly.piece_roots import roots_of
from p2pmodel.node.assembly.piece_state import AssemblyPieces
from p2pmodel.node.assembly.slices import Slice, StagedFiles
from p2pmodel.node.reporter import Progress, Reporter
from p2pmodel.node.snapshot.inventory import Inventory, take_recorded_inventory
from p2pmodel.node.snapshot.mirror_copy import MirrorCopy, MirrorCopyResult
from p2pmodel.node.thread_progress import stoppable
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.space import check_space
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.torrents import Metainfo

ALONE_FOR = 1.5
"""Seconds in which nobody joined, after which the snapshot is mirrored as if there were nobody else."""
LOST_FOR = 5.0
"""Seconds without a coordinator's word after which there is none."""
AHEAD = 2.0
"""Seconds of pulling in a slice."""
FIRST_BYTES = 4 << 20
"""What is asked for while nobody knows how fast it comes."""
LEAST, MOST = 4, 1024
"""Pieces asked for at a time."""
LOOK_EVERY = 0.2
ASSEMBLED_WITHIN = 5.0
"""Seconds in which a coordinator has made the torrent of what it knows."""


class AssemblyFailed(Exception):
    """There will be no torrent. The text says why."""


@dataclass(frozen=True, slots=True)
class AssemblyOutcome:
    """How it ended. `pulled`: pieces that came from mirrors in this run, of `pulled_bytes` together; `traded`: from the
    other nodes, of `traded_bytes`; `complete`: the snapshot is published here."""

    metainfo: Metainfo | None
    pulled: frozenset[int] = frozenset()
    pulled_bytes: int = 0
    traded: frozenset[int] = frozenset()
    traded_bytes: int = 0
    complete: bool = False


class AssemblyDownload:
    """This node's part in one birth, at the first of `coordinators` that takes part in births."""

    def __init__(
        self,
        manifest: Manifest,
        refs: Sequence[str],
        *,
        repo: RepoCache,
        origin: Origin,
        coordinators: Sequence[str],
        engine: Callable[[], Awaitable[Engine]],
        settings: SwarmSettings,
        reporter: Reporter,
        growing: GrowingFiles | None = None,
    ) -> None:
        self._manifest = manifest
        self._growing = growing or GrowingFiles()
        self._refs = refs
        self._repo = repo
        self._origin = origin
        self._engine = engine
        self._settings = settings
        self._reporter = reporter
        self._layout = assembly_layout(manifest)
        self._staging = repo.staging(manifest.commit)
        self._text = manifest_text(manifest)
        self._presence = CoordinatorConnection(
            coordinators,
            f"/assemblies/{assembly_digest(self._text)}",
            peer=settings.listen,
            timeout=settings.coordinator_timeout,
            query={"revision": refs[0]} if refs else {},
        )
        self._gathered = AssemblyPieces(self._layout)
        self._in_flight: set[int] = set()
        self._drains = False
        """What is being pulled comes to its end, and nothing new is begun."""
        self._claims_all = False
        self._assembled = ""
        self._moved = time.monotonic()
        """When anything was last heard to go on."""
        self._news = asyncio.Event()
        self._rate = Rate()
        self._mirroring = False

    async def run(self) -> AssemblyOutcome:
        """Take part until the torrent is born, or the snapshot is complete, or there is to be no torrent: then a note
        says why. Raises what mirroring raises where this node did it by itself."""
        try:
            return await self._run()
        except AssemblyFailed as reason:
            self._reporter.note(f"{reason}: taking it from the mirrors alone")
        return self._outcome(None)

    async def _run(self) -> AssemblyOutcome:
        async with companions() as start:
            start(self._report())
            inventory = await self._take_inventory()
            self._gathered.begin()
            if self._gathered.complete:
                return AssemblyOutcome(None)
            missing = self._manifest.total_size - self._gathered.size(self._gathered.before)
            await asyncio.to_thread(check_space, self._repo.folder, missing)
            start(self._presence.run(self))
            await self._presence.answered()
            start(self._follow())
            if self._presence.message is None:
                raise AssemblyFailed("the coordinator cannot bring those together who want it")
            while True:
                if await self._together(inventory):
                    return self._outcome(await self._torrent())
                if mirrored := await self._by_myself():
                    return await self._finish(mirrored)
                inventory = await self._take_inventory()
                self._drains = self._claims_all = False
                self._presence.changed()

    # -- with others -----------------------------------------------------------------------------------------

    async def _together(self, inventory: Inventory) -> bool:
        """Pull what is leased to us. True once there is a torrent, False when we have been alone for a while."""
        length = self._layout.piece_length
        async with StagedFiles(self._staging, self._manifest, length) as staged, companions() as start:
            start(self._hash_inventory(inventory))
            exchange, joined = self._exchange(inventory, staged), set[str]()
            while not self._assembled:
                self._news.clear()
                self._drains = self._is_alone()
                if self._drains and not self._in_flight:
                    return False
                if not self._drains:
                    self._start_pulls(staged, start)
                for url in self._partial_torrents() - joined:
                    joined.add(url)
                    start(exchange.take_part(url))
                self._check_hope()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await self._news.wait()
        return not self._has_all_alone()

    def _exchange(self, inventory: Inventory, staged: StagedFiles) -> Exchange:
        return Exchange(
            self._manifest,
            self._layout,
            folder=self._repo.folder,
            paths=inventory.paths,
            staged=staged,
            engine=self._engine,
            settings=self._settings,
            has=lambda piece, root: piece in self._gathered.here and self._gathered.roots.get(piece) == root,
            wants=lambda piece: piece not in self._gathered.here and piece not in self._in_flight,
            on_piece=self._trade,
        )

    def _partial_torrents(self) -> set[str]:
        base = f"{self._presence.coordinator.rstrip('/')}/assemblies/{assembly_digest(self._text)}"
        message = self._presence.message
        return {f"{base}/{info_hash}.torrent" for info_hash in message.partial_torrents} if message else set()

    def _is_alone(self) -> bool:
        return self._has_all_alone() or self._presence.alone_for(time.monotonic()) > ALONE_FOR

    def _has_all_alone(self) -> bool:
        return self._gathered.complete and self._presence.peers == 1

    def _check_hope(self) -> None:
        now = time.monotonic()
        if self._presence.lost_for(now) > LOST_FOR:
            raise AssemblyFailed("the coordinator is gone")
        if self._in_flight or now - self._moved < self._settings.stall_timeout:
            return
        if self._presence.grant and self._presence.grant.refused:
            raise Unavailable(
                f"{self._manifest.repo} is not complete: its nodes have taken what swarm.origin_budget allows",
                hint="raise the coordinator's --origin-budget and run the same command: it resumes",
            )
        raise AssemblyFailed("nobody brings what is left")

    def _start_pulls(self, staged: StagedFiles, start: Start) -> None:
        pieces = self._presence.grant.pieces if self._presence.grant else ()
        for run in self._runs(p for p in sorted(pieces) if p not in self._gathered.here and p not in self._in_flight):
            self._in_flight.update(run)
            start(self._pull(staged, run))

    def _runs(self, pieces: Iterable[int]) -> Iterator[range]:
        """Consecutive pieces of one file together."""
        first = last = -2
        for piece in pieces:
            if piece != last + 1 or piece == self._layout.span_of(piece).first_piece:
                if first >= 0:
                    yield range(first, last + 1)
                first = piece
            last = piece
        if first >= 0:
            yield range(first, last + 1)

    async def _pull(self, staged: StagedFiles, run: range) -> None:
        span = self._layout.span_of(run.start)
        file = self._manifest.files[span.index]
        last = self._layout.piece_range(run.stop - 1)
        start, end = self._layout.piece_range(run.start).offset, last.offset + last.length
        try:
            async with staged.using(span.index) as partial:
                part = Slice(partial, file, start, end)
                await self._origin.pull(self._manifest, file, part, on_bytes=self._count, ranges_only=True)
                roots = await asyncio.to_thread(roots_of, partial.path, self._layout, run)
        except LocalResource:
            raise
        except P2PModelError as error:
            raise AssemblyFailed(error.what) from None
        finally:
            self._in_flight.difference_update(run)
        self._gathered.add(run)
        self._tell(roots)

    def _count(self, size: int) -> None:
        self._rate.add(size)
        self._moved = time.monotonic()

    def _trade(self, piece: int, root: bytes) -> None:
        self._moved = time.monotonic()
        self._gathered.trade(piece, root)

    def _tell(self, roots: dict[int, bytes]) -> None:
        self._gathered.root(roots)
        self._news.set()
        self._presence.changed()

    # -- what was here before --------------------------------------------------------------------------------

    async def _take_inventory(self) -> Inventory:
        with stoppable(lambda _: None) as count:
            inventory = await asyncio.to_thread(
                take_recorded_inventory, self._repo, self._manifest, self._layout, count
            )
        self._gathered.add(inventory.have)
        return inventory

    async def _hash_inventory(self, inventory: Inventory) -> None:
        with stoppable(lambda _: None) as count:
            for span in self._layout.spans:
                have = sorted(inventory.have.intersection(span.pieces))
                new = [piece for piece in have if piece not in self._gathered.roots]
                if new:
                    path = inventory.paths[span.index]
                    self._tell(await asyncio.to_thread(roots_of, path, self._layout, new, count))

    # -- alone -----------------------------------------------------------------------------------------------

    async def _by_myself(self) -> MirrorCopyResult | None:
        """Mirror the snapshot until somebody joins: then None."""
        self._claims_all = True
        self._presence.changed()
        mirroring = MirrorCopy(
            self._origin,
            self._repo,
            self._manifest,
            self._reporter,
            pulled_before=self._gathered.pulled_bytes,
            traded_before=self._gathered.size(self._gathered.traded),
            growing=self._growing,
        )
        self._mirroring = True
        work = asyncio.ensure_future(mirroring.run(self._manifest.files, self._refs))
        company = asyncio.ensure_future(self._company())
        try:
            await asyncio.wait({work, company}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, company):
                if not task.done():
                    task.cancel()
            await asyncio.wait({work, company})
            self._mirroring = False
        return None if work.cancelled() else work.result()

    async def _company(self) -> None:
        while self._presence.peers <= 1:
            await self._presence.next_change()

    async def _finish(self, mirrored: MirrorCopyResult) -> AssemblyOutcome:
        """Everything is here. Whoever comes later shall find a torrent."""
        self._gathered.add(range(self._layout.piece_count))
        for span in self._layout.spans:
            tree = mirrored.trees.get(span.path)
            if tree:
                self._tell({piece: tree.piece_hash(piece - span.first_piece) for piece in span.pieces})
        if self._gathered.rooted and self._presence.message:
            with suppress(TimeoutError, AssemblyFailed):
                async with asyncio.timeout(ASSEMBLED_WITHIN):
                    while not self._assembled:
                        self._news.clear()
                        await self._news.wait()
                    return self._outcome(await self._torrent(), complete=True)
        return self._outcome(None, complete=True)

    # -- with the coordinator --------------------------------------------------------------------------------

    def opening(self) -> list[str]:
        """The manifest."""
        self._gathered.greet()
        return [self._text]

    def message(self) -> str:
        """The demand, and roots that were not sent on this connection."""
        told = self._gathered.tell(MAX_ROOTS)
        if self._gathered.has_news:
            self._presence.changed()
        return update_text(self._demand(), self._layout.piece_count, told)

    def _demand(self) -> Demand:
        pulled = self._gathered.pulled_bytes
        if self._claims_all:
            return Demand(0, from_seeders=False, want=0, origin_bytes=pulled)
        return Demand(
            self._gathered.missing,
            from_seeders=False,
            want=self._want(),
            origin_bytes=pulled,
            leased=bits_of(self._in_flight - self._gathered.here),
        )

    def _want(self) -> int:
        """Leases are asked for many at a time, so that slices are long."""
        if self._drains:
            return 0
        grant = self._presence.grant
        held = sum(piece not in self._gathered.here for piece in grant.pieces) if grant else 0
        mean = self._manifest.total_size / self._layout.piece_count
        size = max(int(self._rate.value() * AHEAD), FIRST_BYTES)
        target = min(max(int(size / mean), LEAST), MOST)
        return target if 2 * held <= target else held

    async def _follow(self) -> None:
        """Follow the coordinator's messages until cancelled."""
        before: CoordinatorMessage | None = None
        while True:
            message = self._presence.message
            if message and (
                before is None or (message.left, message.grant.pieces) != (before.left, before.grant.pieces)
            ):
                self._moved = time.monotonic()
            if message and message.assembled:
                self._assembled = message.assembled
            before = message
            self._news.set()
            await self._presence.next_change()

    async def _torrent(self) -> Metainfo:
        """What was born. The pieces of it that are here are put on record, so that nobody looks for them again."""
        url = torrent_url(self._presence.coordinator, self._assembled)
        try:
            metainfo = await download_torrent(url, stall=self._settings.coordinator_timeout)
        except P2PModelError as error:
            raise AssemblyFailed(error.what) from None
        if metainfo.manifest != self._manifest or metainfo.info_hash != self._assembled:
            raise AssemblyFailed("the coordinator made another torrent than that of the snapshot")
        field = pack(self._gathered.right(metainfo), self._layout.piece_count)
        await asyncio.to_thread(self._staging.save_have, metainfo.info_hash, field)
        return metainfo

    # -- arithmetic and progress -----------------------------------------------------------------------------

    def _outcome(self, metainfo: Metainfo | None, *, complete: bool = False) -> AssemblyOutcome:
        has = self._gathered
        traded = frozenset(has.traded)
        return AssemblyOutcome(metainfo, has.pulled, has.pulled_bytes, traded, has.size(traded), complete)

    async def _report(self) -> None:
        while True:
            if not self._mirroring:
                self._reporter.progress(self._progress())
            await asyncio.sleep(LOOK_EVERY)

    def _progress(self) -> Progress:
        has = self._gathered
        grant = self._presence.grant
        pulled = has.pulled_bytes if grant else 0
        cached, traded = has.size(has.before), has.size(has.traded)
        waits = grant is not None and not self._in_flight and not grant.pieces
        return Progress(
            "mirroring" if grant else "checking",
            self._manifest.total_size,
            cached + pulled + traded,
            from_cache=cached,
            from_peers=traded,
            from_mirrors=pulled,
            peers=grant.peers - 1 if grant else 0,
            download_rate=self._rate.value(),
            waiting_for="what others pull from the mirrors" if waits else "",
        )
