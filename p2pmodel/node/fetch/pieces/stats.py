"""Count which pieces of a snapshot are here or missing, and from which source they came."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.progress.progress import FileProgress
from p2pmodel.swarm.torrents import Metainfo

PieceSource = Literal["peers", "seeders", "mirrors"]
"""`seeders`: over HTTP; these bytes count as bytes from peers, too."""


class PieceStats:
    """Counts the pieces of `files` (indexes into the manifest), from `begin` on; of these only `pieces` (None: all),
    and `blocks` bytes of others. Sizes in bytes."""

    def __init__(
        self, metainfo: Metainfo, files: frozenset[int], pieces: frozenset[int] | None = None, blocks: int = 0
    ) -> None:
        self._layout = metainfo.layout
        self._files = files
        self._pieces = pieces
        self._spans = len(metainfo.manifest.files)
        self.total = self.size(self._wanted()) if pieces is not None else _size_of(metainfo, files)
        self.total += blocks
        self._blocks_total = blocks
        self._blocks: Counter[PieceSource | Literal["cache"]] = Counter()
        """Bytes of blocks, by their source."""
        self.missing: set[int] = set()
        """Shrinks as pieces arrive; each `begin` replaces the set."""
        self.before: frozenset[int] = frozenset()
        """Pieces that were here at the beginning."""
        self.checked = 0
        """Bytes of existing files that were read since `begin_check`."""
        self.rejected = 0
        """Pieces that arrived and failed their hash check."""
        self.mirrored: set[int] = set()
        self.from_cache = self.from_peers = self.from_seeders = self.from_mirrors = 0
        self._sources: dict[int, PieceSource] = {}
        """By piece that has arrived, in whichever attempt, its source."""
        self._spared: dict[int, int] = {}
        """By piece that has arrived, bytes of it that came from older revisions."""
        self._missing_of: Counter[int] = Counter()
        self._begun = False
        self._absent: Counter[int] = Counter()
        """By file, the bytes of wanted pieces that are not here, also of those that are not missing for now."""
        self.verified: set[int] = set()
        """Files of which the hub's hash was right."""

    def begin_check(self) -> None:
        """Existing files are about to be read."""
        self.checked = 0

    def count_checked(self, size: int) -> None:
        """`size` bytes of existing files were read."""
        self.checked += size

    def count_rejected(self) -> None:
        """A piece failed its hash check."""
        self.rejected += 1

    def begin(
        self,
        have: frozenset[int],
        *,
        mirrored: frozenset[int],
        exchanged: frozenset[int],
        only: frozenset[int] | None = None,
    ) -> None:
        """`have` is here; of these, `mirrored` came from mirrors in this run, and `exchanged` from peers, besides what
        has arrived in earlier attempts. `only`: no other piece is missing for now."""
        wanted = self._wanted()
        self.missing = (wanted if only is None else wanted & only) - have
        self.mirrored = set((mirrored | self._arrived_from("mirrors")) & have)
        seeded = self._arrived_from("seeders")
        exchanged |= seeded | self._arrived_from("peers")
        self.before = have - self.mirrored - exchanged
        self._missing_of = Counter(self._layout.span_of(piece).index for piece in self.missing)
        self._begun = True
        self._absent = Counter()
        for piece in wanted - have:
            place = self._layout.piece_range(piece)
            self._absent[place.span.index] += place.length
        blocks = self._blocks
        self.from_cache = self.size(wanted & self.before) + self._spared_of(wanted & have) + blocks["cache"]
        self.from_peers = self._received(wanted & exchanged & have) + blocks["seeders"]
        self.from_mirrors = self._received(wanted & self.mirrored)
        self.from_seeders = self._received(wanted & seeded & have) + blocks["seeders"]

    def blocks_arrived(self, size: int, here: bool) -> None:
        """Count `size` bytes of blocks, which came from seeders, or were `here` before."""
        self._blocks["cache" if here else "seeders"] += size
        if here:
            self.from_cache += size
        else:
            self.from_peers += size
            self.from_seeders += size

    def _wanted(self) -> set[int]:
        every = {piece for i in self._files for piece in self._layout.spans[i].pieces}
        return every if self._pieces is None else every & self._pieces

    def _arrived_from(self, source: PieceSource) -> frozenset[int]:
        return frozenset(piece for piece, each in self._sources.items() if each == source)

    def _spared_of(self, pieces: Iterable[int]) -> int:
        return sum(self._spared.get(piece, 0) for piece in pieces)

    def _received(self, pieces: frozenset[int] | set[int]) -> int:
        return self.size(pieces) - self._spared_of(pieces)

    def arrived(self, piece: int, source: PieceSource, *, spared: int = 0) -> int | None:
        """Count the missing `piece`, which came from `source`, except `spared` bytes, which came from older revisions.
        Returns the file that it completes, if any."""
        self.missing.discard(piece)
        self._sources[piece] = source
        self._spared[piece] = spared
        place = self._layout.piece_range(piece)
        received = place.length - spared
        self.from_cache += spared
        if source == "mirrors":
            self.mirrored.add(piece)
            self.from_mirrors += received
        else:
            self.from_peers += received
            self.from_seeders += received if source == "seeders" else 0
        self._missing_of[place.span.index] -= 1
        self._absent[place.span.index] -= place.length
        return None if self._missing_of[place.span.index] else place.span.index

    @property
    def unfinished(self) -> bool:
        """Whether pieces or blocks are missing."""
        return bool(self.missing) or self._blocks.total() < self._blocks_total

    @property
    def done(self) -> int:
        """Bytes of the wanted files that are here."""
        return self.from_cache + self.from_peers + self.from_mirrors

    @property
    def has_all(self) -> bool:
        """Whether the whole snapshot is here, not only the wanted files."""
        return self._pieces is None and len(self._files) == self._spans and not self.missing

    def file_progress(self, manifest: Manifest) -> tuple[FileProgress, ...]:
        """The wanted files at this moment."""
        sizes = ((index, manifest.files[index]) for index in sorted(self._files))
        return tuple(
            FileProgress(
                path=file.path,
                size=file.size,
                done=file.size - self._absent.get(index, 0) if self._begun else 0,
                verified=index in self.verified or (self._begun and not file.size),
            )
            for index, file in sizes
        )

    def incomplete(self) -> list[int]:
        """Files with missing pieces, in order."""
        return [index for index in sorted(self._files) if self._missing_of[index]]

    def whole(self) -> list[int]:
        """Files without missing pieces, in order."""
        return [index for index in sorted(self._files) if not self._missing_of[index]]

    def size(self, pieces: Iterable[int]) -> int:
        """Bytes of `pieces` together."""
        return sum(self._layout.piece_range(piece).length for piece in pieces)


def _size_of(metainfo: Metainfo, files: frozenset[int]) -> int:
    return sum(metainfo.manifest.files[index].size for index in files)
