"""The record of the pieces in staged files, which a later run trusts: kept by content, so that it serves every torrent
with the same content."""

from collections.abc import Collection, Iterable

from p2pmodel.core.content.layout import FileSpan
from p2pmodel.node.snapshot.inventory import pieces_within
from p2pmodel.store.files.range_set import RangeSet
from p2pmodel.store.staging import StagedContents
from p2pmodel.swarm.torrents import Metainfo


class PieceRecord:
    """The records of the files of one torrent. Methods block."""

    def __init__(self, contents: StagedContents, metainfo: Metainfo) -> None:
        self._contents = contents
        self._metainfo = metainfo

    def load(self) -> frozenset[int]:
        """Pieces that passed the checks of the same tree in an earlier run, and are certainly on disk."""
        names = self._contents.names()
        if not names:
            return frozenset()
        layout, files = self._metainfo.layout, self._metainfo.manifest.files
        found: set[int] = set()
        for span, path in zip(layout.spans, self._contents.paths_of(files), strict=True):
            if span.size and path.name in names:
                ranges = self._contents.checked(path, files[span.index], self._root(span))
                found.update(piece for start, end in ranges for piece in pieces_within(layout, span, start, end))
        return frozenset(found)

    def save(self, pieces: Collection[int], changed: Iterable[int]) -> None:
        """Record the pieces of the staged files that have one of the `changed` pieces: those in `pieces`."""
        layout, files = self._metainfo.layout, self._metainfo.manifest.files
        spans = {layout.span_of(piece).index for piece in changed}
        paths = self._contents.paths_of(files) if spans else ()
        for index in sorted(spans):
            span, ranges = layout.spans[index], RangeSet()
            for piece in span.pieces:
                if piece in pieces:
                    place = layout.piece_range(piece)
                    ranges.add(place.offset, place.offset + place.length)
            self._contents.record_checked(paths[index], files[index], self._root(span), ranges)

    def _root(self, span: FileSpan) -> str:
        return self._metainfo.trees[span.path].root.hex()
