"""Partial torrents: peers of an assembly exchange their pieces while the rest still comes from the mirrors.

A torrent needs the roots of all pieces. A partial torrent has the layout of the final torrent and the true roots of
some pieces: those with roots that came since the last partial torrent. All other roots are hashes of no content, so no
peer has those pieces and no peer requests them.
"""

import hashlib
from collections.abc import Callable, Mapping

from p2pmodel.core.content.layout import Layout, piece_length_for
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.merkle import FileTree, tree_of

MAX_PARTIAL_TORRENTS = 16
"""Most partial torrents of a snapshot: what is left to exchange at the end is less than one of them."""
MIN_BYTES = 8 << 20
"""Bytes of the smallest one: connecting in its swarm takes time, too."""


def assembly_layout(manifest: Manifest) -> Layout:
    """The layout of the torrent that an assembly of `manifest` makes."""
    return Layout([(file.path, file.size) for file in manifest.files], piece_length_for(manifest.total_size))


def partial_torrent_bytes(total: int) -> int:
    """Least bytes of each partial torrent of a snapshot of `total` bytes."""
    return max(total // MAX_PARTIAL_TORRENTS, MIN_BYTES)


def trees_of(layout: Layout, root_of: Callable[[int], bytes]) -> dict[str, FileTree]:
    """Merkle trees of all files that are not empty, by path."""
    filled = (span for span in layout.spans if span.piece_count)
    return {span.path: tree_of([root_of(p) for p in span.pieces], layout.piece_length) for span in filled}


def partial_trees(layout: Layout, roots: Mapping[int, bytes]) -> dict[str, FileTree]:
    """Merkle trees of the partial torrent with the true roots `roots`, by path."""
    return trees_of(layout, lambda piece: roots.get(piece) or _no_root(piece))


def roots_in(layout: Layout, trees: Mapping[str, FileTree]) -> dict[int, bytes]:
    """The reverse of `partial_trees`: the true roots, by piece."""
    pieces = ((p, trees[s.path].piece_hash(p - s.first_piece)) for s in layout.spans for p in s.pieces)
    return {piece: root for piece, root in pieces if root != _no_root(piece)}


def _no_root(piece: int) -> bytes:
    return hashlib.sha256(b"no content of piece %d" % piece).digest()
