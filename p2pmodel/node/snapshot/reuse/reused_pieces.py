"""Pieces of a new file that are copied from other revisions in the cache.

Invariant, to re-check when editing: a piece counts only after its bytes were read from the staged file and fit the
torrent's tree. What an older file says of itself is a guess.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, suppress
from pathlib import Path

from p2pmodel.core.content.layout import FileSpan
from p2pmodel.core.content.shard_header import StoredTensor
from p2pmodel.errors import P2PModelError
from p2pmodel.node.snapshot.reuse.placements import OldRange, Placement, by_ends, by_tensors
from p2pmodel.node.snapshot.reuse.revisions import SHARD, OldRevision, other_revisions, read_tensors
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.clones import copy_range
from p2pmodel.store.files.parallel import Count, ignore
from p2pmodel.store.files.regular import open_regular
from p2pmodel.swarm.torrents import Metainfo

SAMPLES = 32
"""Pieces, spread over the file, that are tried first. If none fits, the placement is given up: a file that was trained
anew costs 32 pieces to read, not all of it."""


class PieceReuse:
    """The search of one torrent's pieces in other revisions. Methods block; threads may share it."""

    def __init__(self, repo: RepoCache, metainfo: Metainfo) -> None:
        self._repo = repo
        self._metainfo = metainfo
        self._guard = threading.Lock()
        self._found: list[OldRevision] | None = None

    def copy(self, span: FileSpan, staged: Path, have: frozenset[int], count: Count = ignore) -> frozenset[int]:
        """Copy pieces of `span` that are not in `have` to the file `staged`, made if one may fit. Returns those that
        fit; fewer if the disk fails or is full."""
        found: set[int] = set()
        if span.piece_count < 2 or len(have) == span.piece_count:
            return frozenset()
        with suppress(OSError), ExitStack() as stack:
            target = -1
            for revision in self.revisions():
                sources = _OldFiles(revision, stack)
                for placement in self._placements(revision, span, staged, have):
                    if target < 0:
                        target = open_regular(staged, os.O_RDWR | os.O_CREAT)
                        stack.callback(os.close, target)
                    copies = _PieceCopies(self._metainfo, sources, target, count)
                    found.update(copies.fitting(placement, span, have | found))
                    if len(found) + len(have) == span.piece_count:
                        return frozenset(found)
        return frozenset(found)

    def revisions(self) -> Sequence[OldRevision]:
        """The other revisions, listed once."""
        with self._guard:
            if self._found is None:
                self._found = []
                with suppress(P2PModelError):  # a cache that cannot be listed: everything is downloaded
                    self._found = other_revisions(self._repo, self._metainfo.manifest)
            return self._found

    def tensors(self, span: FileSpan, staged: Path, have: frozenset[int]) -> list[StoredTensor] | None:
        """The tensors of the new file, if the pieces in `have` contain its header."""
        file = self._metainfo.manifest.files[span.index]
        if not file.path.endswith(SHARD) or span.first_piece not in have:
            return None
        with suppress(OSError, P2PModelError):
            descriptor = open_regular(staged)
            try:
                found = read_tensors(descriptor, file)
            finally:
                os.close(descriptor)
            if found and have.issuperset(self._metainfo.layout.pieces_in(span, 0, found[0].start)):
                return found
        return None

    def _placements(
        self, revision: OldRevision, span: FileSpan, staged: Path, have: frozenset[int]
    ) -> Iterator[Placement]:
        file = self._metainfo.manifest.files[span.index]
        new = self.tensors(span, staged, have)
        if new is not None and (placement := by_tensors(new, revision.tensors(file.path))):
            yield placement
        old = revision.file(file.path)
        if old is not None and old.etag != file.etag:
            yield from by_ends(file.size, old.etag, old.size)


class _OldFiles:
    """The open files of one revision; `stack` closes them."""

    def __init__(self, revision: OldRevision, stack: ExitStack) -> None:
        self._revision = revision
        self._stack = stack
        self._open: dict[str, int | None] = {}

    def descriptor(self, etag: str) -> int | None:
        """The open file; None if it cannot be opened."""
        if etag not in self._open:
            self._open[etag] = None
            with suppress(OSError, KeyError):
                self._open[etag] = descriptor = self._revision.open(etag)
                self._stack.callback(os.close, descriptor)
        return self._open[etag]


class _PieceCopies:
    """Copies pieces from `sources` to the open staged file `target`, and checks them there."""

    def __init__(self, metainfo: Metainfo, sources: _OldFiles, target: int, count: Count) -> None:
        self._metainfo = metainfo
        self._sources = sources
        self._target = target
        self._count = count

    def fitting(self, placement: Placement, span: FileSpan, have: AbstractSet[int]) -> Iterator[int]:
        """The pieces of `placement` that are right and not in `have`, each once it is in the staged file."""
        covered = []
        for piece in span.pieces:
            place = self._metainfo.layout.piece_range(piece)
            if piece not in have and (parts := placement.cover(place.offset, place.offset + place.length)):
                covered.append((piece, parts))
        step = max(1, len(covered) // SAMPLES)
        fits = [piece for piece, parts in covered[::step] if self._fits(piece, parts)]
        yield from fits
        if fits and step > 1:
            for number, (piece, parts) in enumerate(covered):
                if number % step and self._fits(piece, parts):
                    yield piece

    def _fits(self, piece: int, parts: Sequence[OldRange]) -> bool:
        place = self._metainfo.layout.piece_range(piece)
        for part in parts:
            source = self._sources.descriptor(part.source)
            if source is None or not copy_range(source, self._target, part.start, part.offset, part.length):
                return False
        data = os.pread(self._target, place.length, place.offset)
        self._count(len(data))
        return self._metainfo.accepts(piece, data)
