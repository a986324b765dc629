"""The `files` list of hybrid and v1 torrents (BEP 3, 47, 52), and the file indexes an engine gives them."""

from collections.abc import Iterator
from typing import Literal

from p2pmodel.domain.layout import Layout
from p2pmodel.swarm.bencode import Encodable

Format = Literal["v2", "hybrid", "v1"]
"""What a torrent speaks: BitTorrent v2 alone, both, or the first version alone (for clients that know no v2)."""

SHA1 = 20


def file_list(layout: Layout, *, padded: bool) -> list[Encodable]:
    """The `files` value. `padded` (hybrids): after every file that ends inside a piece, the last one too, comes a
    pad file up to the piece's end, so that the pieces of both versions are the same bytes."""
    entries: list[Encodable] = []
    for path, size, pad in _entries(layout, padded=padded):
        entries.append({"length": size, "path": path.split("/")})
        if pad:
            entries.append({"attr": "p", "length": pad, "path": [".pad", str(pad)]})
    return entries


def file_indexes(layout: Layout, form: Format) -> tuple[int, ...]:
    """For every file of `layout` its index in an engine, which counts pad files, in v2-only torrents too."""
    found, index = [], 0
    for _, _, pad in _entries(layout, padded=form != "v1"):
        found.append(index)
        index += 2 if pad else 1
    return tuple(found)


def v1_piece_count(layout: Layout, *, padded: bool) -> int:
    """How many SHA-1 pieces the torrent has: over the padded files (hybrid), or the plain concatenation (v1)."""
    if padded:
        return layout.piece_count
    return -(-sum(span.size for span in layout.spans) // layout.piece_length)


def _entries(layout: Layout, *, padded: bool) -> Iterator[tuple[str, int, int]]:
    for span in layout.spans:
        yield span.path, span.size, -span.size % layout.piece_length if padded else 0
