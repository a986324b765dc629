"""What of a snapshot is on this node already: published blobs, and pieces staged by an earlier run."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.layout import FileSpan
from p2pmodel.core.manifest import ManifestFile
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.parallel import Count, default_jobs, ignore, in_parallel
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
    on_bytes: Count = ignore,
    jobs: int | None = None,
) -> Inventory:
    """Find every piece that need not be downloaded.

    A blob that this store verified before is trusted; any other blob is hashed once. Staged files are hashed where
    they have data, except the pieces in `known` (recorded as durable by an earlier run). Blocks: call in a thread.
    """
    spans, files = metainfo.layout.spans, metainfo.manifest.files
    found: dict[int, tuple[Path, bool, frozenset[int]]] = {}
    etags, names = repo.etags(), staging.names()  # so that thousands of files that are not there cost no look each

    def examine(span: FileSpan, count: Count) -> None:
        file = files[span.index]
        blob = adoptable(repo, file, count) if file.etag in etags else None
        if blob is not None:
            found[span.index] = blob, True, frozenset(span.pieces)
            return
        staged = staging.path_of(span.index, file)
        pieces = known.intersection(span.pieces)
        right = recover(staged, span, metainfo, pieces, count) if staged.name in names else frozenset[int]()
        found[span.index] = staged, False, right

    in_parallel(sorted(spans, key=lambda span: -span.size), examine, jobs or default_jobs(), on_bytes)
    return Inventory(
        paths=tuple(found[index][0] for index in range(len(files))),
        complete=frozenset(index for index, (_, whole, _) in found.items() if whole),
        have=frozenset().union(*(pieces for _, _, pieces in found.values())),
    )


def adopt(repo: RepoCache, files: Iterable[ManifestFile], on_bytes: Count = ignore) -> frozenset[str]:
    """Etags of those of `files` whose blobs are here and right. Blocks; hashes on several threads."""
    held: set[str] = set()

    def examine(file: ManifestFile, count: Count) -> None:
        if adoptable(repo, file, count) is not None:
            held.add(file.etag)

    distinct = {file.etag: file for file in files}
    in_parallel(sorted(distinct.values(), key=lambda file: -file.size), examine, default_jobs(), on_bytes)
    return frozenset(held)


def adoptable(repo: RepoCache, file: ManifestFile, on_bytes: Count) -> Path | None:
    """The blob of `file` if the cache has it and its content is right; remembers that it was checked."""
    blob = repo.blob(file)
    if blob is None or repo.is_verified(file):
        return blob
    if digest_of(blob, file, on_bytes) != file.etag:
        return None
    repo.mark_verified([file])
    return blob


def recover(
    staged: Path, span: FileSpan, metainfo: Metainfo, known: frozenset[int], on_bytes: Count = ignore
) -> frozenset[int]:
    """Pieces of `span` whose bytes are in the staged file and right; `known` ones are not read again."""
    try:
        descriptor = os.open(staged, os.O_RDONLY)
    except FileNotFoundError:
        return frozenset()
    try:
        size = os.fstat(descriptor).st_size
        found = {piece for piece in known if _ends(metainfo, piece) <= size}
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


def _ends(metainfo: Metainfo, piece: int) -> int:
    place = metainfo.layout.piece_range(piece)
    return place.offset + place.length


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
