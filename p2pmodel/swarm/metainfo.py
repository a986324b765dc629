"""A parsed and checked torrent, and the bounds of a valid one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from p2pmodel.core.content import merkle
from p2pmodel.core.content.layout import BLOCK, MIB, Layout, piece_length_for
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.merkle import FileTree
from p2pmodel.swarm.file_list import Format

MAX_TORRENT_SIZE: Final = 64 * MIB
"""Bytes; the .torrent of 500 GB has about 1 MB."""
MIN_PIECE_LENGTH = BLOCK
MAX_PIECE_LENGTH = 128 * MIB
MAX_PIECES = 1 << 21
"""libtorrent's bounds."""


MAX_AUTHORITY = 16 << 10
"""Bytes of the root certificate in a private torrent."""


@dataclass(frozen=True, slots=True)
class Metainfo:
    """A completely checked .torrent: `raw` are its bytes, and all else is parsed from them."""

    raw: bytes
    manifest: Manifest
    info_hash: str
    """v2 info-hash, 64 hex digits."""
    info_hash_v1: str | None
    """v1 info-hash of a hybrid, 40 hex digits."""
    format: Format
    layout: Layout
    trees: Mapping[str, FileTree]
    """By path, for the non-empty files."""
    trackers: tuple[str, ...]
    webseeds: tuple[str, ...]
    file_indexes: tuple[int, ...]
    """The engine's index of each of `manifest.files`; it counts pad files."""
    authority: str | None = None
    """Root certificate (PEM) of a private swarm, of which each peer needs a certificate; None: a public swarm."""

    def accepts(self, piece: int, data: bytes | bytearray | memoryview) -> bool:
        """Whether `data` are the bytes of `piece`. IndexError for a piece outside the torrent."""
        place = self.layout.piece_range(piece)
        if len(data) != place.length:
            return False
        got = merkle.piece_hash(data, self.layout.piece_length, only_piece=place.span.piece_count == 1)
        return got == self.trees[place.span.path].piece_hash(piece - place.span.first_piece)


def layout_of(manifest: Manifest, piece_length: int | None = None) -> Layout:
    """The piece layout of a snapshot's torrent; `piece_length` follows from the size by default."""
    sizes = [(file.path, file.size) for file in manifest.files]
    return Layout(sizes, piece_length or piece_length_for(manifest.total_size))


def is_one_file(manifest: Manifest) -> bool:
    """Whether libtorrent names the torrent after its only file, not after the commit: certificates of two snapshots
    would then open both."""
    return len(manifest.files) == 1 and "/" not in manifest.files[0].path
