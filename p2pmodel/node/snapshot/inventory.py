"""The parts of a snapshot that are on this node: published blobs, and pieces staged by an earlier run."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from p2pmodel.core.content.layout import BLOCK, FileSpan, Layout
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.node.snapshot.reuse.reused_pieces import CopiedPieces, PieceReuse
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.leaf_record import LeafRecord
from p2pmodel.store.files.parallel import Count, default_jobs, ignore, in_parallel
from p2pmodel.store.files.partial_file import recorded
from p2pmodel.store.verify import adoptable
from p2pmodel.swarm.torrents import Metainfo

StagedPieces = Callable[[FileSpan, Path, Count], frozenset[int]]
"""Takes a file's span and the path of its staged file, which exists: the pieces of the file that are in it."""
ReusedPieces = Callable[[FileSpan, Path, frozenset[int], Count], CopiedPieces]
"""Takes a file's span, the path of its staged file, and the pieces that are in it: further pieces, copied to it."""
SalvagedPieces = Callable[[FileSpan, Path, Path, Count], frozenset[int]]
"""Takes a file's span, its damaged blob, and the path of its staged file, which does not exist: the pieces that were
copied from the blob to the staged file."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """`paths[i]` is where file i of the manifest lies or will be staged, `complete` the indexes of whole blobs,
    `have` the pieces on disk, of which `reused` were copied from other revisions just now. With the pieces in `headers`
    more may be found in other revisions. Empty files are complete once published."""

    paths: tuple[Path, ...]
    complete: frozenset[int]
    have: frozenset[int]
    reused: frozenset[int] = frozenset()
    headers: frozenset[int] = frozenset()
    reuse: PieceReuse | None = None
    """The search in other revisions, which may go on."""

    @property
    def staged(self) -> tuple[Path | None, ...]:
        """The paths of unfinished files; None for a blob."""
        return tuple(None if index in self.complete else path for index, path in enumerate(self.paths))


def take_inventory(
    repo: RepoCache,
    metainfo: Metainfo,
    *,
    known: frozenset[int],
    wanted: frozenset[int] | None = None,
    on_bytes: Count = ignore,
    jobs: int | None = None,
) -> Inventory:
    """Find every piece that need not be downloaded, each checked against the torrent. Blocks: call in a thread.

    A blob that this store verified before is trusted; any other blob is hashed once. The right pieces of a damaged one
    are copied to its staged file: clients may have mapped the blob, so nothing is written into it. Staged files are
    hashed where they have data, except the pieces in `known` (recorded as durable by an earlier run). What they lack is
    copied from other revisions. Only those of the files `wanted` (None: all) are looked at: another download may own
    the others.
    """

    def staged_pieces(span: FileSpan, staged: Path, count: Count) -> frozenset[int]:
        pieces = recover(staged, span, metainfo, known.intersection(span.pieces), count)
        file = metainfo.manifest.files[span.index]
        written = recorded(staged, file)
        layout = metainfo.layout
        if not all(pieces.issuperset(layout.pieces_in(span, start, end - start)) for start, end in written):
            repo.mark_corrupt(file)  # a reader may have bytes that a mirror sent, and that are overwritten from here on
        return pieces

    def salvaged_pieces(span: FileSpan, blob: Path, staged: Path, count: Count) -> frozenset[int]:
        return salvage(blob, staged, span, metainfo, count)

    reuse = PieceReuse(repo, metainfo)
    found = _inventory(
        repo,
        metainfo.manifest,
        metainfo.layout,
        wanted=wanted,
        staged_pieces=staged_pieces,
        salvaged_pieces=salvaged_pieces,
        reused_pieces=reuse.copy,
        on_bytes=on_bytes,
        jobs=jobs,
    )
    return replace(found, reuse=reuse)


def take_recorded_inventory(repo: RepoCache, manifest: Manifest, layout: Layout, on_bytes: Count = ignore) -> Inventory:
    """As `take_inventory` where there is no torrent yet: staged pieces are those an earlier run recorded as written."""

    def staged_pieces(span: FileSpan, staged: Path, _count: Count) -> frozenset[int]:
        ranges = recorded(staged, manifest.files[span.index])
        return frozenset(piece for start, end in ranges for piece in pieces_within(layout, span, start, end))

    return _inventory(repo, manifest, layout, wanted=None, staged_pieces=staged_pieces, on_bytes=on_bytes)


def _inventory(
    repo: RepoCache,
    manifest: Manifest,
    layout: Layout,
    *,
    wanted: frozenset[int] | None,
    staged_pieces: StagedPieces,
    salvaged_pieces: SalvagedPieces | None = None,
    reused_pieces: ReusedPieces | None = None,
    on_bytes: Count,
    jobs: int | None = None,
) -> Inventory:
    found: dict[int, tuple[Path, bool, frozenset[int]]] = {}
    reused: dict[int, CopiedPieces] = {}
    repo.places.plain.know(manifest)
    paths = repo.staged.paths_of(manifest.files)
    # Listed once: no system call for each of thousands of absent files.
    etags, names = repo.etags(), repo.staged.names()

    def examine(span: FileSpan, count: Count) -> None:
        file = manifest.files[span.index]
        blob = adoptable(repo, file, count) if file.etag in etags else None
        if blob is not None:
            found[span.index] = blob, True, frozenset(span.pieces)
            return
        staged = paths[span.index]
        pieces = frozenset[int]()
        if wanted is not None and span.index not in wanted:
            pass
        elif staged.name in names:
            pieces = staged_pieces(span, staged, count)
        elif salvaged_pieces is not None and (damaged := repo.blob(file)) is not None:
            pieces = salvaged_pieces(span, damaged, staged, count)
        if reused_pieces is not None and (wanted is None or span.index in wanted):
            reused[span.index] = reused_pieces(span, staged, pieces, count)
            pieces |= reused[span.index].pieces
        found[span.index] = staged, False, pieces

    in_parallel(sorted(layout.spans, key=lambda span: -span.size), examine, jobs or default_jobs(), on_bytes)
    return Inventory(
        paths=tuple(found[index][0] for index in range(len(manifest.files))),
        complete=frozenset(index for index, (_, whole, _) in found.items() if whole),
        have=frozenset().union(*(pieces for _, _, pieces in found.values())),
        reused=frozenset().union(*(each.pieces for each in reused.values())),
        headers=frozenset().union(*(each.header for each in reused.values())),
    )


def adopt(repo: RepoCache, files: Iterable[ManifestFile], on_bytes: Count = ignore) -> frozenset[str]:
    """Etags of the `files` that are in the cache and right. Blocks; hashes on several threads."""
    right: set[str] = set()

    def examine(file: ManifestFile, count: Count) -> None:
        if adoptable(repo, file, count) is not None:
            right.add(file.etag)

    distinct = {file.etag: file for file in files}
    in_parallel(sorted(distinct.values(), key=lambda file: -file.size), examine, default_jobs(), on_bytes)
    return frozenset(right)


def recover(
    staged: Path, span: FileSpan, metainfo: Metainfo, known: frozenset[int], on_bytes: Count = ignore
) -> frozenset[int]:
    """Pieces of `span` that are in the staged file and right; `known` pieces are not read again. Those with some blocks
    on record, and not all, are not read either: ranks of a model have fetched parts of them."""
    try:
        descriptor = open_regular(staged)
    except FileNotFoundError:
        return frozenset()
    try:
        size = os.fstat(descriptor).st_size
        found = {piece for piece in known if _ends(metainfo, piece) <= size}
        width = metainfo.layout.piece_length // BLOCK
        record = LeafRecord(staged, metainfo.trees[span.path].root) if span.size else None
        partial = record.partial(span.piece_count, width, -(-span.size // BLOCK)) if record else frozenset()
        for piece in _pieces_with_data(descriptor, span, metainfo, size):
            if piece not in found and piece - span.first_piece not in partial:
                place = metainfo.layout.piece_range(piece)
                data = os.pread(descriptor, place.length, place.offset)
                on_bytes(len(data))
                if metainfo.accepts(piece, data):
                    found.add(piece)
        return frozenset(found)
    finally:
        os.close(descriptor)


def salvage(blob: Path, staged: Path, span: FileSpan, metainfo: Metainfo, on_bytes: Count = ignore) -> frozenset[int]:
    """Copy the right pieces of the damaged `blob` to the file `staged`, which is made. Returns them; none if the disk
    fails or is full."""
    found = set()
    try:
        with os.fdopen(open_regular(blob), "rb", buffering=0) as source, staged.open("xb", buffering=0) as copy:
            for piece in span.pieces:
                place = metainfo.layout.piece_range(piece)
                data = os.pread(source.fileno(), place.length, place.offset)
                on_bytes(len(data))
                if metainfo.accepts(piece, data) and os.pwrite(copy.fileno(), data, place.offset) == place.length:
                    found.add(piece)
    except OSError:
        staged.unlink(missing_ok=True)
        return frozenset()
    return frozenset(found)


def _ends(metainfo: Metainfo, piece: int) -> int:
    place = metainfo.layout.piece_range(piece)
    return place.offset + place.length


def _pieces_with_data(descriptor: int, span: FileSpan, metainfo: Metainfo, size: int) -> Iterator[int]:
    """Pieces that touch an allocated extent: a sparse file of a terabyte costs what was written to it."""
    offset, last = 0, -1
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: no data after offset
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        for piece in metainfo.layout.pieces_in(span, start, min(end, span.size) - start):
            if piece > last:
                yield piece
                last = piece
        offset = end


def pieces_within(layout: Layout, span: FileSpan, start: int, end: int) -> range:
    """Pieces of `span` that lie wholly in its bytes `start` to `end`."""
    first = span.first_piece + -(-start // layout.piece_length)
    last = span.first_piece + (span.piece_count if end >= span.size else end // layout.piece_length)
    return range(first, max(first, last))
