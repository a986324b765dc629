"""Downloading the leased slices of a snapshot from the mirrors."""

import asyncio
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from p2pmodel.core.content.layout import Layout
from p2pmodel.core.content.merkle import piece_hash
from p2pmodel.core.tasks import Start
from p2pmodel.errors import LocalResource, P2PModelError
from p2pmodel.node.assembly.context import AssemblyContext
from p2pmodel.node.assembly.membership import Membership
from p2pmodel.node.assembly.outcome import AssemblyFailed
from p2pmodel.node.assembly.slices import Slice, StagedFiles
from p2pmodel.os_errors import translated
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.parallel import Count, ignore


@translated()
def roots_of(path: Path, layout: Layout, pieces: Iterable[int], on_bytes: Count = ignore) -> dict[int, bytes]:
    """Roots of `pieces`, all of one file, which is stored at `path`. Blocks: call in a thread."""
    descriptor = open_regular(path)
    try:
        found = {}
        for piece in pieces:
            place = layout.piece_range(piece)
            data = os.pread(descriptor, place.length, place.offset)
            on_bytes(len(data))
            if len(data) == place.length:
                found[piece] = piece_hash(data, layout.piece_length, only_piece=place.span.piece_count == 1)
        return found
    finally:
        os.close(descriptor)


class SliceDownload:
    """Downloads granted pieces into `staged`, and adds their roots to `membership`."""

    def __init__(self, context: AssemblyContext, membership: Membership, staged: StagedFiles) -> None:
        self._context = context
        self._membership = membership
        self._pieces = membership.pieces
        self._staged = staged

    def begin(self, start: Start) -> None:
        """Start the download of granted pieces that are neither here nor being downloaded."""
        new = (piece for piece in sorted(self._membership.granted) if self._pieces.lacks(piece))
        for run in runs_of(self._context.layout, new):
            self._pieces.in_flight.update(run)
            start(self._download(run))

    async def _download(self, run: range) -> None:
        layout = self._context.layout
        span, last = layout.span_of(run.start), layout.piece_range(run.stop - 1)
        file = self._context.manifest.files[span.index]
        start, end = layout.piece_range(run.start).offset, last.offset + last.length
        try:
            async with self._staged.using(span.index) as partial:
                part = Slice(partial, file, start, end)
                await self._context.origin.pull(
                    self._context.manifest, file, part, on_bytes=self._count, ranges_only=True
                )
                roots = await asyncio.to_thread(roots_of, partial.path, layout, run)
        except LocalResource:
            raise
        except P2PModelError as error:
            raise AssemblyFailed(error.what) from None
        finally:
            self._pieces.in_flight.difference_update(run)
        self._pieces.add(run)
        self._membership.add_roots(roots)

    def _count(self, size: int) -> None:
        self._pieces.pulling(size)
        self._membership.progressed()


def runs_of(layout: Layout, pieces: Iterable[int]) -> Iterator[range]:
    """Ascending `pieces` as ranges of consecutive pieces of one file."""
    first = last = -2
    for piece in pieces:
        if piece != last + 1 or piece == layout.span_of(piece).first_piece:
            if first >= 0:
                yield range(first, last + 1)
            first = piece
        last = piece
    if first >= 0:
        yield range(first, last + 1)
