"""What of a snapshot is on this node already: published blobs, and pieces staged by an earlier run."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.domain.layout import FileSpan
from p2pmodel.domain.manifest import ManifestFile
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.staging import Staging
from p2pmodel.store.verify import digest_of
from p2pmodel.swarm.torrents import Metainfo


@dataclass(frozen=True, slots=True)
class Inventory:
    """`paths[i]` is where file i of the manifest lies or will be staged, `complete` the indexes of whole blobs,
    `have` the pieces that are on disk and right. Empty files are complete once published."""

    paths: tuple[Path, ...]
    complete: frozenset[int]
    have: frozenset[int]


def take_inventory(
    repo: RepoCache,
    staging: Staging,
    metainfo: Metainfo,
    *,
    known: frozenset[int],
    on_bytes: Callable[[int], None] = lambda _count: None,
    jobs: int = os.cpu_count() or 1,
) -> Inventory:
    """Find every piece that need not be downloaded.

    A blob that this store verified before is trusted; any other blob is hashed once. Staged files are hashed where
    they have data, except the pieces in `known` (recorded as durable by an earlier run). Blocks: call in a thread.
    """

    def examine(item: tuple[FileSpan, ManifestFile]) -> tuple[Path, bool, frozenset[int]]:
        span, file = item
        blob = adoptable(repo, file, on_bytes)
        if blob is not None:
            return blob, True, frozenset(span.pieces)
        staged = staging.path_of(span.index, file)
        return staged, False, recover(staged, span, metainfo, known & frozenset(span.pieces), on_bytes)

    with ThreadPoolExecutor(jobs, thread_name_prefix="p2pmodel-inventory") as pool:
        found = list(pool.map(examine, zip(metainfo.layout.spans, metainfo.manifest.files, strict=True)))
    return Inventory(
        paths=tuple(path for path, _, _ in found),
        complete=frozenset(index for index, (_, whole, _) in enumerate(found) if whole),
        have=frozenset().union(*(pieces for _, _, pieces in found)),
    )


def adoptable(repo: RepoCache, file: ManifestFile, on_bytes: Callable[[int], None]) -> Path | None:
    """The blob of `file` if the cache has it and its content is right; remembers that it was checked."""
    blob = repo.blob(file)
    if blob is None or repo.is_verified(file):
        return blob
    if digest_of(blob, file, on_bytes) != file.etag:
        return None
    repo.mark_verified(file)
    return blob


def recover(
    staged: Path, span: FileSpan, metainfo: Metainfo, known: frozenset[int], on_bytes: Callable[[int], None]
) -> frozenset[int]:
    """Pieces of `span` whose bytes are in the staged file and right; `known` ones are not read again."""
    try:
        descriptor = os.open(staged, os.O_RDONLY)
    except FileNotFoundError:
        return frozenset()
    try:
        length = metainfo.layout.piece_length
        size = os.fstat(descriptor).st_size
        found = {p for p in known if (p - span.first_piece) * length < size}
        for piece in _pieces_with_data(descriptor, span, metainfo, size):
            if piece not in found:
                place = metainfo.layout.piece_range(piece)
                data = os.pread(descriptor, place.length, place.offset)
                on_bytes(len(data))
                if metainfo.accepts(piece, data):
                    found.add(piece)
        return frozenset(found)
    finally:
        os.close(descriptor)


def _pieces_with_data(descriptor: int, span: FileSpan, metainfo: Metainfo, size: int) -> Iterator[int]:
    """Pieces that touch an allocated extent: a sparse file of a terabyte costs what was written to it."""
    offset, last = 0, -1
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: no data behind offset
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        for piece in metainfo.layout.pieces_in(span, start, min(end, span.size) - start):
            if piece > last:
                yield piece
                last = piece
        offset = end


def bytes_of(metainfo: Metainfo, pieces: Sequence[int] | frozenset[int]) -> int:
    """How many bytes `pieces` hold."""
    return sum(metainfo.layout.piece_range(piece).length for piece in pieces)
