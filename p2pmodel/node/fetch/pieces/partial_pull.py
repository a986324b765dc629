"""The pull of a piece of which older revisions have a part: only the other bytes are requested.

A piece with a wrong presumption is pulled again as a whole: its check then says whether the source is right.
"""

import asyncio
from functools import partial

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.node.fetch.pieces.feed_ports import PieceReader
from p2pmodel.node.snapshot.reuse.known_parts import KnownParts
from p2pmodel.swarm.torrents import Metainfo


class PartialPull:
    """Pulls pieces in parts; `parts` has the drafts (None: there are no older revisions)."""

    def __init__(self, metainfo: Metainfo, parts: KnownParts | None) -> None:
        self._metainfo = metainfo
        self._parts = parts

    async def pull(self, source: PieceReader, piece: int) -> tuple[bytes, int] | None:
        """The right bytes of `piece`, and how many of them were not requested; None if it must be pulled as a whole.

        Raises as `source.read`.
        """
        if self._parts is None:
            return None
        place = self._metainfo.layout.piece_range(piece)
        file = self._metainfo.manifest.files[place.span.index]
        read = partial(source.read, self._metainfo.manifest, file, accept=None)
        front = await asyncio.to_thread(self._parts.header_bytes, piece)
        head = await read(0, front) if front else b""
        draft = await asyncio.to_thread(self._parts.draft, piece, head)
        if draft is None:
            return None
        spared = place.length - len(head) - draft.unknown
        if spared < BLOCK:
            return None
        for start, end in draft.gaps:
            draft.fill(start, await read(start, end - start))
        data = bytes(draft.data)
        right = await asyncio.to_thread(self._metainfo.accepts, piece, data)
        return (data, spared) if right else None
