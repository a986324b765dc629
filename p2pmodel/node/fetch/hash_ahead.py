"""Hashing files while they arrive, so that little is left to do after the last piece."""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from p2pmodel.core.layout import MIB, FileSpan
from p2pmodel.node.snapshot.inventory import Inventory
from p2pmodel.store.files.growing_digest import GrowingDigest
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
        self._waiting = {index for index in files & self._digests.keys() if self._is_large(index)}
        while True:
            for index in list(self._waiting):
                span, digest = self._metainfo.layout.spans[index], self._digests[index]
                final = self._final(span, digest.hashed)
                while final > digest.hashed and await asyncio.to_thread(digest.advance, final):
                    pass
            await asyncio.sleep(LOOK_EVERY)

    async def digests(self, indexes: Sequence[int]) -> list[str]:
        """The hashes of these files, which are whole and flushed now, and are brought onto the disk."""
        self._waiting.difference_update(indexes)
        for index in filter(self._is_large, indexes):
            while await asyncio.to_thread(self._digests[index].advance, self._metainfo.manifest.files[index].size):
                pass
        return await asyncio.to_thread(lambda: [self._digests[index].sealed() for index in indexes])

    def _is_large(self, index: int) -> bool:
        return self._metainfo.manifest.files[index].size >= AHEAD_FROM

    def _final(self, span: FileSpan, hashed: int) -> int:
        """How many bytes from the file's beginning have passed their check; at least `hashed` of them have."""
        piece = span.first_piece + hashed // self._metainfo.layout.piece_length
        while piece in span.pieces and piece not in self._missing:
            piece += 1
        return min((piece - span.first_piece) * self._metainfo.layout.piece_length, span.size)
