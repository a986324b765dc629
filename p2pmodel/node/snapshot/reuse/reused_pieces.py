"""Pieces of a new file that are copied from other revisions in the cache.

Invariant, to re-check when editing: a piece counts only after its bytes were read from the staged file and fit the
torrent's tree. What an older file says of itself is a guess.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.layout import BLOCK, FileSpan
from p2pmodel.core.content.shard_header import StoredTensor
from p2pmodel.errors import P2PModelError
from p2pmodel.node.snapshot.reuse.placements import OldRange, Placement, by_ends, by_tensors, known_parts, matching
from p2pmodel.node.snapshot.reuse.revisions import (
    MAX_HEADER,
    SHARD,
    OldRevision,
    header_end,
    other_revisions,
    read_tensors,
)
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.file_system import copy_range
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.parallel import Count, ignore
from p2pmodel.swarm.torrents import Metainfo

SAMPLES = 32
"""Pieces, spread over the file, that are tried first. If none fits, the placement is given up: a file that was trained
anew costs 32 pieces to read, not all of it."""


MARGIN = 4096
"""Bytes by which the header of a new file may be longer than that of the older one, before it is seen."""
WORTH = 10
"""The header of a file is fetched first if at least one tenth of the file is missing: to join the swarm twice takes a
second or so."""


@dataclass(frozen=True, slots=True)
class CopiedPieces:
    """The pieces that were copied, and those of the header without which no tensor can be matched."""

    pieces: frozenset[int] = frozenset()
    header: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class ReusableParts:
    """What older revisions have of one file: `pieces`, and `parts` of further ones in bytes. `saw_tensors`: whether the
    tensors of the file were known for that."""

    pieces: frozenset[int] = frozenset()
    parts: int = 0
    saw_tensors: bool = False


class PieceReuse:
    """The search of one torrent's pieces in other revisions. Methods block; threads may share it."""

    def __init__(self, repo: RepoCache, metainfo: Metainfo) -> None:
        self._repo = repo
        self._metainfo = metainfo
        self._guard = threading.Lock()
        self._found: list[OldRevision] | None = None

    def copy(self, span: FileSpan, staged: Path, have: frozenset[int], count: Count = ignore) -> CopiedPieces:
        """Copy pieces of `span` that are not in `have` to the file `staged`, made if one may fit. Returns those that
        fit; fewer if the disk fails or is full."""
        if span.piece_count < 2 or len(have) == span.piece_count:
            return CopiedPieces()
        found: set[int] = set()
        with suppress(OSError):
            self._copy(span, staged, have, found, count)
        return CopiedPieces(frozenset(found), self._header_first(span, staged, have | found))

    def measure(
        self,
        span: FileSpan,
        have: frozenset[int],
        tensors: list[StoredTensor] | None = None,
        count: Count = ignore,
        *,
        before: frozenset[int] = frozenset(),
    ) -> ReusableParts:
        """What `copy` would copy, and what of further pieces need not be requested, if the new file has these
        `tensors`. Without them, those of an older file count if the beginning is the same. `before`: pieces that were
        found before. Nothing is written."""
        found = set(before)
        if span.piece_count < 2:
            return ReusableParts()
        with ExitStack() as stack:
            for revision in self.revisions():
                copies = _PieceCopies(self._metainfo, OldFiles(revision, stack), None, count)
                for placement in self._placements(revision, span, tensors):
                    found.update(copies.fitting(placement, span, have | found))
        if tensors is None and span.first_piece in have | found:
            tensors = self._same_tensors(span)
        parts = [self._parts(revision, span, tensors, have, found) for revision in self.revisions() if tensors]
        return ReusableParts(frozenset(found), max(parts, default=0), saw_tensors=tensors is not None)

    def _same_tensors(self, span: FileSpan) -> list[StoredTensor] | None:
        """The tensors of the older file at the same path, if it has the same size."""
        for revision in self.revisions():
            old = revision.file(span.path)
            if old is not None and old.size == span.size and (tensors := revision.own_tensors(span.path)):
                return tensors
        return None

    def _parts(
        self,
        revision: OldRevision,
        span: FileSpan,
        new: list[StoredTensor] | None,
        have: AbstractSet[int],
        found: AbstractSet[int],
    ) -> int:
        """Bytes of missing pieces that belong to tensors of which a neighbouring piece is among those `found`."""
        layout, old, known = self._metainfo.layout, matching(new or (), revision.tensors(span.path)), 0
        for piece in span.pieces:
            if piece not in have and piece not in found:
                place = layout.piece_range(piece)

                def trusted(tensor: OldRange, piece: int = piece) -> bool:
                    held = layout.pieces_in(span, tensor.offset, tensor.length)
                    near = any(each in held and each in found for each in (piece - 1, piece + 1))
                    return near or (piece == span.first_piece and piece + 1 in found)

                parts = known_parts(old, place.offset, place.offset + place.length, trusted)
                known += worth_keeping(sum(part.length for part in parts))
        return known

    def _copy(self, span: FileSpan, staged: Path, have: frozenset[int], found: set[int], count: Count) -> None:
        with ExitStack() as stack:
            target = -1
            for revision in self.revisions():
                sources = OldFiles(revision, stack)
                for placement in self._placements(revision, span, self.tensors(span, staged, have)):
                    if target < 0:
                        target = open_regular(staged, os.O_RDWR | os.O_CREAT)
                        stack.callback(os.close, target)
                    copies = _PieceCopies(self._metainfo, sources, target, count)
                    found.update(copies.fitting(placement, span, have | found))
                    if len(found) + len(have) == span.piece_count:
                        return

    def _header_first(self, span: FileSpan, staged: Path, have: frozenset[int]) -> frozenset[int]:
        """The missing pieces of the header, if tensors of other revisions may then be found in the file.

        Not where the older file at that path has the same size: its header is presumably the same, and all that it has
        in common lies in the same places.
        """
        file, layout = self._metainfo.manifest.files[span.index], self._metainfo.layout
        if not file.path.endswith(SHARD) or WORTH * (span.piece_count - len(have)) < span.piece_count:
            return frozenset()
        old = [revision.file(file.path) for revision in self.revisions()]
        lengths = [revision.header_bytes(file.path) for revision in self.revisions()]
        expected = max((length for length in lengths if length), default=0)
        if not expected or any(each is not None and each.size == file.size for each in old):
            return frozenset()
        end = expected + MARGIN
        if span.first_piece in have:
            with suppress(OSError, P2PModelError):
                end = header_end(staged, file)
        pieces = layout.pieces_in(span, 0, min(end, file.size))
        missing = frozenset(pieces) - have
        return missing if end <= MAX_HEADER and span.piece_count > 2 * len(missing) else frozenset()

    @property
    def has_revisions(self) -> bool:
        """Whether `revisions` was called, and found one."""
        return bool(self._found)

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

    def _placements(self, revision: OldRevision, span: FileSpan, new: list[StoredTensor] | None) -> Iterator[Placement]:
        file = self._metainfo.manifest.files[span.index]
        if new is not None and (placement := by_tensors(new, revision.tensors(file.path))):
            yield placement
        old = revision.file(file.path)
        if old is not None and old.etag != file.etag:
            yield from by_ends(file.size, old.etag, old.size)


class OldFiles:
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

    def read(self, part: OldRange) -> bytes | None:
        """The bytes of `part`; None if they cannot be read."""
        descriptor = self.descriptor(part.source)
        data = b"" if descriptor is None else os.pread(descriptor, part.length, part.start)
        return data if len(data) == part.length else None


def worth_keeping(known: int) -> int:
    """`known` bytes of a piece, 0 if they are too few for requests of their own for the others."""
    return known if known >= BLOCK else 0


class _PieceCopies:
    """Copies pieces from `sources` to the open staged file `target`, and checks them there. Without `target` they are
    only checked."""

    def __init__(self, metainfo: Metainfo, sources: OldFiles, target: int | None, count: Count) -> None:
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
        place, target = self._metainfo.layout.piece_range(piece), self._target
        if target is None:
            data = b"".join(self._sources.read(part) or b"" for part in parts)
        else:
            for part in parts:
                source = self._sources.descriptor(part.source)
                if source is None or not copy_range(source, target, part.start, part.offset, part.length):
                    return False
            data = os.pread(target, place.length, place.offset)
        self._count(len(data))
        return self._metainfo.accepts(piece, data)
