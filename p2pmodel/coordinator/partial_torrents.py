"""Chapters of a birth: what its peers exchange while the rest is still being pulled.

A torrent needs the roots of all pieces. A chapter is a torrent with the layout of the one to come that is true in some
pieces: those that have had a root for a short while. In the place of all other roots stand hashes of no content, so
nobody has those pieces, and nobody wants them.
"""

import hashlib
from collections.abc import Callable, Mapping

from p2pmodel.core.layout import Layout
from p2pmodel.core.merkle import FileTree, tree_of

CHAPTERS = 16
"""How many there are of a snapshot at most: what is left to exchange at the end is less than one of them."""
LEAST_BYTES = 8 << 20
"""Of one of them: to meet in its swarm takes a moment, too."""


def chapter_bytes(total: int) -> int:
    """Bytes of each chapter, or some more, of a snapshot of `total` bytes."""
    return max(total // CHAPTERS, LEAST_BYTES)


def trees_of(layout: Layout, root_of: Callable[[int], bytes]) -> dict[str, FileTree]:
    """By path, the trees of all files that are not empty."""
    filled = (span for span in layout.spans if span.piece_count)
    return {span.path: tree_of([root_of(p) for p in span.pieces], layout.piece_length) for span in filled}


def chapter_trees(layout: Layout, roots: Mapping[int, bytes]) -> dict[str, FileTree]:
    """The trees of the chapter that is true in the pieces of `roots`."""
    return trees_of(layout, lambda piece: roots.get(piece) or _no_root(piece))


def roots_in(layout: Layout, trees: Mapping[str, FileTree]) -> dict[int, bytes]:
    """The reverse of `chapter_trees`."""
    pieces = ((p, trees[s.path].piece_hash(p - s.first_piece)) for s in layout.spans for p in s.pieces)
    return {piece: root for piece, root in pieces if root != _no_root(piece)}


def _no_root(piece: int) -> bytes:
    return hashlib.sha256(b"no content of piece %d" % piece).digest()
