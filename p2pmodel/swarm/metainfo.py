"""A parsed and checked torrent, the bounds of a valid one, and the order of its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from p2pmodel.core.content import merkle
from p2pmodel.core.content.layout import BLOCK, MIB, Layout, piece_length_for
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.merkle import FileTree
from p2pmodel.swarm.bencode import Encodable

MAX_TORRENT_SIZE: Final = 64 * MIB
"""Bytes; the .torrent of 500 GB has about 1 MB."""
MIN_PIECE_LENGTH = BLOCK
MAX_PIECE_LENGTH = 128 * MIB
MAX_PIECES = 1 << 21
"""libtorrent's bounds."""
MAX_AUTHORITY = 16 << 10
"""Bytes of the root certificate in a private torrent."""

Format = Literal["v2", "hybrid", "v1"]
"""BitTorrent version of a torrent: v2 only, both, or v1 only (for clients without v2)."""

SHA1 = 20


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


def file_list(layout: Layout, *, padded: bool) -> list[Encodable]:
    """The `files` value of hybrid and v1 torrents (BEP 3, 47, 52).

    `padded` (hybrids): a pad file fills the last piece of every file but the last non-empty one,
    so that both versions have the same pieces.
    """
    last = _last_filled(layout)
    entries: list[Encodable] = []
    for span in layout.spans:
        entries.append({"length": span.size, "path": span.path.split("/")})
        pad = -span.size % layout.piece_length
        if padded and pad and span.index != last:
            entries.append({"attr": "p", "length": pad, "path": [".pad", str(pad)]})
    return entries


def file_indexes(layout: Layout, form: Format) -> tuple[int, ...]:
    """libtorrent's index of every file of `layout`. It counts pad files: those of the file list, and in a v2-only
    torrent those that it adds itself, also after the last file."""
    last = _last_filled(layout)
    found, index = [], 0
    for span in layout.spans:
        found.append(index)
        ends_inside = span.size % layout.piece_length != 0
        pad = ends_inside and (form == "v2" or (form == "hybrid" and span.index != last))
        index += 2 if pad else 1
    return tuple(found)


def v1_piece_count(layout: Layout, *, padded: bool) -> int:
    """Number of SHA-1 pieces: over the padded files (hybrid), or over the plain concatenation (v1)."""
    if padded:
        return layout.piece_count
    return -(-sum(span.size for span in layout.spans) // layout.piece_length)


def _last_filled(layout: Layout) -> int:
    return max((span.index for span in layout.spans if span.size), default=-1)
