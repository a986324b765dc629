"""What of a snapshot is here, what is missing, and whence it came."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from p2pmodel.swarm.torrents import Metainfo

PieceSource = Literal["peers", "seeders", "mirrors"]
"""`seeders`: over HTTP, from peers that are sources; these bytes count as those of peers, too."""


class PieceStats:
    """Counts the pieces of `files` (indexes into the manifest), from `begin` on. All sizes in bytes."""

    def __init__(self, metainfo: Metainfo, files: frozenset[int]) -> None:
        self._layout = metainfo.layout
        self._files = files
        self._spans = len(metainfo.manifest.files)
        self.total = sum(metainfo.manifest.files[i].size for i in files)
        self.missing: set[int] = set()
        """It shrinks as pieces arrive, and is another set after each `begin`."""
        self.before: frozenset[int] = frozenset()
        """Pieces that were here at the beginning."""
        self.mirrored: set[int] = set()
        self.from_cache = self.from_peers = self.from_seeders = self.from_mirrors = 0
        self._missing_of: Counter[int] = Counter()

    def begin(self, have: frozenset[int], *, mirrored: frozenset[int], traded: frozenset[int]) -> None:
        """`have` is here: of that, `mirrored` came from mirrors in this run, and `traded` from peers."""
        wanted = {piece for i in self._files for piece in self._layout.spans[i].pieces}
        self.missing = wanted - have
        self.mirrored = set(mirrored & have)
        self.before = have - mirrored - traded
        self._missing_of = Counter(self._layout.span_of(piece).index for piece in self.missing)
        self.from_cache = self.size(wanted & self.before)
        self.from_peers = self.size(wanted & traded & have)
        self.from_mirrors = self.size(wanted & self.mirrored)
        self.from_seeders = 0

    def arrived(self, piece: int, source: PieceSource) -> int | None:
        """The missing `piece` came from there. The file that is whole with it, if one is."""
        self.missing.discard(piece)
        place = self._layout.piece_range(piece)
        if source == "mirrors":
            self.mirrored.add(piece)
            self.from_mirrors += place.length
        else:
            self.from_peers += place.length
            self.from_seeders += place.length if source == "seeders" else 0
        self._missing_of[place.span.index] -= 1
        return None if self._missing_of[place.span.index] else place.span.index

    @property
    def done(self) -> int:
        """What is here of what is wanted."""
        return self.from_cache + self.from_peers + self.from_mirrors

    @property
    def has_all(self) -> bool:
        """Whether nothing of the snapshot is missing, not only of what was wanted of it."""
        return len(self._files) == self._spans and not self.missing

    def whole(self) -> list[int]:
        """Files that lack nothing, in order."""
        return [index for index in sorted(self._files) if not self._missing_of[index]]

    def size(self, pieces: Iterable[int]) -> int:
        """Of these pieces together."""
        return sum(self._layout.piece_range(piece).length for piece in pieces)
