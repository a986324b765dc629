"""Hashing files while they arrive, so that little is left to do after the last piece."""

import asyncio
from collections.abc import Set as AbstractSet

from p2pmodel.domain.layout import MIB, FileSpan
from p2pmodel.node.inventory import Inventory
from p2pmodel.store.growing import GrowingDigest
from p2pmodel.swarm.torrents import Metainfo

LOOK_EVERY = 0.1
AHEAD_FROM = 16 * MIB
"""Smaller files are hashed in a moment once they are whole."""


class HashAhead:
    """The hub's hash of every staged file, begun while pieces of it are still in `missing`, a live view of what is to
    come. The whole-content hash goes in order, so it gets ahead as far as a file's pieces come in order."""

    def __init__(self, metainfo: Metainfo, inventory: Inventory, missing: AbstractSet[int]) -> None:
        self._metainfo = metainfo
        self._missing = missing
        self._waiting: set[int] = set()
        self._digests = {
            index: GrowingDigest(inventory.paths[index], file)
            for index, file in enumerate(metainfo.manifest.files)
            if index not in inventory.complete
        }

    async def run(self, files: frozenset[int]) -> None:
        """Hash what arrives of `files` until cancelled."""
        large = {index for index, file in enumerate(self._metainfo.manifest.files) if file.size >= AHEAD_FROM}
        self._waiting = large & files & self._digests.keys()
        while True:
            for index in list(self._waiting):
                span, digest = self._metainfo.layout.spans[index], self._digests[index]
                final = self._final(span, digest.hashed)
                while final > digest.hashed and await asyncio.to_thread(digest.advance, final):
                    pass
            await asyncio.sleep(LOOK_EVERY)

    async def digest(self, index: int) -> str:
        """The hash of file `index`, which is whole and flushed now, and is brought onto the disk."""
        self._waiting.discard(index)
        digest = self._digests[index]
        while await asyncio.to_thread(digest.advance, self._metainfo.manifest.files[index].size):
            pass
        return await asyncio.to_thread(digest.sealed)

    def _final(self, span: FileSpan, hashed: int) -> int:
        """How many bytes from the file's beginning have passed their check; at least `hashed` of them have."""
        piece = span.first_piece + hashed // self._metainfo.layout.piece_length
        while piece in span.pieces and piece not in self._missing:
            piece += 1
        return min((piece - span.first_piece) * self._metainfo.layout.piece_length, span.size)
