"""Merkle roots of pieces that are on this node."""

import os
from collections.abc import Iterable
from pathlib import Path

from p2pmodel.core.layout import Layout
from p2pmodel.core.merkle import piece_hash
from p2pmodel.os_errors import translated
from p2pmodel.store.files.parallel import Count, ignore


@translated()
def roots_of(path: Path, layout: Layout, pieces: Iterable[int], on_bytes: Count = ignore) -> dict[int, bytes]:
    """Roots of `pieces`, all of one file, which is stored at `path`. Blocks: call in a thread."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = {}
        for piece in pieces:
            place = layout.piece_range(piece)
            data = os.pread(descriptor, place.length, place.offset)
            on_bytes(len(data))
            if len(data) == place.length:
                found[piece] = piece_hash(data, layout.piece_length, only_piece=place.span.piece_count == 1)
        return found
    finally:
        os.close(descriptor)
