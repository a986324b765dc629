"""The roots of pieces that are on this node: blobs of the cache, and what an earlier run pulled."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.layout import FileSpan, Layout
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.merkle import piece_hash
from p2pmodel.node.snapshot.inventory import adoptable
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import translated
from p2pmodel.store.files.parallel import Count, default_jobs, ignore, in_parallel
from p2pmodel.store.files.partial_file import recorded


@dataclass(frozen=True, slots=True)
class PieceStock:
    """Pieces that are here, by file, and where. `whole`: the files whose blobs are in the cache."""

    paths: Mapping[int, Path]
    pieces: Mapping[int, tuple[int, ...]]
    whole: frozenset[int]

    @property
    def all(self) -> frozenset[int]:
        """Every piece that is here."""
        return frozenset(piece for pieces in self.pieces.values() for piece in pieces)


def take_stock(repo: RepoCache, manifest: Manifest, layout: Layout, on_bytes: Count = ignore) -> PieceStock:
    """Find what need not be pulled, without a torrent to hold it against: whole blobs, which are hashed once, and what
    is on record as written. Blocks: call in a thread."""
    staging = repo.staging(manifest.commit)
    found: dict[int, tuple[Path, tuple[int, ...], bool]] = {}

    def examine(span: FileSpan, count: Count) -> None:
        file = manifest.files[span.index]
        blob = adoptable(repo, file, count)
        if blob is not None:
            found[span.index] = blob, tuple(span.pieces), True
            return
        staged = staging.path_of(span.index, file)
        pieces = (p for start, end in recorded(staged, file) for p in _within(layout, span, start, end))
        found[span.index] = staged, tuple(pieces), False

    in_parallel(sorted(layout.spans, key=lambda span: -span.size), examine, default_jobs(), on_bytes)
    return PieceStock(
        {index: path for index, (path, _, _) in found.items()},
        {index: pieces for index, (_, pieces, _) in found.items()},
        frozenset(index for index, (_, _, whole) in found.items() if whole),
    )


@translated()
def roots_of(path: Path, layout: Layout, pieces: Iterable[int], on_bytes: Count = ignore) -> dict[int, bytes]:
    """The roots of `pieces`, all of one file, which lies at `path`. Blocks: call in a thread."""
    descriptor = os.open(path, os.O_RDONLY)
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


def _within(layout: Layout, span: FileSpan, start: int, end: int) -> range:
    """Pieces of `span` that lie wholly in its bytes `start` to `end`."""
    first = span.first_piece + -(-start // layout.piece_length)
    last = span.first_piece + (span.piece_count if end >= span.size else end // layout.piece_length)
    return range(first, max(first, last))
