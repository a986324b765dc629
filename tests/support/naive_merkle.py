"""BEP 52's Merkle tree, written as in the specification, without regard to speed or memory."""

import hashlib
from math import log2

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.core.content.merkle import HASH, FileTree


def naive_levels(data: bytes) -> list[list[bytes]]:
    """All levels of the file's tree, leaves first: blocks hashed, padded with zero hashes to a power of two."""
    level = [hashlib.sha256(data[i : i + BLOCK]).digest() for i in range(0, len(data), BLOCK)]
    while len(level) & (len(level) - 1):
        level.append(bytes(HASH))
    levels = [level]
    while len(level) > 1:
        level = [hashlib.sha256(level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        levels.append(level)
    return levels


def naive_tree(data: bytes, piece_length: int) -> FileTree:
    """Root and piece layer of a non-empty file."""
    levels = naive_levels(data)
    if len(data) <= piece_length:
        return FileTree(levels[-1][0], b"")
    layer = levels[int(log2(piece_length // BLOCK))]
    # BEP 52: hashes wholly behind the end of the file are left out of the layer.
    return FileTree(levels[-1][0], b"".join(layer[: -(-len(data) // piece_length)]))
