"""Pull parts of pieces from seeders, in 16 KiB blocks that are proved one by one.

Invariants, to re-check when editing:
1. A block is written after its hash was compared with a proof, which was compared with the torrent.
2. What is here is not requested: the record beside a staged file says which blocks, and they are hashed again.
3. Blocks are no piece: nothing of them is visible, exchanged or recorded as one.
4. Every wait ends: after `TRIES` failures of a piece, or `patience` seconds in which nothing came.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from p2pmodel.core.content.layout import BLOCK, MIB, PieceRange
from p2pmodel.core.content.leaf_proof import PieceTree, Runs, asked, fits, proved, runs_size
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.tasks import in_the_end, together
from p2pmodel.errors import LocalResource, NotFound, P2PModelError
from p2pmodel.node.fetch.pieces.feed_ports import SeederReader
from p2pmodel.node.fetch.pieces.leaseholder import Leaseholder, NoLeases
from p2pmodel.node.fetch.pieces.seeders import Seeders
from p2pmodel.node.fetch.plan import DownloadContext
from p2pmodel.node.snapshot.inventory import Inventory
from p2pmodel.store.files.leaf_record import LeafRecord
from p2pmodel.swarm.torrents import Metainfo

AT_ONCE = 4
"""Pieces of which blocks are requested at a time."""
AT_MOST = 4 * MIB
"""Bytes of one request."""
TRIES = 3
PAUSE = 0.25
"""Seconds between two looks at seeders that are not usable."""


class BlockReader(SeederReader, Protocol):
    """Seeders that prove blocks."""

    async def proof(
        self, manifest: Manifest, file: ManifestFile, tree: PieceTree, runs: Runs, *, accept: Callable[[bytes], bool]
    ) -> bytes:
        """As `Origin.proof`."""


class BlockPull:
    """Pulls the blocks `wanted`, by piece, into the staged files at `paths`, by the index of each file, except of the
    pieces in `have`, which are here.

    `on_block` takes the bytes of blocks that are here, and whether they were here before; `on_bad_piece` a piece of
    which a seeder sent wrong bytes. Without `seeders` only what is here counts.
    """

    def __init__(
        self,
        metainfo: Metainfo,
        wanted: Mapping[int, Runs],
        paths: Sequence[Path],
        *,
        have: frozenset[int],
        seeders: BlockReader | None,
        patience: float,
        on_block: Callable[[int, bool], None],
        on_bad_piece: Callable[[int], None] = lambda _piece: None,
    ) -> None:
        self._metainfo = metainfo
        self._wanted = wanted
        self._paths = paths
        self._here = have
        self._seeders = seeders
        self._patience = patience
        self._on_block = on_block
        self._on_bad_piece = on_bad_piece
        self._records: dict[int, LeafRecord] = {}
        self._last = 0.0
        self.left: set[int] = set()
        """Pieces with blocks that no peer or mirror delivered."""

    async def run(self) -> None:
        """Pull all that can be had. Raises LocalResource."""
        self._last = time.monotonic()
        queue = sorted(self._wanted, reverse=True)

        async def work() -> None:
            while queue:
                piece = queue.pop()
                if not await self._have(piece):
                    self.left.add(piece)

        await together(work() for _ in range(AT_ONCE))

    async def _have(self, piece: int) -> bool:
        """Whether the wanted blocks of `piece` are here in the end."""
        place, runs = self._metainfo.layout.piece_range(piece), self._wanted[piece]
        if piece in self._here:
            self._on_block(runs_size(runs, place.length), True)
            return True
        tree = PieceTree.of(place, self._metainfo.layout.piece_length)
        record = self._record(place)
        lacking = await asyncio.to_thread(record.lacking, tree.first, place.span.size, runs)
        self._on_block(runs_size(runs, place.length) - runs_size(lacking, place.length), True)
        for _ in range(TRIES):
            if not lacking:
                return True
            if not await self._usable():
                return False
            try:
                await self._pull(piece, place, tree, lacking)
            except LocalResource:
                raise
            except NotFound:  # seeders of an earlier version, without proofs
                self._seeders = None
            except P2PModelError:
                pass
            lacking = await asyncio.to_thread(record.lacking, tree.first, place.span.size, lacking)
        return not lacking

    async def _usable(self) -> bool:
        """Whether there are seeders to ask, perhaps after a while."""
        while self._seeders is not None:
            if self._seeders.usable:
                return True
            if time.monotonic() - self._last > self._patience:
                self._seeders = None
                break
            await asyncio.sleep(PAUSE)
        return False

    async def _pull(self, piece: int, place: PieceRange, tree: PieceTree, runs: Runs) -> None:
        seeders, manifest = self._seeders, self._metainfo.manifest
        assert seeders is not None
        file = manifest.files[place.span.index]
        root = self._metainfo.trees[place.span.path].piece_hash(piece - place.span.first_piece)
        question, failed = asked(runs), False

        def accept(right: bool) -> bool:
            nonlocal failed
            failed = failed or not right
            return right

        def proves(data: bytes) -> bool:
            return accept(proved(data, root, tree, question) is not None)

        def is_right(data: bytes) -> bool:
            return accept(fits(data, expected))

        try:
            answer = await seeders.proof(manifest, file, tree, question, accept=proves)
            leaves = proved(answer, root, tree, question)
            assert leaves is not None, "it was accepted"
            for first, end in _requests(runs):
                expected = [leaves[block] for block in range(first, end)]
                offset, length = place.offset + first * BLOCK, runs_size(((first, end),), place.length)
                data = await seeders.read(manifest, file, offset, length, accept=is_right)
                found = dict(enumerate(expected, tree.first + first))
                await in_the_end(asyncio.to_thread(self._record(place).write, offset, data, found))
                self._last = time.monotonic()
                self._on_block(length, False)
        finally:
            if failed:
                self._on_bad_piece(piece)

    def _record(self, place: PieceRange) -> LeafRecord:
        span = place.span
        if span.index not in self._records:
            self._records[span.index] = LeafRecord(self._paths[span.index], self._metainfo.trees[span.path].root)
        return self._records[span.index]


def planned_blocks(
    context: DownloadContext, inventory: Inventory, seeders: Seeders | None, leases: Leaseholder | NoLeases
) -> BlockPull:
    """The pull of the blocks that a download plans."""
    return BlockPull(
        context.metainfo,
        context.plan.blocks,
        inventory.paths,
        have=inventory.have,
        seeders=seeders,
        patience=context.plan.peer_timeout,
        on_block=context.stats.blocks_arrived,
        on_bad_piece=leases.complain_of_seeders,
    )


def _requests(runs: Runs) -> list[tuple[int, int]]:
    """The runs, the long ones divided."""
    step = AT_MOST // BLOCK
    return [(start, min(start + step, end)) for first, end in runs for start in range(first, end, step)]


def blocks_size(metainfo: Metainfo, blocks: Mapping[int, Runs]) -> int:
    """Bytes of `blocks`, by piece."""
    return sum(runs_size(runs, metainfo.layout.piece_range(piece).length) for piece, runs in blocks.items())
