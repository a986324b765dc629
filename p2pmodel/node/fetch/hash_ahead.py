"""Hash files while their pieces arrive, so that little is left to do after the last piece."""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from p2pmodel.core.layout import MIB, FileSpan
from p2pmodel.node.snapshot.inventory import Inventory
from p2pmodel.store.files.growing_digest import GrowingDigest
from p2pmodel.swarm.torrents import Metainfo

CHECK_EVERY = 0.1
AHEAD_FROM = 16 * MIB
"""Bytes; smaller files are hashed quickly once they are whole."""


class HashAhead:
    """Computes the hub's hash of every staged file while some of its pieces are still in `missing`, a live view.

    The hash of a file proceeds in order, so it advances as far as the file's pieces arrive in order.
    """

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
        """Hash `files` as their pieces arrive, until cancelled."""
        self._waiting = {index for index in files & self._digests.keys() if self._is_large(index)}
        while True:
            for index in list(self._waiting):
                span, digest = self._metainfo.layout.spans[index], self._digests[index]
                final = self._final(span, digest.hashed)
                while final > digest.hashed and await asyncio.to_thread(digest.advance, final):
                    pass
            await asyncio.sleep(CHECK_EVERY)

    async def digests(self, indexes: Sequence[int]) -> list[str]:
        """The hashes of these files, which are whole and flushed; their data is durable on return."""
        self._waiting.difference_update(indexes)
        for index in filter(self._is_large, indexes):
            while await asyncio.to_thread(self._digests[index].advance, self._metainfo.manifest.files[index].size):
                pass
        return await asyncio.to_thread(lambda: [self._digests[index].sealed() for index in indexes])

    def _is_large(self, index: int) -> bool:
        return self._metainfo.manifest.files[index].size >= AHEAD_FROM

    def _final(self, span: FileSpan, hashed: int) -> int:
        """Bytes from the beginning of the file that have passed their check: `hashed` or more."""
        piece = span.first_piece + hashed // self._metainfo.layout.piece_length
        while piece in span.pieces and piece not in self._missing:
            piece += 1
        return min((piece - span.first_piece) * self._metainfo.layout.piece_length, span.size)
