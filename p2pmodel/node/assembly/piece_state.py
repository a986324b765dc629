"""What a node has of a snapshot that has no torrent yet."""

from collections.abc import Iterable
from itertools import islice

from p2pmodel.coordinator.leases import bits_of
from p2pmodel.core.layout import Layout
from p2pmodel.swarm.torrents import Metainfo


class AssemblyPieces:
    """Pieces that are here, whence they came, and their Merkle roots, of which a coordinator is told."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._bits = 0
        self._untold: set[int] = set()
        self.here: set[int] = set()
        self.before: frozenset[int] = frozenset()
        """Those that were here when this began."""
        self.traded: set[int] = set()
        """Those that came from other nodes."""
        self.roots: dict[int, bytes] = {}
        self.pulled_bytes = 0
        """Of those that came from mirrors."""

    def begin(self) -> None:
        """What is here by now was here before."""
        self.before, self.pulled_bytes = frozenset(self.here), 0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return len(self.here) == self._layout.piece_count

    @property
    def rooted(self) -> bool:
        """Whether the roots of all pieces are known."""
        return len(self.roots) == self._layout.piece_count

    @property
    def missing(self) -> int:
        """As a set of bits."""
        return ((1 << self._layout.piece_count) - 1) & ~self._bits

    @property
    def pulled(self) -> frozenset[int]:
        """Pieces that came from mirrors."""
        return frozenset(self.here - self.before - self.traded)

    def add(self, pieces: Iterable[int]) -> None:
        """They are here; those that are new came from mirrors."""
        new = frozenset(pieces) - self.here
        self.here |= new
        self._bits |= bits_of(new)
        self.pulled_bytes += self.size(new)

    def trade(self, piece: int, root: bytes) -> None:
        """It came from another node. That is no news to the coordinator, which hears of it soon enough."""
        if piece not in self.here:
            self.roots[piece] = root
            self.traded.add(piece)
            self.here.add(piece)
            self._bits |= 1 << piece

    def root(self, roots: dict[int, bytes]) -> None:
        """These are the roots of pieces that are here."""
        self.roots |= roots
        self._untold |= roots.keys()

    def greet(self) -> None:
        """The coordinator knows nothing of us yet."""
        self._untold = set(self.roots)

    def tell(self, most: int) -> dict[int, bytes]:
        """At most so many roots that the coordinator has not been told of."""
        told = list(islice(self._untold, most))
        self._untold.difference_update(told)
        return {piece: self.roots[piece] for piece in told}

    @property
    def has_news(self) -> bool:
        """Whether there is more to tell."""
        return bool(self._untold)

    def right(self, metainfo: Metainfo) -> frozenset[int]:
        """Pieces that are here and as `metainfo` has them."""
        return frozenset(p for p, root in self.roots.items() if p in self.here and _hash_in(metainfo, p) == root)

    def size(self, pieces: Iterable[int]) -> int:
        """Bytes of those pieces."""
        return sum(self._layout.piece_range(piece).length for piece in pieces)


def _hash_in(metainfo: Metainfo, piece: int) -> bytes:
    span = metainfo.layout.span_of(piece)
    return metainfo.trees[span.path].piece_hash(piece - span.first_piece)
