"""The pieces of a snapshot without a torrent, as one node has them."""

from collections.abc import Iterable
from itertools import islice

from p2pmodel.core.content.bitfield import bits_of
from p2pmodel.core.content.layout import Layout
from p2pmodel.core.pace import Rate
from p2pmodel.swarm.torrents import Metainfo


class AssemblyPieces:
    """Pieces that are here or being downloaded, their sources, and their Merkle roots, which the coordinator needs."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._bits = 0
        self._unsent: set[int] = set()
        """Pieces with roots that the coordinator does not have."""
        self.here: set[int] = set()
        self.before: frozenset[int] = frozenset()
        """Pieces that were here at the beginning."""
        self.exchanged: set[int] = set()
        """Pieces that came from other nodes."""
        self.in_flight: set[int] = set()
        """Pieces that are being downloaded from mirrors."""
        self.roots: dict[int, bytes] = {}
        self.pulled_bytes = 0
        """Bytes of pieces that came from mirrors."""
        self.rate = Rate()
        """Bytes a second that come from mirrors."""
        self.arrivals = Rate()
        """Bytes a second that come from mirrors and other nodes."""

    def begin(self) -> None:
        """Count the present pieces as those that were here before."""
        self.before, self.pulled_bytes = frozenset(self.here), 0

    @property
    def complete(self) -> bool:
        """Whether all pieces are here."""
        return len(self.here) == self._layout.piece_count

    @property
    def all_roots_known(self) -> bool:
        """Whether the roots of all pieces are known."""
        return len(self.roots) == self._layout.piece_count

    @property
    def missing(self) -> int:
        """Pieces that are not here, as a set of bits."""
        return ((1 << self._layout.piece_count) - 1) & ~self._bits

    @property
    def pulled(self) -> frozenset[int]:
        """Pieces that came from mirrors."""
        return frozenset(self.here - self.before - self.exchanged)

    @property
    def from_others(self) -> frozenset[int]:
        """Pieces that other nodes sent, if they are here: they were not here before, nor came from mirrors.

        More than `exchanged`: the swarm of a partial torrent may write a piece while this node leaves it.
        """
        return frozenset(range(self._layout.piece_count)) - self.before - self.pulled

    def lacks(self, piece: int) -> bool:
        """Whether `piece` is neither here nor being downloaded."""
        return piece not in self.here and piece not in self.in_flight

    def has(self, piece: int, root: bytes) -> bool:
        """Whether `piece` is here with this content."""
        return piece in self.here and self.roots.get(piece) == root

    def add(self, pieces: Iterable[int]) -> None:
        """Add pieces that are here; those that are new came from mirrors."""
        new = frozenset(pieces) - self.here
        self.here |= new
        self._bits |= bits_of(new)
        self.pulled_bytes += self.size(new)

    def receive(self, piece: int, root: bytes) -> None:
        """Add a piece that came from another node. Its root is not sent: the coordinator has it."""
        if piece not in self.here:
            self.roots[piece] = root
            self.exchanged.add(piece)
            self.here.add(piece)
            self._bits |= 1 << piece
            self.arrivals.add(self._layout.piece_range(piece).length)

    def pulling(self, size: int) -> None:
        """`size` bytes came from mirrors."""
        self.rate.add(size)
        self.arrivals.add(size)

    def add_roots(self, roots: dict[int, bytes]) -> None:
        """Add the roots of pieces that are here."""
        self.roots |= roots
        self._unsent |= roots.keys()

    def resend_all(self) -> None:
        """Mark all roots as not sent: the connection is new."""
        self._unsent = set(self.roots)

    def take_unsent(self, most: int) -> dict[int, bytes]:
        """At most `most` roots that were not sent, by piece; they count as sent from now on."""
        sent = list(islice(self._unsent, most))
        self._unsent.difference_update(sent)
        return {piece: self.roots[piece] for piece in sent}

    @property
    def has_unsent(self) -> bool:
        """Whether some roots were not sent."""
        return bool(self._unsent)

    def matching(self, metainfo: Metainfo) -> frozenset[int]:
        """Pieces that are here with the same root as in `metainfo`."""
        return frozenset(p for p, root in self.roots.items() if p in self.here and _hash_in(metainfo, p) == root)

    def size(self, pieces: Iterable[int]) -> int:
        """Bytes of `pieces`."""
        return sum(self._layout.piece_range(piece).length for piece in pieces)


def _hash_in(metainfo: Metainfo, piece: int) -> bytes:
    span = metainfo.layout.span_of(piece)
    return metainfo.trees[span.path].piece_hash(piece - span.first_piece)
