"""One node's part in an assembly: it downloads a slice from the mirrors and exchanges pieces with the other nodes.

Downloaded bytes are in the staged files, on record, where mirroring and transfers find them: however the assembly ends,
the next step goes on from there. A node without others mirrors the whole snapshot by itself, which is quicker, and
claims all pieces until another node joins.
"""

import asyncio
from contextlib import suppress

from p2pmodel.core import notes
from p2pmodel.core.tasks import companions
from p2pmodel.node.assembly.context import AssemblyContext
from p2pmodel.node.assembly.exchange import Exchange
from p2pmodel.node.assembly.membership import Membership
from p2pmodel.node.assembly.outcome import AssemblyFailed, AssemblyOutcome, AssemblySilent, assembled_torrent
from p2pmodel.node.assembly.piece_state import AssemblyPieces
from p2pmodel.node.assembly.slice_download import SliceDownload, roots_of
from p2pmodel.node.assembly.slices import StagedFiles
from p2pmodel.node.reporter import Progress, stoppable
from p2pmodel.node.snapshot.inventory import Inventory, take_recorded_inventory
from p2pmodel.node.snapshot.mirror_copy import MirrorCopy, MirrorCopyResult
from p2pmodel.store.files.space import check_space
from p2pmodel.swarm.torrents import Metainfo

LOOK_EVERY = 0.2
ASSEMBLED_WITHIN = 5.0
"""Seconds in which a coordinator has made the torrent once it has all roots."""


class AssemblyDownload:
    """One assembly of a snapshot at this node; `run` it once."""

    def __init__(self, context: AssemblyContext) -> None:
        self._context = context
        self._manifest = context.manifest
        self._reporter = context.reporter
        self._pieces = AssemblyPieces(context.layout)
        self._membership = Membership(context, self._pieces)
        self._exchange: Exchange | None = None
        """The exchange with other nodes, once there is one."""
        self._mirroring = False

    async def run(self) -> AssemblyOutcome:
        """Take part until there is a torrent, or the snapshot is complete, or the assembly fails, which a note reports.
        Others may have made the torrent meanwhile.

        Raises the errors of mirroring where this node downloads the snapshot by itself.
        """
        try:
            return await self._run()
        except AssemblyFailed as reason:
            metainfo = await self._context.torrent_by_now()
            usable = metainfo if metainfo is not None and self._context.fits(metainfo) else None
            instead = "downloading from the mirrors alone" if usable is None else "joining the swarm of its torrent"
            self._reporter.note(notes.warning("assembly_failed", f"{reason}: {instead}"))
            silent = usable is None and isinstance(reason, AssemblySilent)
            return AssemblyOutcome.of(self._pieces, usable, cut_off=silent)

    async def _run(self) -> AssemblyOutcome:
        async with companions() as start:
            start(self._report())
            inventory = await self._take_inventory()
            self._pieces.begin()
            if self._pieces.complete:
                return AssemblyOutcome(None)
            missing = self._manifest.total_size - self._pieces.size(self._pieces.before)
            await asyncio.to_thread(check_space, self._context.repo.folder, missing)
            await self._membership.join(start)
            while True:
                if await self._download_together(inventory):
                    return AssemblyOutcome.of(self._pieces, await self._torrent())
                if copied := await self._mirror_alone():
                    return await self._finish(copied)
                inventory = await self._take_inventory()
                self._membership.share()

    # -- with other nodes ------------------------------------------------------------------------------------

    async def _download_together(self, inventory: Inventory) -> bool:
        """Download granted slices and exchange pieces. True once there is a torrent, False after a while alone."""
        context, membership = self._context, self._membership
        length = context.layout.piece_length
        async with StagedFiles(context.repo.staged, self._manifest, length) as staged, companions() as start:
            start(self._hash_inventory(inventory))
            slices = SliceDownload(context, membership, staged)
            exchange, joined = Exchange(context, membership, staged, inventory.paths), set[str]()
            self._exchange = exchange
            while not membership.assembled:
                membership.changed.clear()
                draining = membership.drain_if_alone()
                if draining and not self._pieces.in_flight:
                    return False
                if not draining:
                    slices.begin(start)
                for url in membership.partial_torrents() - joined:
                    joined.add(url)
                    start(exchange.take_part(url))
                membership.check_progress()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await membership.changed.wait()
        return not membership.has_all_alone()

    async def _torrent(self) -> Metainfo:
        membership = self._membership
        assert membership.coordinator is not None  # it sent the info-hash
        return await assembled_torrent(self._context, self._pieces, membership.coordinator, membership.assembled)

    # -- pieces of earlier runs ------------------------------------------------------------------------------

    async def _take_inventory(self) -> Inventory:
        context = self._context
        with stoppable(lambda _: None) as count:
            inventory = await asyncio.to_thread(
                take_recorded_inventory, context.repo, self._manifest, context.layout, count
            )
        self._pieces.add(inventory.have)
        return inventory

    async def _hash_inventory(self, inventory: Inventory) -> None:
        layout = self._context.layout
        with stoppable(lambda _: None) as count:
            for span in layout.spans:
                have = sorted(inventory.have.intersection(span.pieces))
                new = [piece for piece in have if piece not in self._pieces.roots]
                if new:
                    path = inventory.paths[span.index]
                    self._membership.add_roots(await asyncio.to_thread(roots_of, path, layout, new, count))

    # -- alone -----------------------------------------------------------------------------------------------

    async def _mirror_alone(self) -> MirrorCopyResult | None:
        """Mirror the snapshot; None if another node joins meanwhile."""
        context, pieces = self._context, self._pieces
        self._membership.claim_all()
        copy = MirrorCopy(
            context.origin,
            context.repo,
            self._manifest,
            self._reporter,
            pulled_before=pieces.pulled_bytes,
            exchanged_before=pieces.size(pieces.exchanged),
            growing=context.growing,
        )
        self._mirroring = True
        work = asyncio.ensure_future(copy.run(self._manifest.files, context.refs))
        joining = asyncio.ensure_future(self._membership.others_joined())
        try:
            await asyncio.wait({work, joining}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, joining):
                if not task.done():
                    task.cancel()
            await asyncio.wait({work, joining})
            self._mirroring = False
        return None if work.cancelled() else work.result()

    async def _finish(self, copied: MirrorCopyResult) -> AssemblyOutcome:
        """The whole snapshot is here: complete the torrent for nodes that come later."""
        layout = self._context.layout
        self._pieces.add(range(layout.piece_count))
        for span in layout.spans:
            tree = copied.trees.get(span.path)
            if tree:
                self._membership.add_roots({p: tree.piece_hash(p - span.first_piece) for p in span.pieces})
        if self._pieces.all_roots_known and self._membership.connected:
            with suppress(TimeoutError, AssemblyFailed):
                async with asyncio.timeout(ASSEMBLED_WITHIN):
                    await self._membership.torrent_exists()
                    return AssemblyOutcome.of(self._pieces, await self._torrent(), complete=True)
        return AssemblyOutcome.of(self._pieces, None, complete=True)

    # -- progress --------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            if not self._mirroring:
                self._reporter.progress(self._progress())
            await asyncio.sleep(LOOK_EVERY)

    def _progress(self) -> Progress:
        pieces, membership = self._pieces, self._membership
        pulled = pieces.pulled_bytes if membership.connected else 0
        cached, exchanged = pieces.size(pieces.before), pieces.size(pieces.exchanged)
        waits = membership.connected and not pieces.in_flight and not membership.granted
        return Progress(
            "mirroring" if membership.connected else "checking",
            self._manifest.total_size,
            cached + pulled + exchanged,
            from_cache=cached,
            from_peers=exchanged,
            from_mirrors=pulled,
            peers=max(membership.peers - 1, 0),
            download_rate=0 if pieces.complete else pieces.arrivals.value(),
            waiting_for="pieces that other nodes download from the mirrors" if waits else "",
            unreachable=self._exchange.unreachable if self._exchange else "",
        )
