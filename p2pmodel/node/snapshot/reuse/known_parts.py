"""The bytes of a missing piece that older revisions presumably have, where the piece has bytes of changed tensors, too.

A tensor is presumed to be the same if a piece beside this one has bytes of it that are. The torrent's tree decides on
the piece once the other bytes are there.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.layout import KIB, FileSpan, PieceRange
from p2pmodel.core.content.shard_header import LENGTH, StoredTensor, header_length, tensor_places
from p2pmodel.errors import P2PModelError
from p2pmodel.node.snapshot.reuse.placements import OldRange, gaps, known_parts, matching
from p2pmodel.node.snapshot.reuse.reused_pieces import MARGIN, OldFiles, PieceReuse, worth_keeping
from p2pmodel.node.snapshot.reuse.revisions import SHARD, OldRevision
from p2pmodel.store.files.folder import open_regular
from p2pmodel.swarm.torrents import Metainfo

COMPARED = 64 * KIB
"""Bytes of a tensor in a neighbouring piece that are compared with those of the older file."""
MOST_GAPS = 8
"""Ranges of a piece that are requested one by one; with more the whole piece is."""


@dataclass(frozen=True, slots=True)
class PieceDraft:
    """A piece with the presumed bytes of older revisions in their places; `gaps`: (start, end) of the other bytes, in
    the file."""

    place: PieceRange
    data: bytearray
    gaps: tuple[tuple[int, int], ...]

    @property
    def unknown(self) -> int:
        """Bytes in the gaps."""
        return sum(end - start for start, end in self.gaps)

    def fill(self, start: int, data: bytes) -> None:
        """Put `data` at `start` of the file."""
        first = start - self.place.offset
        self.data[first : first + len(data)] = data


class KnownParts:
    """Makes drafts of missing pieces. `paths`: where each file of the torrent lies or is staged; `held`: the verified
    pieces in them. A piece that has just arrived is none of those: the engine may not have written it yet, and the file
    may have the bytes of the older revision there. Methods block; threads may share it."""

    def __init__(self, reuse: PieceReuse, metainfo: Metainfo, paths: Sequence[Path], held: frozenset[int]) -> None:
        self._reuse = reuse
        self._metainfo = metainfo
        self._paths = paths
        self._held = held
        self._old: dict[int, list[tuple[OldRevision, list[OldRange]]]] = {}
        """By file, once its header is there, what each older revision has of its tensors."""

    @classmethod
    def of(
        cls, reuse: PieceReuse | None, metainfo: Metainfo, paths: Sequence[Path], held: frozenset[int]
    ) -> "KnownParts | None":
        """The parts; None if there is nothing to search, or no older revision was found."""
        return cls(reuse, metainfo, paths, held) if reuse is not None and reuse.has_revisions else None

    def header_bytes(self, piece: int) -> int:
        """Bytes at the front of `piece` that presumably contain the header of its file; 0 if that is of no use."""
        place = self._metainfo.layout.piece_range(piece)
        if place.offset or not place.span.path.endswith(SHARD):
            return 0
        lengths = [revision.header_bytes(place.span.path) for revision in self._reuse.revisions()]
        expected = max((length for length in lengths if length), default=0) + MARGIN
        return expected if MARGIN < expected < place.length else 0

    def draft(self, piece: int, head: bytes = b"") -> PieceDraft | None:
        """The draft of `piece`, of which `head` is the front; None if older revisions have too little of it."""
        place = self._metainfo.layout.piece_range(piece)
        if not place.span.path.endswith(SHARD) or not self._reuse.revisions():
            return None
        for revision, old in self._old_of(place.span, head):
            with suppress(OSError):
                found = self._draft_from(revision, old, place, piece, head)
                if found is not None:
                    return found
        return None

    def _old_of(self, span: FileSpan, head: bytes) -> list[tuple[OldRevision, list[OldRange]]]:
        if span.index not in self._old:
            new = self._tensors(span, head)
            if not new:
                return []
            found = [(revision, matching(new, revision.tensors(span.path))) for revision in self._reuse.revisions()]
            self._old[span.index] = [(revision, old) for revision, old in found if old]
        return self._old[span.index]

    def _tensors(self, span: FileSpan, head: bytes) -> list[StoredTensor] | None:
        if not head:
            held = frozenset(piece for piece in span.pieces if piece in self._held)
            return self._reuse.tensors(span, self._paths[span.index], held)
        with suppress(P2PModelError):
            end = LENGTH + header_length(head, span.path, span.size)
            return tensor_places(head[LENGTH:end], span.path, span.size)
        return None

    def _draft_from(
        self, revision: OldRevision, old: list[OldRange], place: PieceRange, piece: int, head: bytes
    ) -> PieceDraft | None:
        """As `draft`. Raises OSError."""
        start, end = place.offset + len(head), place.offset + place.length
        with ExitStack() as stack:
            sources = OldFiles(revision, stack)
            staged = -1
            if not head:
                staged = open_regular(self._paths[place.span.index])
                stack.callback(os.close, staged)

            def trusted(tensor: OldRange) -> bool:
                return bool(head) or self._same_beside(tensor, piece, place, sources, staged)

            parts = known_parts(old, start, end, trusted)
            missing = tuple(gaps(parts, start, end))
            known = [(part, sources.read(part)) for part in parts]
        if not worth_keeping(sum(part.length for part in parts)) or len(missing) > MOST_GAPS:
            return None
        draft = PieceDraft(place, bytearray(place.length), missing)
        draft.fill(place.offset, head)
        for part, data in known:
            if data is None:
                return None
            draft.fill(part.offset, data)
        return draft

    def _same_beside(self, tensor: OldRange, piece: int, place: PieceRange, sources: OldFiles, staged: int) -> bool:
        """Whether a piece beside this one is here and has bytes of `tensor`, the same as those of the older file."""
        start, end = place.offset, place.offset + place.length
        for near, first, last in ((piece - 1, start - COMPARED, start), (piece + 1, end, end + COMPARED)):
            part = tensor.part(first, last)
            if part.length > 0 and near in place.span.pieces and near in self._held:
                return os.pread(staged, part.length, part.offset) == sources.read(part)
        return False
