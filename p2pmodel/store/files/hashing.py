"""The hub's hash, the BitTorrent v2 Merkle tree and v1 pieces of files, in one pass and in bounded memory.

v1 pieces (SHA-1, BEP 3) are for torrents exported to clients without v2.
"""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Literal

from p2pmodel.core.content.layout import BLOCK, MIB
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.merkle import HASH, FileTree, leaves, power_of_two, reduce, tree_of
from p2pmodel.errors import IntegrityError
from p2pmodel.os_errors import DESCRIPTORS, named, translated
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.parallel import Count, default_jobs, ignore, in_parallel

_READ = MIB
_ZEROS = bytes(_READ)
_SHA1 = 20


@dataclass(frozen=True, slots=True)
class _Span:
    """`size` bytes of the torrent's byte stream: a whole file, or zeros of a pad file when `path` is None."""

    size: int
    path: Path | None


@translated()
def v1_pieces(
    files: Sequence[tuple[int, Path]], piece_length: int, *, pad: bool, on_bytes: Count = ignore, jobs: int = 1
) -> bytes:
    """Concatenated SHA-1 hashes of the pieces of `files` (size, path) laid end to end.

    With `pad`, as in a hybrid torrent (BEP 47, 52), zeros fill the last piece of every file that has
    another non-empty file after it. Otherwise pieces span files.
    """
    spans = list(_spans(files, piece_length if pad else 1))
    starts = [0, *accumulate(span.size for span in spans)]
    total = starts[-1]
    hashes = bytearray(-(-total // piece_length) * _SHA1)

    def work(number: int, count: Count) -> None:
        digest = hashlib.sha1(usedforsecurity=False)
        position, end = number * piece_length, min((number + 1) * piece_length, total)
        while position < end:
            index = bisect_right(starts, position) - 1
            offset = position - starts[index]
            size = min(spans[index].size - offset, end - position)
            for data in _read(spans[index], offset, size):
                digest.update(data)
            position += size
        hashes[number * _SHA1 : (number + 1) * _SHA1] = digest.digest()
        count(end - number * piece_length)

    in_parallel(range(-(-total // piece_length)), work, jobs, on_bytes)
    return bytes(hashes)


def _spans(files: Sequence[tuple[int, Path]], align: int) -> Iterator[_Span]:
    filled = [(size, path) for size, path in files if size]
    for number, (size, path) in enumerate(filled, start=1):
        yield _Span(size, path)
        gap = -size % align
        if gap and number < len(filled):
            yield _Span(gap, None)


def _read(span: _Span, offset: int, size: int) -> Iterator[bytes]:
    if span.path is None:
        for start in range(0, size, _READ):
            yield _ZEROS[: min(_READ, size - start)]
        return
    descriptor = open_regular(span.path)
    try:
        end = offset + size
        while offset < end:
            data = os.pread(descriptor, min(_READ, end - offset), offset)
            if not data:
                raise IntegrityError(f"{span.path} became shorter while it was read")
            yield data
            offset += len(data)
    finally:
        os.close(descriptor)


CHUNK = MIB // 4
"""Bytes read at a time. Small enough to stay in a core's cache between the read and the hash."""

SEGMENT = 8 * MIB
"""About the bytes of a file per unit of work, so that one large file keeps every core busy."""

V1Mode = Literal["hybrid", "v1"]


class _PieceHashes:
    """Collects leaf hashes, in order, into the piece hashes of (a part of) a file of `size` bytes."""

    def __init__(self, size: int, piece_length: int) -> None:
        self._per_piece = piece_length // BLOCK
        self._only_piece = size <= piece_length
        self._leaves: list[bytes] = []
        self._pieces: list[bytes] = []

    def take(self, hashes: list[bytes]) -> None:
        """Add the next leaves."""
        self._leaves += hashes
        while len(self._leaves) >= self._per_piece:
            self._pieces.append(reduce(self._leaves[: self._per_piece], self._per_piece))
            del self._leaves[: self._per_piece]

    def pieces(self, tail: list[bytes]) -> list[bytes]:
        """The piece hashes if `tail` are the last leaves; the last piece may be short. Changes no state."""
        rest = self._leaves + tail
        if not rest:
            return self._pieces
        width = power_of_two(len(rest)) if self._only_piece else self._per_piece
        return [*self._pieces, reduce(rest, width)]


class StreamingHasher:
    """Computes the etag and the Merkle tree of `file` from its bytes in order."""

    def __init__(self, file: ManifestFile, piece_length: int) -> None:
        self.hashed = 0
        """Bytes hashed so far."""
        self._file = file
        self._piece_length = check_piece_length(piece_length)
        self._content = file.hasher()
        self._hashes = _PieceHashes(file.size, piece_length)
        self._tail = b""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes. Raises IntegrityError if they exceed the file's size."""
        view = memoryview(data)
        if self.hashed + len(view) > self._file.size:
            raise IntegrityError(f"{self._file.path} is longer than {self._file.size} bytes")
        self.hashed += len(view)
        self._content.update(view)
        if self._tail:
            needed = BLOCK - len(self._tail)
            self._tail += bytes(view[:needed])
            view = view[needed:]
            if len(self._tail) < BLOCK:
                return
            self._hashes.take(leaves(self._tail))
        whole = len(view) - len(view) % BLOCK
        self._hashes.take(leaves(view[:whole]))
        self._tail = bytes(view[whole:])

    def digest(self) -> str:
        """The hub's hash of the bytes so far, in hex: equal to `file.etag` if they are the file's content."""
        return self._content.hexdigest()

    def tree(self) -> FileTree | None:
        """The Merkle tree of the whole file; None for an empty one. ValueError before its last byte."""
        if self.hashed != self._file.size:
            raise ValueError(f"{self._file.path}: {self.hashed} of {self._file.size} bytes hashed")
        pieces = self._hashes.pieces(leaves(self._tail))
        return tree_of(pieces, self._piece_length) if pieces else None


@dataclass(frozen=True, slots=True)
class SnapshotHashes:
    """`trees` by path, for every non-empty file; `etags` by path when contents were hashed too; `v1_pieces` the
    concatenated SHA-1 piece hashes if requested."""

    trees: dict[str, FileTree]
    etags: dict[str, str] = field(default_factory=dict)
    v1_pieces: bytes | None = None


@translated()
def hash_snapshot(
    paths: Sequence[tuple[ManifestFile, Path]],
    piece_length: int,
    *,
    v1: V1Mode | None = None,
    contents: bool = False,
    on_bytes: Count = ignore,
    jobs: int | None = None,
) -> SnapshotHashes:
    """Hash whole files, in canonical order, on `jobs` threads.

    With `contents` the hub's hash of each file is computed in the same pass. It is sequential within a file: a
    single large file then uses one core. `v1` requests SHA-1 pieces too, for which the files are read again
    (`on_bytes` counts both passes). Memory stays below a few MiB per job plus 32 bytes a piece.
    Raises IntegrityError for a file of the wrong size, and every exception of `on_bytes`: a caller stops it that way.
    """
    workers = jobs or default_jobs()
    check_piece_length(piece_length)
    for file, path in paths:
        _check_size(file, path)
    hashes = _hash_contents if contents else _hash_trees
    found = hashes(paths, piece_length, on_bytes, workers)
    if v1 is None:
        return found
    pieces = v1_pieces(
        [(f.size, p) for f, p in paths], piece_length, pad=v1 == "hybrid", on_bytes=on_bytes, jobs=workers
    )
    return SnapshotHashes(found.trees, found.etags, pieces)


def check_piece_length(piece_length: int) -> int:
    """Return `piece_length` if BEP 52 allows it: a power of two of at least 16 KiB. Else ValueError."""
    if piece_length < BLOCK or piece_length & (piece_length - 1):
        raise ValueError(f"a piece length of {piece_length} bytes is not a power of two of at least {BLOCK}")
    return piece_length


def _check_size(file: ManifestFile, path: Path) -> None:
    size = path.stat().st_size
    if size != file.size:
        raise IntegrityError(f"{path} has {size} bytes, but {file.path} should have {file.size}")


def _hash_contents(
    paths: Sequence[tuple[ManifestFile, Path]], piece_length: int, on_bytes: Count, jobs: int
) -> SnapshotHashes:
    found = SnapshotHashes({})

    def work(item: tuple[ManifestFile, Path], count: Count) -> None:
        file, path = item
        hasher = StreamingHasher(file, piece_length)
        for data in chunks(path, 0, file.size):
            hasher.update(data)
            count(len(data))
        found.etags[file.path] = hasher.digest()
        tree = hasher.tree()
        if tree is not None:
            found.trees[file.path] = tree

    # The largest first: the pass takes as long as its slowest thread.
    in_parallel(sorted(paths, key=lambda item: -item[0].size), work, jobs, on_bytes)
    return found


@dataclass(frozen=True, slots=True)
class _Segment:
    """Pieces `first .. first + count - 1` of a file; their hashes go into `layer`."""

    file: ManifestFile
    path: Path
    first: int
    count: int
    layer: bytearray


def _hash_trees(
    paths: Sequence[tuple[ManifestFile, Path]], piece_length: int, on_bytes: Count, jobs: int
) -> SnapshotHashes:
    layers = {f.path: bytearray(-(-f.size // piece_length) * HASH) for f, _ in paths if f.size}

    def work(segment: _Segment, count: Count) -> None:
        hashes = _PieceHashes(segment.file.size, piece_length)
        offset = segment.first * piece_length
        for data in chunks(segment.path, offset, min(segment.count * piece_length, segment.file.size - offset)):
            hashes.take(leaves(data))
            count(len(data))
        found = b"".join(hashes.pieces([]))
        segment.layer[segment.first * HASH : segment.first * HASH + len(found)] = found

    in_parallel(_segments(paths, layers, piece_length), work, jobs, on_bytes)
    trees = {}
    for path, layer in layers.items():
        pieces = [bytes(layer[start : start + HASH]) for start in range(0, len(layer), HASH)]
        trees[path] = tree_of(pieces, piece_length)
    return SnapshotHashes(trees)


def _segments(
    paths: Sequence[tuple[ManifestFile, Path]], layers: dict[str, bytearray], piece_length: int
) -> Iterator[_Segment]:
    step = max(1, SEGMENT // piece_length)
    for file, path in paths:
        pieces = -(-file.size // piece_length)
        for first in range(0, pieces, step):
            yield _Segment(file, path, first, min(step, pieces - first), layers[file.path])


def chunks(path: Path | int, offset: int, length: int, *, spare_cache: bool = False) -> Iterator[memoryview]:
    """`length` bytes of a file, or of an open file, from `offset`, in chunks of CHUNK bytes but for the last.

    Every chunk is the same buffer: use it before requesting the next. IntegrityError if the file ends early. With
    `spare_cache` what was read leaves the page cache: other files stay in it.
    """
    # Not mmap: another process may truncate a cache's file, and that would be a SIGBUS instead of an error.
    buffer = memoryview(bytearray(min(CHUNK, length)))
    descriptor = os.dup(path) if isinstance(path, int) else open_regular(path)
    try:
        end = offset + length
        while offset < end:
            data = buffer[: min(CHUNK, end - offset)]
            _fill(descriptor, data, offset, path)
            yield data
            if spare_cache:
                os.posix_fadvise(descriptor, offset, len(data), os.POSIX_FADV_DONTNEED)
            offset += len(data)
    finally:
        os.close(descriptor)


def _fill(descriptor: int, data: memoryview, offset: int, path: Path | int) -> None:
    filled = 0
    while filled < len(data):
        count = os.preadv(descriptor, [data[filled:]], offset + filled)
        if not count:
            shown = named(str(DESCRIPTORS / str(path)) if isinstance(path, int) else str(path))
            raise IntegrityError(f"{shown} became shorter while it was read")
        filled += count
