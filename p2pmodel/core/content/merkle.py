"""BitTorrent v2 Merkle arithmetic (BEP 52): 16 KiB leaves, piece layers, pieces roots."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from p2pmodel.core.content.layout import BLOCK

HASH = 32
_ZERO = bytes(HASH)


@dataclass(frozen=True, slots=True)
class FileTree:
    """Merkle data of one non-empty file: `root` (32 bytes) and `layer`, the concatenated piece hashes.

    `layer` is empty for a file of at most one piece: its root is the piece's hash.
    """

    root: bytes
    layer: bytes

    def piece_hash(self, number: int) -> bytes:
        """Expected hash of the file's piece `number` (0 for a one-piece file)."""
        return self.layer[number * HASH : (number + 1) * HASH] if self.layer else self.root


def leaves(data: bytes | bytearray | memoryview) -> list[bytes]:
    """Hashes of the 16 KiB blocks of `data`; the last block may be short and is hashed unpadded."""
    view = memoryview(data)
    sha256 = hashlib.sha256
    return [sha256(view[start : start + BLOCK]).digest() for start in range(0, len(view), BLOCK)]


def reduce(hashes: Sequence[bytes], width: int, pad: bytes = _ZERO) -> bytes:
    """Root of the balanced tree over `hashes`, padded on the right with `pad` to `width` (a power of two)."""
    level = list(hashes)
    while width > 1:
        if len(level) % 2:
            level.append(pad)
        level = [hashlib.sha256(level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        pad = hashlib.sha256(pad + pad).digest()
        width //= 2
    return level[0] if level else pad


def piece_hash(data: bytes | bytearray | memoryview, piece_length: int, *, only_piece: bool) -> bytes:
    """Hash of one piece's bytes. `only_piece`: the file has one piece, so its tree is padded to the next power of two
    of its blocks, not to the piece length."""
    blocks = leaves(data)
    return reduce(blocks, power_of_two(len(blocks)) if only_piece else piece_length // BLOCK)


def tree_of(piece_hashes: Sequence[bytes], piece_length: int) -> FileTree:
    """The file's tree from all its piece hashes in order (at least one)."""
    if len(piece_hashes) == 1:
        return FileTree(piece_hashes[0], b"")
    root = reduce(piece_hashes, power_of_two(len(piece_hashes)), _pad(piece_length))
    return FileTree(root, b"".join(piece_hashes))


def power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length() if count > 1 else 1


@cache
def _pad(piece_length: int) -> bytes:
    """Hash of a piece that lies wholly after the end of the file."""
    return reduce((), piece_length // BLOCK)
