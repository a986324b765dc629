"""The `files` list of hybrid and v1 torrents (BEP 3, 47, 52), and libtorrent's file indexes."""

from typing import Literal

from p2pmodel.core.content.layout import Layout
from p2pmodel.swarm.bencode import Encodable

Format = Literal["v2", "hybrid", "v1"]
"""BitTorrent version of a torrent: v2 only, both, or v1 only (for clients without v2)."""

SHA1 = 20


def file_list(layout: Layout, *, padded: bool) -> list[Encodable]:
    """The `files` value. `padded` (hybrids): a pad file fills the last piece of every file but the last non-empty one,
    so that both versions have the same pieces."""
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
